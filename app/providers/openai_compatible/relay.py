"""What an upstream answers to a request that is passed on: is it an answer, and how many tokens does it tell of? Pure.

Nobody here reads the rest of such an answer. It goes to the client as it comes, whatever its size.
"""

import re

from msgspec.structs import replace

from app.domain.chat import Usage
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest, MessageRefused, SiteChanged
from app.domain.json import read_json_object
from app.domain.relay import RelayHead
from app.domain.units import Unit
from app.providers.api_upstream.failure import failure
from app.providers.api_upstream.reply import Json
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import RelayRequest
from app.providers.http import HttpReply, HttpStream
from app.providers.openai_compatible.relayed_units import ImageCounter, amount_in, captions_end

# The tokens are told at the end of an answer or at its beginning: in between there may be megabytes of an image.
_WINDOW = 4096
# A whole answer of this size is looked into for an error that comes with the status 200.
SHORT = 64 * 1024
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
# Of captions: WebVTT, SubRip, and what most vendors say of either.
_CAPTIONS = ("text/vtt", "text/srt", "application/x-subrip", "text/plain", "")
_PAGES = ("text/html", "application/xhtml+xml")
# More are a mistake, as with chats.
_MOST_TOKENS = 10**9
_READ = ("prompt_tokens", "input_tokens")
_WRITTEN = ("completion_tokens", "output_tokens")


def head_of(stream: HttpStream) -> RelayHead:
    """The beginning of an answer."""
    length = stream.headers.get("content-length", "")
    is_plain = length.isascii() and length.isdigit() and "content-encoding" not in stream.headers
    return RelayHead(stream.headers.get("content-type", "").strip(), int(length) if is_plain else None)


def is_page(head: RelayHead) -> bool:
    """Whether an answer is a page for people: no endpoint answers with one."""
    return _kind(head) in _PAGES


def is_json(head: RelayHead) -> bool:
    """Whether an answer may be an error for all its status of 200."""
    return _kind(head) == "application/json"


def has_error(body: bytes) -> bool:
    """Whether a whole JSON answer is an error, or none at all."""
    document = read_json_object(body)
    return document is None or bool(document.get("error"))


def relay_failure(reply: HttpReply, upstream: Upstream, request: RelayRequest) -> GatewayError:
    """The error for what is no answer, in the words of this endpoint."""
    error = failure(reply, upstream, wanted="an answer")
    if isinstance(error, SiteChanged) and not error.reason:
        return SiteChanged(f"{upstream.name} has no endpoint {request.path} (HTTP {reply.status}).")
    if isinstance(error, ContextTooLong):
        # Not to be tried elsewhere: what two models make of a text is not the same.
        message = error.message.replace("The conversation is", "The request is")
        return InvalidRequest(message, param=request.subject, code=error.code)
    if isinstance(error, MessageRefused):
        error.param = request.subject
    return error


class UsageFinder:
    """Finds the tokens that an answer tells of, and what else was used, in what passes by of it.

    Args:
        head: The answer's beginning.
        unit: Of what else there may be; None for nothing.
    """

    def __init__(self, head: RelayHead, unit: Unit | None = None) -> None:
        self._first = b""
        self._last = b""
        self._unit = unit
        self._is_text = _kind(head) in _CAPTIONS
        self._images = ImageCounter(is_events=_kind(head) == "text/event-stream") if unit == "images" else None

    def feed(self, part: bytes) -> None:
        """Take a part in."""
        if len(self._first) < _WINDOW:
            self._first += part[: _WINDOW - len(self._first)]
        self._last = part[-_WINDOW:] if len(part) >= _WINDOW else (self._last + part)[-_WINDOW:]
        if self._images is not None:
            self._images.feed(part)

    @property
    def usage(self) -> Usage | None:
        """What is told last; None if nothing is."""
        tokens, unit = self._tokens(), self._unit
        if unit is None:
            return tokens
        used, windows = tokens or Usage(0, 0), (self._first, self._last)
        amount = amount_in(unit, windows) if self._images is None else self._images.count
        if not amount and unit == "audio_seconds" and self._is_text:
            used, amount = replace(used, estimated=True), captions_end(windows)
        return replace(used, unit=unit, amount=amount) if amount else tokens

    def _tokens(self) -> Usage | None:
        for window in (self._last, self._first):
            for found in reversed([*_USAGE.finditer(window)]):
                usage = _usage(read_json_object(_object_at(window, found.end())))
                if usage is not None:
                    return usage
        return None


def _kind(head: RelayHead) -> str:
    return head.content_type.partition(";")[0].strip().lower()


def _object_at(text: bytes, begin: int) -> bytes:
    """The object that begins there, up to its closing brace. There are no texts in it that could have braces."""
    depth = 0
    for place in range(begin, len(text)):
        depth += {123: 1, 125: -1}.get(text[place], 0)
        if depth == 0:
            return text[begin : place + 1]
    return b""


def _usage(document: Json | None) -> Usage | None:
    """The tokens of a `usage`, under the names of any endpoint; None if it tells of none."""
    if document is None:
        return None
    read, written = _count(document, *_READ), _count(document, *_WRITTEN)
    total = _count(document, "total_tokens")
    if not (read or written or total):
        return None  # nobody believes in an answer of no tokens
    return Usage(read if read is not None else max((total or 0) - (written or 0), 0), written or 0)


def _count(document: Json, *names: str) -> int | None:
    found = (document.get(name) for name in names)
    return next(
        (one for one in found if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MOST_TOKENS), None
    )
