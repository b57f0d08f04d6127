"""A process for offloaded calls, from within: receive, call, reply.

It is a plain Python process without gevent's patching. Modules are imported when the first
call of one of their functions comes; `setup()` of handlers is not called here. It ends when
its worker is gone.
"""

from __future__ import annotations

import importlib
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from ingest.handlers.loader import PACKAGE, import_file
from ingest.handlers.offload_frames import (
    Call,
    decoded_call,
    encoded_error,
    encoded_value,
    receive,
    send,
)


def serve(fd: int) -> None:
    """Run calls until the worker is gone.

    Args:
        fd: this side of the socketpair.
    """
    # Ctrl-C goes to every process of a terminal; this one ends with its worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=fd) as sock:
        sock.setblocking(True)
        while True:
            try:
                message = receive(sock)
            except EOFError:
                return
            reply = _reply(message)
            try:
                send(sock, reply)
            except OSError:
                return  # the worker is gone


def _reply(message: bytes) -> bytes:
    try:
        call = decoded_call(message)
        function = _function(call)
        args, kwargs = pickle.loads(call.arguments)
        return encoded_value(function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - raised again where the caller waits
        return encoded_error(error)


def _function(call: Call) -> Callable[..., Any]:
    """The function itself, without what offloads its calls."""
    found: Any = _module(call.module, call.file)
    for name in call.name.split("."):
        found = getattr(found, name)
    return unwrap(found)


def _module(name: str, file: str) -> ModuleType:
    if name in sys.modules and name != "__main__":
        return sys.modules[name]
    if name.startswith(f"{PACKAGE}.") or name == "__main__":
        return import_file(name if name != "__main__" else "__ingest_main__", Path(file))
    return importlib.import_module(name)
