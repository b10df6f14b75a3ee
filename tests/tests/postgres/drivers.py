"""What Python's drivers do with an ordinary connection string: pools, cancelling, notifications, direct TLS.

Arguments: port, server name, CA file, certificate file, key file, password. Says "done" at the end.
"""

import asyncio
import socket
import sys
import threading

import asyncpg
import psycopg
import psycopg_pool

port, name, ca, certificate, key, password = sys.argv[1:7]
own = socket.getaddrinfo
# In place of a DNS record.
socket.getaddrinfo = lambda host, *more, **named: own("127.0.0.1" if host in (name, name.encode()) else host, *more, **named)
files = f"sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}"
url = f"postgresql://postgres:{password}@{name}:{port}/billing?{files}"
libpq = f"{url}&hostaddr=127.0.0.1"


def psycopg_pool_runs_clean():
    with psycopg_pool.ConnectionPool(libpq, min_size=4, max_size=16, timeout=60) as pool:
        failed = []

        def work():
            try:
                for number in range(25):
                    with pool.connection() as connection:
                        assert connection.execute("select %s::int", (number,)).fetchone() == (number,)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed


def psycopg_cancels():
    with psycopg.connect(libpq, autocommit=True) as connection:
        threading.Timer(1, connection.cancel_safe).start()
        try:
            connection.execute("select pg_sleep(60)")
            raise SystemExit("not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        assert connection.execute("select 1").fetchone() == (1,)


def psycopg_speaks_direct_tls():
    version = psycopg.pq.version()
    if version < 170000:
        print(f"SKIPPED: direct TLS, libpq {version}", file=sys.stderr)
        return
    with psycopg.connect(f"{libpq}&sslnegotiation=direct") as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def psycopg_hears():
    with psycopg.connect(libpq, autocommit=True) as hears, psycopg.connect(libpq, autocommit=True) as says:
        hears.execute("listen news")
        says.execute("notify news, 'read all about it'")
        heard = next(hears.notifies(timeout=30))
        assert heard.payload == "read all about it"


async def asyncpg_runs_clean():
    async with asyncpg.create_pool(url, min_size=4, max_size=16) as pool:
        numbers = await asyncio.gather(*(pool.fetchval("select $1::int", number) for number in range(200)))
        assert numbers == list(range(200))
        try:
            # asyncpg cancels what takes too long, on a connection of its own.
            await pool.execute("select pg_sleep(60)", timeout=1)
            raise SystemExit("not cancelled")
        except asyncio.TimeoutError:
            pass
        assert await pool.fetchval("select 1") == 1


psycopg_pool_runs_clean()
psycopg_cancels()
psycopg_speaks_direct_tls()
psycopg_hears()
asyncio.run(asyncpg_runs_clean())
print("done", psycopg.__version__, asyncpg.__version__, psycopg.pq.version())
