"""An upstream made of a bare socket: it says whatever bytes a test likes, valid HTTP or not, or nothing at all."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from simulator.wordpress import render_page, send_json_success, settings_script
from tests.live import WAIT_SECONDS

WELL = "All is well."


@dataclass(frozen=True, slots=True)
class Trouble:
    """What comes in place of an answer.

    Args:
        says: These bytes.
        repeats: And then these, again and again until the client leaves.
        every: With so many seconds between them.
        holds: Nothing more comes, but the connection stays open until the client leaves.
    """

    says: bytes = b""
    repeats: bytes = b""
    every: float = 0.0
    holds: bool = False


@dataclass(slots=True)
class Seen:
    """What the upstream has seen so far; `open` are its connections of this moment."""

    pages: int = 0
    messages: int = 0
    open: int = 0


class RawSite:
    """Answers GET with the chat page and POST with an answer, one a connection, unless trouble is set for them."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.page_trouble: Trouble | None = None
        self.message_trouble: Trouble | None = None
        # Nobody is answered, well or badly, while this is not set.
        self.answers = threading.Event()
        self.answers.set()
        self.seen = Seen()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def page_url(self) -> str:
        return f"{self.base_url}/chat/"

    @property
    def ajax_url(self) -> str:
        return f"{self.base_url}/wp-admin/admin-ajax.php"

    def recover(self) -> None:
        """From now on all is well."""
        self.page_trouble = self.message_trouble = None

    def wait_for(self, *, within: float = WAIT_SECONDS, **counts: int) -> bool:
        """Block until so many (of each kind, exactly) have been seen; False if they weren't in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(getattr(self.seen, name) == count for name, count in counts.items()), within
            )

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Hang up on everybody."""
        self._closing.set()
        self.answers.set()
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            self._count(connection, opened=1)
            # A client that leaves while it is spoken to is what most of these tests are about.
            with contextlib.suppress(OSError):
                self._speak(connection)
            self._count(connection, opened=-1)

    def _speak(self, connection: socket.socket) -> None:
        is_page = _read_request(connection)
        with self._changed:
            self.seen.pages += is_page
            self.seen.messages += not is_page
            self._changed.notify_all()
        self.answers.wait(WAIT_SECONDS)
        trouble = self.page_trouble if is_page else self.message_trouble
        if trouble is None:
            connection.sendall(self._page() if is_page else _whole(b"application/json", send_json_success(WELL)))
            return
        connection.sendall(trouble.says)
        while trouble.repeats and not self._closing.wait(trouble.every):
            connection.sendall(trouble.repeats)
        if trouble.holds:
            connection.recv(1)

    def _page(self) -> bytes:
        return _whole(b"text/html", render_page(settings_script(self.ajax_url, "0a1b2c3d4e", "plain")))

    def _count(self, connection: socket.socket, *, opened: int) -> None:
        with self._changed:
            self.seen.open += opened
            (self._connections.add if opened > 0 else self._connections.discard)(connection)
            self._changed.notify_all()


def _read_request(connection: socket.socket) -> bool:
    """Read one request whole, so that closing afterwards is no reset; was it a GET?"""
    with connection.makefile("rb") as lines:
        method = next(lines)[:4]
        head = [line.lower() for line in iter(lines.readline, b"\r\n") if line]
        length = next((int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:")), 0)
        lines.read(length)
    return method == b"GET "


def _whole(content_type: bytes, body: str) -> bytes:
    data = body.encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b; charset=UTF-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (content_type, len(data)) + data


@contextmanager
def raw_site(port: int = 0) -> Iterator[RawSite]:
    """Run one for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        site = RawSite(listener)
        accepting = threading.Thread(target=site.serve, daemon=True)
        accepting.start()
        try:
            yield site
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(WAIT_SECONDS)
            site.close()
