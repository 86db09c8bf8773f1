"""asyncpg with its defaults through the pooler in transaction mode. Usage: with_asyncpg.py PORT"""

import asyncio
import sys

import asyncpg

address = {"host": "127.0.0.1", "port": int(sys.argv[1]), "user": "postgres", "database": "postgres"}


async def prepared(connection):
    for n in range(20):
        assert await connection.fetchval("SELECT $1::int + 1", n) == n + 1
    statement = await connection.prepare("SELECT $1::text")
    for n in range(20):
        async with connection.transaction():
            assert await statement.fetchval(str(n)) == str(n)


async def pipelined(connection):
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE filled (n int) ON COMMIT DROP")
        await connection.executemany("INSERT INTO filled VALUES ($1)", [(n,) for n in range(1000)])
        assert await connection.fetchval("SELECT count(*) FROM filled") == 1000


async def copied(connection):
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE copied_by_asyncpg (n int, t text) ON COMMIT DROP")
        rows = [(n, "text") for n in range(5000)]
        await connection.copy_records_to_table("copied_by_asyncpg", records=rows)
        seen = []

        async def take(data):
            seen.append(data)

        await connection.copy_from_query("SELECT n FROM copied_by_asyncpg", output=take)
        assert b"".join(seen).count(b"\n") == 5000


async def failing(connection):
    for wrong, error in [
        ("SELECT 1 / 0", asyncpg.DivisionByZeroError),
        ("SELECT * FROM no_such_table", asyncpg.UndefinedTableError),
    ]:
        try:
            async with connection.transaction():
                await connection.fetch(wrong)
            raise AssertionError(f"{wrong} went well")
        except error:
            pass
    assert await connection.fetchval("SELECT 'after'") == "after"


async def noticed(connection):
    notices = []
    connection.add_log_listener(lambda _, notice: notices.append(notice.message))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'from asyncpg'; END $$")
    await asyncio.sleep(0)
    assert notices == ["from asyncpg"], notices


async def cancelled(connection):
    try:
        await connection.fetchval("SELECT pg_sleep(60)", timeout=0.2)
        raise AssertionError("the query went to its end")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 'after'") == "after"


async def cursors(connection):
    async with connection.transaction():
        rows = [row["n"] async for row in connection.cursor("SELECT n FROM numbers ORDER BY n")]
        assert rows == list(range(1, 1001))


async def main():
    connection = await asyncpg.connect(**address)
    for part in [prepared, pipelined, copied, failing, noticed, cancelled, cursors]:
        await part(connection)
    await connection.close()
    # A pool resets its connections, and drops their statements with it.
    async with asyncpg.create_pool(**address, min_size=2, max_size=8) as pool:
        values = await asyncio.gather(*(pool.fetchval("SELECT $1::int * 3", n) for n in range(200)))
        assert values == [n * 3 for n in range(200)]
    print("asyncpg", asyncpg.__version__, "is served")


asyncio.run(main())
