-- Roles, database and extension as the environment names them; the same again changes nothing.
-- These statements hold passwords: they are neither logged, whether they fail or are slow, nor kept as statistics.
SET log_min_error_statement = panic;
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET pg_stat_statements.track_utility = off;
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
