import java.io.StringReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;

/** PostgreSQL's JDBC driver with its defaults through the pooler in transaction mode. Usage: WithJdbc.java PORT */
public class WithJdbc {
    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/postgres?user=postgres";
        try (Connection connection = DriverManager.getConnection(url)) {
            prepared(connection);
            batched(connection);
            copied(connection);
            failing(connection);
            noticed(connection);
            cancelled(connection);
            fetchedInPieces(connection);
            System.out.println("JDBC " + connection.getMetaData().getDriverVersion() + " is served");
        }
    }

    /** Given a name of its own after five uses. */
    static void prepared(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT ? + 1")) {
            for (int n = 0; n < 20; n++) {
                statement.setInt(1, n);
                check(one(statement.executeQuery()) == n + 1);
            }
            connection.setAutoCommit(false);
            for (int n = 0; n < 20; n++) {
                statement.setInt(1, n);
                check(one(statement.executeQuery()) == n + 1);
                connection.commit();
            }
            connection.setAutoCommit(true);
        }
    }

    static void batched(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement make = connection.createStatement()) {
            make.execute("CREATE TEMP TABLE batched (n int) ON COMMIT DROP");
        }
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO batched VALUES (?)")) {
            for (int n = 0; n < 1000; n++) {
                insert.setInt(1, n);
                insert.addBatch();
            }
            check(insert.executeBatch().length == 1000);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void copied(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (Statement make = connection.createStatement()) {
            make.execute("CREATE TEMP TABLE copied_by_jdbc (n int) ON COMMIT DROP");
        }
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        check(copy.copyIn("COPY copied_by_jdbc FROM STDIN", new StringReader("1\n2\n3\n")) == 3);
        connection.commit();
        connection.setAutoCommit(true);
        try {
            copy.copyIn("COPY copied FROM STDIN", new StringReader("not a number\n"));
            throw new AssertionError("the copy went well");
        } catch (SQLException expected) {
            check(expected.getSQLState().startsWith("22"));
        }
    }

    static void failing(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT 1 / 0");
            throw new AssertionError("the division went well");
        } catch (SQLException expected) {
            check(expected.getSQLState().equals("22012"));
        }
        connection.rollback();
        connection.setAutoCommit(true);
    }

    static void noticed(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'from JDBC'; END $$");
            check(statement.getWarnings().getMessage().equals("from JDBC"));
        }
    }

    /** The driver sends a cancel request on a connection of its own. */
    static void cancelled(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT pg_sleep(60)");
            throw new AssertionError("the query went to its end");
        } catch (SQLException expected) {
            check(expected.getSQLState().equals("57014"));
        }
        try (Statement statement = connection.createStatement()) {
            check(one(statement.executeQuery("SELECT 7")) == 7);
        }
    }

    static void fetchedInPieces(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(10);
            ResultSet rows = statement.executeQuery("SELECT n FROM numbers ORDER BY n");
            int count = 0;
            while (rows.next()) {
                check(rows.getInt(1) == ++count);
            }
            check(count == 1000);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static int one(ResultSet rows) throws SQLException {
        check(rows.next());
        return rows.getInt(1);
    }

    static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError();
        }
    }
}
