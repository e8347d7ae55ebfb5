from __future__ import annotations

import asyncio
import socket

import pytest

from everpin.sockets import bound
from pins.errors import Unavailable


def test_an_accepted_connection_sends_small_writes_at_once() -> None:
    async def no_delay(sock: socket.socket) -> int:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=sock)
        _, asking = await asyncio.open_connection(*sock.getsockname())
        answering = await accepted
        option: int = answering.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for writer in (asking, answering):
            writer.close()
            await writer.wait_closed()
        server.close()
        return option

    with bound("127.0.0.1", 0, "EVERPIN_PORT") as sock:
        assert asyncio.run(no_delay(sock))


def test_a_taken_port_names_the_setting_to_change() -> None:
    with bound("127.0.0.1", 0, "EVERPIN_PORT") as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} on 127.0.0.1 .* choose another EVERPIN_PORT"), bound("127.0.0.1", port, "EVERPIN_PORT"):
            pass
