"""psycopg 3 with its defaults through the pooler in transaction mode. Usage: with_psycopg.py PORT"""

import sys
import threading

import psycopg
from psycopg import errors

url = f"host=127.0.0.1 port={sys.argv[1]} user=postgres dbname=postgres"

with psycopg.connect(url) as connection:
    # Prepared by itself after five uses: the statement must follow over servers and transactions.
    for n in range(20):
        assert connection.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
        connection.commit()

    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int * 2", (n,)) for n in range(30)]
    assert [cursor.fetchone()[0] for cursor in cursors] == [n * 2 for n in range(30)]
    connection.commit()

    # An error within a pipeline: what stands behind it is skipped, and the connection goes on.
    try:
        with connection.pipeline():
            connection.execute("SELECT 1 / %s", (0,))
            connection.execute("SELECT 2")
        raise AssertionError("the division went well")
    except errors.DivisionByZero:
        connection.rollback()
    assert connection.execute("SELECT 3").fetchone() == (3,)
    connection.commit()

    with connection.transaction():
        connection.execute("CREATE TEMP TABLE copied_by_psycopg (n int, t text) ON COMMIT DROP")
        with connection.cursor().copy("COPY copied_by_psycopg FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((n, "text"))
        with connection.cursor().copy("COPY (SELECT n FROM copied_by_psycopg) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 5000
    try:
        with connection.transaction(), connection.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write(b"not a number\n" * 50000)
        raise AssertionError("the copy went well")
    except errors.DataError:
        pass

    try:
        with connection.transaction():
            connection.execute("SELECT * FROM no_such_table")
        raise AssertionError("the table is there")
    except errors.UndefinedTable:
        pass

    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'from psycopg'; END $$")
    connection.commit()
    assert notices == ["from psycopg"], notices

    started = threading.Event()

    def cancel():
        started.wait()
        with psycopg.connect(url, autocommit=True) as other:
            while not other.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60), 1' AND state = 'active'"
            ).fetchone():
                pass
        connection.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        started.set()
        connection.execute("SELECT pg_sleep(60), 1")
        raise AssertionError("the query went to its end")
    except errors.QueryCanceled:
        connection.rollback()
    canceller.join()
    assert connection.execute("SELECT 'after'").fetchone() == ("after",)

with psycopg.connect(url) as connection, connection.cursor(name="server_side") as cursor:
    cursor.execute("SELECT n FROM numbers ORDER BY n")
    assert [row[0] for row in cursor] == list(range(1, 1001))

print("psycopg", psycopg.__version__, "is served")
