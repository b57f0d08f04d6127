"""Packages that are known to block the event loop, and what to do instead.

C code that waits on a socket or a lock of its own does not know of gevent: while it waits,
nobody is served. Those in docs/legacy.md were tried; the others are here for how they are built.
This module must not know how handlers are run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ingest.handlers.loader import HandlerProblem


def _never() -> bool:
    return False


def _psycogreen_in_force() -> bool:
    extensions = sys.modules.get("psycopg2.extensions")
    return extensions is not None and extensions.get_wait_callback() is not None


def _grpc_for_gevent() -> bool:
    return "grpc.experimental.gevent" in sys.modules


class Package(NamedTuple):
    """A package that blocks.

    Attributes:
        module: what is imported.
        why: what blocks.
        instead: what to do.
        in_order: whether that was done in this process.
    """

    module: str
    why: str
    instead: str
    in_order: Callable[[], bool] = _never


_OFFLOAD = "call it in functions marked with ingest.offload"

#: All that is warned of.
PACKAGES: tuple[Package, ...] = (
    Package(
        "psycopg2",
        "libpq waits for the server in C",
        "use psycopg 3, or call psycogreen.gevent.patch_psycopg() in the handler's file",
        _psycogreen_in_force,
    ),
    Package("MySQLdb", "mysqlclient waits for the server in C", f"use PyMySQL, or {_OFFLOAD}"),
    Package(
        "mysql.connector",
        "its C extension waits for the server in C",
        f"connect with use_pure=True, use PyMySQL, or {_OFFLOAD}",
        lambda: "_mysql_connector" not in sys.modules,
    ),
    Package("sqlite3", "SQLite waits for the disk and for its file's lock in C", _OFFLOAD),
    Package("duckdb", "DuckDB computes and waits for the disk in C", _OFFLOAD),
    Package(
        "confluent_kafka",
        "librdkafka waits in poll(), flush() and consume() in C",
        f"call these with a timeout of 0, or {_OFFLOAD}",
    ),
    Package(
        "grpc",
        "its C core waits in C",
        "call grpc.experimental.gevent.init_gevent() in the handler's file",
        _grpc_for_gevent,
    ),
    Package(
        "oracledb", "in thick mode its client library waits in C", f"use thin mode, or {_OFFLOAD}"
    ),
    Package("cx_Oracle", "its client library waits in C", f"use oracledb, or {_OFFLOAD}"),
    Package("pyodbc", "ODBC drivers wait for the server in C", _OFFLOAD),
    Package("pymssql", "FreeTDS waits for the server in C", _OFFLOAD),
    Package("ibm_db", "its client library waits in C", _OFFLOAD),
    Package("ldap", "python-ldap waits for the server in C", f"use ldap3, or {_OFFLOAD}"),
    Package("pycurl", "libcurl waits for the server in C", f"use requests, or {_OFFLOAD}"),
    Package("zmq", "libzmq waits in C", "import zmq.green instead"),
    Package("asyncio", "its event loop is another one", f"{_OFFLOAD}, with asyncio.run() in them"),
)


def warnings(directory: Path, before: Collection[str]) -> list[HandlerProblem]:
    """What the handlers import that blocks; after they were loaded.

    Args:
        directory: of the handlers.
        before: names of the modules that were there before.

    Returns:
        one for each import in a file of the directory, with its line, and one for each
        package that only something else imports.
    """
    found: list[HandlerProblem] = []
    direct: set[str] = set()
    for path in sorted(directory.glob("**/*.py")):
        for name, line in _imports(path):
            package = _package_of(name)
            if package is not None:
                direct.add(package.module)
                if not package.in_order():
                    found.append(HandlerProblem(str(path), line, _told(package)))
    for package in PACKAGES:
        indirect = package.module in sys.modules and package.module not in before
        if indirect and package.module not in direct | _COMMON and not package.in_order():
            message = f"{_told(package)} (imported by what the handlers import)"
            found.append(HandlerProblem(str(directory), 0, message))
    return found


#: Much imports these without using them in a way that blocks.
_COMMON = frozenset({"asyncio", "sqlite3"})


def _told(package: Package) -> str:
    return f"{package.module} blocks the event loop: {package.why}; {package.instead}"


def _package_of(name: str) -> Package | None:
    for package in PACKAGES:
        if name == package.module or name.startswith(f"{package.module}."):
            return None if name == "zmq.green" else package
    return None


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports, with their lines; none of a file that is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # the loader has said so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from mysql import connector` names the module in two parts.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
