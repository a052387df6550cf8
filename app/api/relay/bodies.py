"""What clients send to be passed on: JSON as a whole, forms with files part by part."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.api.relay.multipart import FormScanner, Span
from app.api.wire.body import check_model
from app.api.wire.other_models import refuse_other_models
from app.domain.errors import ClientClosedRequest, GatewayOverloaded, InvalidRequest, RequestTimeout
from app.domain.json import read_json_object, strict_json_bytes
from app.domain.relay import Payload
from app.domain.tokens import estimate

# A form up to this size is held in memory, and can be sent as often as need be.
_HELD = 128 * 1024
# What has been read of a larger one by the time when that is known: one piece more, whose size is the server's.
_MOST_HELD = 512 * 1024
_PIECE = 64 * 1024
# A client that seems to need longer for all of its upload isn't waited for with a slot at the upstream taken.
_QUICK_SECONDS = 15.0


class JsonBody:
    """A JSON document.

    Args:
        document: What the client has sent.
    """

    is_whole = can_be_sent = True

    def __init__(self, document: dict[str, object]) -> None:
        self.document = document

    @classmethod
    def read(cls, body: bytes) -> "JsonBody":
        """Read a request's body.

        Raises:
            InvalidRequest: It is no JSON object, or not one that can be passed on.
        """
        document = read_json_object(body, bad_utf8="strict")
        if document is None:
            raise InvalidRequest("The request body must be a JSON object.")
        check_model(document)
        refuse_other_models(document)
        try:
            strict_json_bytes(document)
        except ValueError:
            raise InvalidRequest("The request body could not be parsed as JSON.") from None
        return cls(document)

    @property
    def model(self) -> str | None:
        """The model that it names; None if it names none."""
        model = self.document.get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidRequest("model must be text.", param="model")
        return model or None

    @property
    def wants_stream(self) -> bool:
        """Whether it asks for a stream, as far as that is told by `stream`."""
        return self.document.get("stream") is True

    @property
    def end_user(self) -> str | None:
        """Whom the client says the request is for."""
        user = self.document.get("user")
        return user if isinstance(user, str) else None

    def tokens(self, *fields: str) -> int:
        """The tokens in some fields, estimated."""
        return sum([_tokens(self.document.get(field)) for field in fields])

    def characters(self, field: str) -> int:
        """The characters of a field that is a text."""
        value = self.document.get(field)
        return len(value) if isinstance(value, str) else 0

    def payload(self, model: str, seconds: float) -> Payload:  # noqa: ARG002 - all of it is here
        """See `RelayBody`."""
        return Payload(strict_json_bytes({**self.document, "model": model}))


class FormBody:
    """A form that is read until its model is known, within a `with` block.

    A small one is held in memory. Of a large one the rest follows while it is sent on, if its model comes before its
    files and the client is quick; it can be sent only once. Any other is kept in a file without a name until it has
    come as a whole. Nothing but the model is changed in it.

    Args:
        receive: ASGI's.
        content_type: Of the form.
        boundary: That its type names.
        length: Its bytes, if the client has told.
    """

    def __init__(self, receive: Receive, content_type: str, boundary: str, length: int | None) -> None:
        self._receive = receive
        self._content_type = content_type
        self._boundary = boundary
        self._length = length
        self._scanner = FormScanner(boundary)
        self._file = SpooledTemporaryFile[bytes](max_size=_MOST_HELD)
        self._size = 0
        self._was_sent = False
        # All of it has come, or no more of it is wanted.
        self._over = asyncio.Event()
        self.is_whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    async def read(self) -> None:
        """Read so much of it as has to be known before it can be sent on.

        Raises:
            InvalidRequest: It is no form, or names two models.
            ClientDisconnect: The client left before that.
        """
        now = asyncio.get_running_loop().time
        began = now()
        has_decided = False
        while not self.is_whole:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._take(message)
            if self._size >= _HELD and not has_decided:
                has_decided = True
                if self._comes_soon(now() - began):
                    return

    @property
    def model(self) -> str | None:
        """The model that it names; None if it names none."""
        return self._scanner.values.get("model", "").strip() or None

    @property
    def wants_stream(self) -> bool:
        """Whether it asks for a stream, as far as it has come."""
        return self._scanner.values.get("stream", "").strip().lower() in ("true", "1")

    @property
    def end_user(self) -> None:
        """Nobody: forms don't say."""

    def tokens(self, *_: str) -> int:
        """None are counted in files."""
        return 0

    def characters(self, _: str) -> int:
        """Likewise."""
        return 0

    @property
    def can_be_sent(self) -> bool:
        """See `RelayBody`."""
        return self.is_whole or not self._was_sent

    def payload(self, model: str, seconds: float) -> Payload:
        """See `RelayBody`."""
        name = model.encode()
        span = self._scanner.model
        if span is None:
            # Where there is none, it comes first.
            head = f'--{self._boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            name, span = b"%b%b\r\n" % (head.encode(), name), Span(0, 0)
        size = self._size if self.is_whole or self._length is None else self._length
        return Payload(
            pieces=lambda: self._pieces(name, span, seconds),
            length=size + len(name) - (span.end - span.begin),
            content_type=self._content_type,
        )

    async def receive_after(self) -> Message:
        """ASGI's `receive` for whoever waits for the client to leave: it comes after the form."""
        await self._over.wait()
        return await self._receive()

    async def _pieces(self, name: bytes, span: Span, seconds: float) -> AsyncGenerator[bytes, None]:
        self._was_sent = True
        try:
            for piece in self._stored(0, span.begin):
                yield piece
            yield name
            for piece in self._stored(span.end, self._size):
                yield piece
            if not self.is_whole:
                async for piece in self._coming(seconds):
                    yield piece
        finally:
            self._over.set()

    def _stored(self, begin: int, end: int) -> Iterator[bytes]:
        # Not on a thread: these are copies out of memory, or of the disk's cache.
        for place in range(begin, end, _PIECE):
            self._file.seek(place)
            yield self._file.read(min(_PIECE, end - place))

    async def _coming(self, seconds: float) -> AsyncGenerator[bytes, None]:
        """What is still to come from the client.

        Raises:
            RequestTimeout: It takes too long. That is not the upstream's fault.
            ClientClosedRequest: The client has left.
        """
        loop = asyncio.get_running_loop()
        more = True
        while more:
            began = loop.time()
            try:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeout("The upload took too long.") from None
            seconds -= loop.time() - began
            if message["type"] == "http.disconnect":
                raise ClientClosedRequest("The client closed the connection.")
            more = message.get("more_body", False)
            for piece in _slices(message):
                self._scanner.feed(piece)
                yield piece
            if not more:
                self._scanner.finish()

    def _take(self, message: Message) -> None:
        for piece in _slices(message):
            self._scanner.feed(piece)
            try:
                self._file.write(piece)
            except OSError:
                raise GatewayOverloaded("The gateway's disk has no room for this upload.") from None
            self._size += len(piece)
        if not message.get("more_body", False):
            self._scanner.finish()
            self.is_whole = True
            self._over.set()

    def _comes_soon(self, seconds: float) -> bool:
        """Whether the rest can follow while it is sent on.

        Args:
            seconds: How long the beginning took.
        """
        if self._length is None or self._scanner.model is None or not self._scanner.in_file:
            return False
        return seconds * self._length / self._size <= _QUICK_SECONDS


def _slices(message: Message) -> Iterator[bytes]:
    """What has come, in pieces of which it doesn't matter how often they are copied."""
    body: bytes = message.get("body", b"")
    for place in range(0, len(body), _PIECE):
        yield body[place : place + _PIECE]


def _tokens(value: object) -> int:
    # Not by calls within calls: lists may be nested as deep as they like.
    tokens, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            tokens += estimate(one)
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, int) and one is not value:
            tokens += 1
        elif isinstance(one, dict) and isinstance(text := one.get("text"), str):
            tokens += estimate(text)
    return tokens
