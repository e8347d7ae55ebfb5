"""The listening sockets of every process that answers over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pins.errors import Unavailable


@contextmanager
def bound(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """A TCP socket bound to this address for the time of the block; port 0 is any free one. Raises Unavailable, which names the setting to change.

    The protocol is named because asyncio turns Nagle's algorithm off only where it is: an answer of two writes would else wait 40 ms
    for the acknowledgement of its first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            raise Unavailable(f"port {port} on {host} cannot be used ({error}); choose another {setting}, or 0 for any free one") from error
        yield sock
