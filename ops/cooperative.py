"""Tries which packages wait cooperatively under gevent: the table of docs/legacy.md.

    python -m ops.cooperative

Each package talks to a server that takes connections and never answers (for SQLite: to a file
that another connection has locked), in a process of its own, while a greenlet counts how often
it gets to run. A package that is not installed is said to be so.
"""

from __future__ import annotations

import subprocess
import sys

#: name → how it is made to wait for about a second; `port` is the silent server's.
TRIES = {
    "psycopg 3": "import psycopg; psycopg.connect(host='127.0.0.1', port=port, connect_timeout=2)",
    "psycopg2": "import psycopg2; psycopg2.connect(host='127.0.0.1', port=port, connect_timeout=2)",
    "psycopg2 + psycogreen": "import psycogreen.gevent; psycogreen.gevent.patch_psycopg(); "
    "import psycopg2; gevent.Timeout(1).start(); psycopg2.connect(host='127.0.0.1', port=port)",
    "PyMySQL": "import pymysql; "
    "pymysql.connect(host='127.0.0.1', port=port, read_timeout=1, connect_timeout=1)",
    "mysqlclient": "import MySQLdb; "
    "MySQLdb.connect(host='127.0.0.1', port=port, connect_timeout=1, read_timeout=1)",
    "redis-py": "import redis; redis.Redis(port=port, socket_timeout=1).get('x')",
    "requests": "import requests; requests.get(f'http://127.0.0.1:{port}', timeout=1)",
    "urllib3": "import urllib3; "
    "urllib3.request('GET', f'http://127.0.0.1:{port}', timeout=1, retries=False)",
    "boto3": "import boto3, botocore.config; boto3.client('s3', region_name='x', "
    "endpoint_url=f'http://127.0.0.1:{port}', aws_access_key_id='x', aws_secret_access_key='x', "
    "config=botocore.config.Config(read_timeout=1, retries={'max_attempts': 0})).list_buckets()",
    "sqlite3": "import sqlite3, tempfile; path = tempfile.mktemp(); "
    "keep = sqlite3.connect(path, isolation_level=None); keep.execute('begin exclusive'); "
    "sqlite3.connect(path, timeout=1).execute('create table t (n)')",
    "grpc": "import grpc; grpc.insecure_channel(f'127.0.0.1:{port}')"
    ".unary_unary('/x/y')(b'', timeout=1)",
    "grpc + init_gevent()": "import grpc.experimental.gevent as g; g.init_gevent(); import grpc; "
    "grpc.insecure_channel(f'127.0.0.1:{port}').unary_unary('/x/y')(b'', timeout=1)",
    "confluent-kafka": "import confluent_kafka; confluent_kafka.Consumer({'group.id': 'x', "
    "'bootstrap.servers': f'127.0.0.1:{port}', 'log_level': 0}).poll(1.0)",
}

SILENT = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0), backlog=64)
print(server.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(server.accept())
"""
TRY = """
from gevent import monkey
monkey.patch_all()
import gevent, importlib, sys, time
port = int(sys.argv[1])
turns = 0
def count():
    global turns
    while True:
        gevent.sleep(0.01)
        turns += 1
gevent.spawn(count)
gevent.sleep(0)
try:
    compile(sys.argv[2], "try", "exec")
    for package in sys.argv[3].split():
        importlib.import_module(package)
except ImportError as missing:
    print("not installed", missing)
    sys.exit()
started, turns = time.monotonic(), 0
try:
    exec(sys.argv[2])
    ended = "returned"
except BaseException as error:
    ended = type(error).__name__
seconds = time.monotonic() - started
share = turns * 0.01 / seconds
verdict = "cooperative" if share > 0.3 else "BLOCKS" if seconds > 0.3 else "did not wait"
print(f"{verdict:<12} waited {seconds:.2f} s, others ran {turns} times ({ended})")
"""
IMPORTS = {
    "psycopg 3": "psycopg",
    "psycopg2": "psycopg2",
    "psycopg2 + psycogreen": "psycopg2 psycogreen",
    "PyMySQL": "pymysql",
    "mysqlclient": "MySQLdb",
    "redis-py": "redis",
    "grpc + init_gevent()": "grpc",
    "confluent-kafka": "confluent_kafka",
}


def main() -> None:
    """Print one line for each package."""
    silent = subprocess.Popen([sys.executable, "-c", SILENT], stdout=subprocess.PIPE, text=True)
    assert silent.stdout is not None
    port = silent.stdout.readline().strip()
    try:
        for name, source in TRIES.items():
            command = [sys.executable, "-c", TRY, port, source, IMPORTS.get(name, name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            said = (done.stdout.strip() or done.stderr.strip()[-200:]).splitlines()
            print(f"{name:<24}{said[-1] if said else 'nothing'}", flush=True)
    finally:
        silent.kill()


if __name__ == "__main__":
    main()
