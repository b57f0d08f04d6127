"""The service after: the same calls, a function instead of a view."""

import os

import requests
from psycopg_pool import ConnectionPool

RATES = os.environ["RATES"]
INSERT = "insert into orders select %s, %s from pg_sleep(0.02)"

pool = ConnectionPool(
    os.environ["DATABASE"], min_size=50, max_size=50, kwargs={"autocommit": True}, open=False
)


def setup():  # type: ignore[no-untyped-def]
    pool.open(wait=True)


def teardown():  # type: ignore[no-untyped-def]
    pool.close()


def handle(event):  # type: ignore[no-untyped-def]
    rate = requests.get(RATES, timeout=10).json()["rate"]
    with pool.connection() as connection:
        connection.execute(INSERT, (event.data["id"], rate))
