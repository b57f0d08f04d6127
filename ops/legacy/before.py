"""The service before: Flask behind a threaded server, with requests and psycopg."""

import os

import requests
from flask import Flask, abort, request
from psycopg_pool import ConnectionPool

RATES = os.environ["RATES"]
INSERT = "insert into orders select %s, %s from pg_sleep(0.02)"

app = Flask(__name__)
pool = ConnectionPool(
    os.environ["DATABASE"], min_size=50, max_size=50, kwargs={"autocommit": True}, open=True
)


@app.post("/orders")
def order():  # type: ignore[no-untyped-def]
    data = request.get_json()
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        abort(422)
    rate = requests.get(RATES, timeout=10).json()["rate"]
    with pool.connection() as connection:
        connection.execute(INSERT, (data["id"], rate))
    return "", 202
