"""What answers do to their connection, seen on the socket."""

import asyncio
import contextlib
import json
import socket
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send

from simulator.live import LiveSimulator
from simulator.server import listen

QUESTION = {"messages": [{"role": "user", "content": "count to 20"}]}


def ask(live: LiveSimulator) -> socket.socket:
    """A connection on which a question has been sent to the OpenAI API; close it."""
    address = urlsplit(live.base_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    body = json.dumps(QUESTION).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: site\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_a_reset_is_no_orderly_end(live: LiveSimulator) -> None:
    """The client's socket is told of a reset, as when a server dies."""
    live.site.update(api_failure="reset")
    with ask(live) as connection, pytest.raises(ConnectionResetError):
        read_to_the_end(connection)


def test_hanging_up_delivers_what_was_written_and_no_more(live: LiveSimulator) -> None:
    """Half of the answer arrives, and then an orderly end of the connection, but not HTTP's end of the body."""
    live.site.update(api_failure="reset_mid_answer")
    with ask(live) as connection:
        received = read_to_the_end(connection)
    assert b'"chat.completion"' in received
    assert b"finish_reason" not in received
    assert not received.endswith(b"0\r\n\r\n")
    assert live.site.api.counters.answered == 1


def test_a_connection_is_kept_after_a_whole_answer(live: LiveSimulator) -> None:
    """A second request is answered on the same connection, even if it was sent before the first answer came."""
    with ask(live) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")
        assert read_to_the_end(connection).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_while_it_stops_is_cut_as_well(turns: int) -> None:
    """However far its acceptance has come, no connection stays open when the server has been closed."""
    listener = await listen(_nothing, "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.close()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is never asked."""
