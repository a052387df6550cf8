"""What a client's connection does can't hurt a worker: all over real sockets, with the server that `serve` runs."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from app.api.ops import Drain
from app.assembly.app import create_app
from app.cli.connections import ConnectionLimits, HttpProtocol
from app.cli.server import GracefulServer, most_connections
from app.settings import load_settings
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, WAIT_SECONDS, until

_HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE_KEY}\r\n".encode()
_BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
_REQUEST = _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Server:
    """A server as `serve` runs it, in a thread."""

    def __init__(self, server: GracefulServer) -> None:
        self._server = server

    @property
    def port(self) -> int:
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._server.server_state.connections)

    def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(WAIT_SECONDS)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def send(self, data: bytes) -> bytes:
        """Everything that comes back until the server hangs up."""
        with self.connect() as connection:
            connection.sendall(data)
            return _rest(connection)


@pytest.fixture
def serve(site: LiveSimulator) -> Callable[..., Any]:
    """Starts a server with limits of the test's choice."""

    @contextmanager
    def running(
        client_timeout: float = 60,
        write_timeout: float = 60,
        most: int = 1000,
        keep_alive: int = 5,
        app: Any = None,
        **settings: object,
    ) -> Iterator[_Server]:
        limits = ConnectionLimits(client_timeout=client_timeout, write_timeout=write_timeout, most=most)
        values: dict[str, Any] = {"_env_file": None, "api_master_key": ALICE_KEY, "chat_page_url": site.page_url}
        app = app or create_app(load_settings(**{**values, "typing_delay_seconds": 0, **settings}))
        config = uvicorn.Config(
            app,
            port=0,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=keep_alive,
            http=cast("Any", partial(HttpProtocol, limits=limits)),
        )
        server = GracefulServer(config, Drain(), 0, most)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield _Server(server)
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)

    return running


def _rest(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def _error(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return json.loads(body)["error"]


@pytest.mark.parametrize("prefix", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", _REQUEST[:40]], ids=repr)
def test_a_head_that_never_ends_ends_the_connection(serve: Callable[..., Any], prefix: bytes) -> None:
    """A client that connects and says nothing, or not enough, is hung up on; one that began is told why."""
    with serve(client_timeout=0.2) as server:
        answer = server.send(prefix)
        if prefix:
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert _error(answer)["code"] == "request_timeout"
        else:
            assert answer == b""
        until(lambda: server.connections == 0)


def test_a_kept_connection_may_not_trickle_its_next_head(serve: Callable[..., Any]) -> None:
    """After an answer the same bounds count for what comes next."""
    with serve(client_timeout=0.2) as server, server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert b" 408 " in _rest(connection)


def test_a_body_that_never_comes_ends_the_connection(serve: Callable[..., Any]) -> None:
    """Its length was announced, and half of it sent."""
    with serve(client_timeout=0.2) as server:
        answer = server.send(_HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert _error(answer)["message"] == "The request's body did not arrive in time."
        until(lambda: server.connections == 0)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 200_000,
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"X-Many: a\r\n" * 20_000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
    ids=["endless line", "endless header", "endless headers", "long line", "long header"],
)
def test_a_head_has_a_size(serve: Callable[..., Any], head: bytes) -> None:
    """Whether it ends or not, and however it is cut into pieces."""
    with serve() as server:
        answer = server.send(head)
        assert answer == b"" or b" 431 " in answer.partition(b"\r\n")[0]
        until(lambda: server.connections == 0)


def test_a_refusal_of_the_server_is_in_the_caller_s_dialect(serve: Callable[..., Any]) -> None:
    """Anthropic's and Google's clients read their errors, others OpenAI's; each has an id and is stored nowhere."""
    with serve() as server:
        openai = server.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost : x\r\n\r\n")
        anthropic = server.send(b"POST /v1/messages HTTP/1.1\r\nHost : x\r\n\r\n")
        google = server.send(b"POST /v1beta/models/kimi:generateContent HTTP/1.1\r\nHost : x\r\n\r\n")
    assert openai.startswith(b"HTTP/1.1 400 ")
    assert _error(openai) == {
        "message": "This is not a valid HTTP request.",
        "type": "invalid_request_error",
        "param": None,
        "code": "bad_request",
    }
    assert json.loads(anthropic.partition(b"\r\n\r\n")[2])["type"] == "error"
    assert _error(google)["status"] == "INVALID_ARGUMENT"
    for answer in (openai, anthropic, google):
        assert b"\r\nx-request-id: req_" in answer
        assert b"\r\ncache-control: no-store" in answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_is_never_read_ends_the_connection(
    serve: Callable[..., Any], site: LiveSimulator, stream: bool
) -> None:
    """Whole answers as well as streams; the memory goes with the connection."""
    site.site.update(reply="x" * 4_000_000)
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": stream}).encode()
    with serve(write_timeout=0.3) as server, server.connect(receive_buffer=4096) as connection:
        connection.sendall(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.connections == 1)
        until(lambda: server.connections == 0)
        assert len(_rest(connection)) < 4_000_000


def test_a_slow_reader_gets_its_whole_answer(serve: Callable[..., Any], site: LiveSimulator) -> None:
    """As long as it reads at all, whatever its pace."""
    site.site.update(reply="x" * 2_000_000)
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
    with serve(write_timeout=3) as server, server.connect(receive_buffer=4096) as connection:
        connection.sendall(_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            time.sleep(0.001)
        assert answer.count(b"x") > 2_000_000 - 1


def test_requests_that_nobody_waits_for_are_bounded(serve: Callable[..., Any]) -> None:
    """A client that sends thousands of requests without reading an answer is hung up on."""
    with serve() as server:
        answer = server.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        assert answer.count(b"HTTP/1.1 ") < 500
        until(lambda: server.connections == 0)


def test_some_requests_in_a_row_are_answered_in_their_order(serve: Callable[..., Any]) -> None:
    """Pipelining as some clients do it works."""
    with serve() as server:
        paths = [b"/health", b"/ready", b"/nothing"] * 5
        requests = [b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths]
        requests.append(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = server.send(b"".join(requests))
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert len(statuses) == 16
    assert statuses[0::3] == [b"200"] * 6
    assert statuses[2::3][:5] == [b"401"] * 5


@pytest.mark.parametrize("at_once", [True, False], ids=["at_once", "body_apart"])
def test_a_request_that_would_rather_speak_http_2_is_answered(serve: Callable[..., Any], *, at_once: bool) -> None:
    """Java's HTTP client and `curl --http2` ask for h2c with their first request, whose body counts all the same."""
    asks = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    whole = _HEAD + asks + b"Content-Length: %d\r\n\r\n" % len(_BODY), _BODY
    chunked = _HEAD + asks + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY)
    last = _REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c")
    with serve() as server, server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The same connection serves further requests.
        parts = (*whole, *chunked, _REQUEST, last)
        for part in [b"".join(parts)] if at_once else parts:
            connection.sendall(part)
        answers = _rest(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == answers.count(b"You wrote: Hello") == 4
    assert b" 101 " not in answers


def test_more_connections_than_there_may_be_are_closed(serve: Callable[..., Any]) -> None:
    """Those that are there already go on."""
    with serve(most=3) as server:
        kept = [server.connect() for _ in range(3)]
        for connection in kept:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        with server.connect() as crowd:
            assert _rest(crowd) == b""
        kept[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept[0].recv(65536).startswith(b"HTTP/1.1 200 ")
        for connection in kept:
            connection.close()


def test_the_number_of_connections_follows_that_of_files() -> None:
    """Some are kept for upstreams, logs and stores."""
    assert most_connections(1024) == 576
    assert most_connections(100) == 64


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://example.org/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
    ids=repr,
)
def test_odd_requests_hang_nothing_and_break_nothing(serve: Callable[..., Any], request_bytes: bytes) -> None:
    """Whatever comes, there is an answer below 500 or an end, and the next client is served."""
    with serve(client_timeout=0.3) as server:
        with server.connect() as connection:
            connection.sendall(request_bytes)
            first = connection.recv(65536)
            assert not first.startswith(b"HTTP/1.1 5")
        assert server.send(_REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: close")).startswith(b"HTTP/1.1 200 ")


_PLAIN = [(b"content-length", b"5")]


class _Replies:
    """An app that sends what a test says, and nothing more once it is refused, unless the test says that it goes on."""

    def __init__(self, *messages: dict[str, Any], goes_on: bool = False) -> None:
        self._messages = messages
        self._goes_on = goes_on

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI's signature
        for message in self._messages:
            with suppress(*[RuntimeError] * self._goes_on):
                await send(message)


def _start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _body(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("app", "body"),
    [
        (_Replies(_start((b"transfer-encoding", b"chunked"), *_PLAIN), _body(b"hello")), b"5\r\nhello\r\n0\r\n\r\n"),
        (_Replies(_start(*_PLAIN, (b"transfer-encoding", b"chunked")), _body(b"hello")), b"5\r\nhello\r\n0\r\n\r\n"),
        (_Replies(_start((b"Transfer-Encoding", b"gzip")), _body(b"hello")), b"5\r\nhello\r\n0\r\n\r\n"),
        (_Replies(_start(*_PLAIN, (b"content-length", b"7")), _body(b"hello")), b"hello"),
        (_Replies(_start((b"content-length", b"7")), _body(b"he", more=True), _body(b"llo")), b"hello"),
        (_Replies(_start(*_PLAIN), _body(b"much too long", more=True), _body(b"hello"), goes_on=True), b"hello"),
        (_Replies(_start(*_PLAIN, (b"x", b"a\n")), _start(), _body(b"hi"), goes_on=True), b"2\r\nhi\r\n0\r\n\r\n"),
        (_Replies(_start(*_PLAIN, (b"x", b"a\r\nb: c"))), b"Internal Server Error"),
        (_Replies(_start(*_PLAIN)), b"Internal Server Error"),
        (_Replies(_start(*_PLAIN), {"type": "unheard of"}), b"Internal Server Error"),
        (_Replies(_start(*_PLAIN), _start(), _body(b"hi")), b"2\r\nhi\r\n0\r\n\r\n"),
        (_Replies(_start(*_PLAIN), _start((b"x", b"\n")), _body(b"hello"), goes_on=True), b"Internal Server Error"),
    ],
    ids=[
        "chunks and a length",
        "a length and chunks",
        "another coding",
        "two lengths",
        "too short",
        "too long, then right",
        "refused head",
        "line break",
        "no body",
        "a fault before the body",
        "two heads",
        "a head, then a refused one",
    ],
)
def test_an_app_s_answer_is_framed_as_its_head_says(serve: Callable[..., Any], app: _Replies, body: bytes) -> None:
    """Whatever an app says of its length; the pieces that it may send arrive, and a refused head leaves no trace."""
    with serve(app=app) as server:
        answer = server.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == body
    assert (b"\r\ntransfer-encoding: chunked" in head) == body.endswith(b"0\r\n\r\n")
    assert b"\r\nb: c" not in head


def test_an_answer_without_a_body_has_a_head(serve: Callable[..., Any]) -> None:
    """The head waits for the body, of which there may be nothing: on HEAD, with a 204, or with a length of 0."""
    head = b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    empty = {"type": "http.response.start", "status": 204, "headers": []}
    with serve(app=_Replies(_start(*_PLAIN), _body(b"hello"))) as server:
        assert server.send(head).lower().endswith(b"\r\ncontent-length: 5\r\nconnection: close\r\n\r\n")
    for start, status in ((empty, b" 204 "), (_start((b"content-length", b"0")), b" 200 ")):
        with serve(app=_Replies(start, _body(b""))) as server:
            answer = server.send(head.replace(b"HEAD", b"GET"))
        assert answer.startswith(b"HTTP/1.1" + status)
        assert answer.endswith(b"\r\n\r\n")


def test_a_head_goes_alone_if_the_app_says_so(serve: Callable[..., Any]) -> None:
    """An empty part of the body sends it: the first event of a stream may take long."""
    may_go_on = threading.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(_start())
        await send(_body(b"", more=True))
        await asyncio.to_thread(may_go_on.wait, WAIT_SECONDS)
        await send(_body(b"hi"))

    with serve(app=app) as server, server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).endswith(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        may_go_on.set()
        assert _rest(connection) == b"2\r\nhi\r\n0\r\n\r\n"


def test_an_idle_connection_is_hung_up_on(serve: Callable[..., Any]) -> None:
    """Some time after its last answer; not while an answer is still to come."""
    may_go_on = threading.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await asyncio.to_thread(may_go_on.wait, WAIT_SECONDS)
        await send(_start(*_PLAIN))
        await send(_body(b"hello"))

    with serve(app=app, keep_alive=0) as server, server.connect() as busy, server.connect() as idle:
        busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _rest(idle).endswith(b"\r\n\r\nhello")
        may_go_on.set()
        assert _rest(busy).endswith(b"\r\n\r\nhello")


def test_a_body_may_come_after_its_answer(serve: Callable[..., Any]) -> None:
    """Who is refused by the head alone may have the body under way: it isn't taken for the next request's head."""
    with serve() as server, server.connect() as connection:
        for _ in range(2):
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n{")
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
            connection.sendall(b"x" * 299_999)
        connection.sendall(_REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert _rest(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_is_idle_after_a_late_body_is_hung_up_on(serve: Callable[..., Any]) -> None:
    """Without a word, as nobody asks; and not before a request that follows at once is answered."""
    with serve(client_timeout=0.2) as server, server.connect() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"xxGET /health HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{")
        answers = connection.recv(65536)
        while answers.count(b"HTTP/1.1 ") < 2:
            answers += connection.recv(65536)
        connection.sendall(b"xx")
        assert _rest(connection) == b""


def test_a_body_that_never_comes_after_its_answer_ends_the_connection(serve: Callable[..., Any]) -> None:
    """Nothing is said behind the answer: the client would take it for the next one."""
    with serve(client_timeout=0.2) as server, server.connect() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"x")
        assert _rest(connection) == b""
        until(lambda: server.connections == 0)
