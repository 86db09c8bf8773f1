-- Roles, database and extension as the environment names them; the same again changes nothing.
-- A statement that fails is not logged: it may hold a password.
SET log_min_error_statement = panic;
SET log_statement = 'none';
SET client_min_messages = warning;
\getenv user DB_USER
\getenv password DB_PASSWORD
\getenv name DB_NAME
\getenv replication_password REPLICATION_PASSWORD
SELECT format('CREATE ROLE %I', :'user') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
ALTER ROLE :"user" LOGIN PASSWORD :'password';
SELECT 'CREATE ROLE arena_replicator' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'arena_replicator') \gexec
ALTER ROLE arena_replicator LOGIN REPLICATION PASSWORD :'replication_password';
GRANT pg_read_all_stats TO :"user";
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'user')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
\connect :"name"
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
