"""What a worker and its processes for offloaded calls say to each other.

A message is its length in 8 bytes and a pickle. A call names its function, which is found
again on the other side: functions themselves are not pickled. Used on both sides, one of
which is not patched, so this module must not know gevent.
"""

from __future__ import annotations

import pickle
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_LENGTH_BYTES = 8


class Call(NamedTuple):
    """A function to call.

    Attributes:
        module: its module's name.
        file: its module's file.
        name: its qualified name in there.
        arguments: a pickle of its positional and its keyword arguments. It is opened after
            the module was imported, for they may be of classes of that module.
    """

    module: str
    file: str
    name: str
    arguments: bytes


class Remote(Exception):
    """Stands for the traceback in the other process, as the cause of what was raised there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def encoded_call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bytes:
    """A call as a message.

    Raises:
        Exception: an argument cannot be pickled.
    """
    file = getattr(sys.modules.get(function.__module__), "__file__", None) or ""
    arguments = pickle.dumps((args, kwargs))
    return pickle.dumps((function.__module__, file, function.__qualname__, arguments))


def decoded_call(message: bytes) -> Call:
    """A call from a message."""
    return Call(*pickle.loads(message))


def encoded_value(value: Any) -> bytes:
    """What a function returned, as a message."""
    return pickle.dumps((value, None, ""))


def encoded_error(error: BaseException) -> bytes:
    """What a function raised, as a message; in words where it cannot be pickled."""
    told = "".join(traceback.format_exception(error))
    try:
        message = pickle.dumps((None, error, told))
        pickle.loads(message)
    except Exception:  # noqa: BLE001 - whatever its own pickling does; it is told in words
        described = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((None, described, told))
    return message


def decoded_reply(message: bytes) -> Any:
    """What the function returned.

    Raises:
        BaseException: what it raised, with its traceback as the cause.
    """
    value, error, told = pickle.loads(message)
    if error is not None:
        raise error from Remote(told)
    return value


def send(sock: socket.socket, message: bytes) -> None:
    """Send one message."""
    sock.sendall(len(message).to_bytes(_LENGTH_BYTES, "big") + message)


def receive(sock: socket.socket) -> bytes:
    """Receive one message.

    Raises:
        EOFError: the other side is gone.
    """
    return _exactly(sock, int.from_bytes(_exactly(sock, _LENGTH_BYTES), "big"))


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other side of an offloaded call is gone")
        parts += part
    return bytes(parts)
