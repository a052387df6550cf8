"""What goes wrong in the HTTP client, as the callers of a provider see it."""

from collections.abc import Callable, Iterator

import pytest

from app.domain.errors import GatewayError, InternalError, UnexpectedReply, UpstreamUnavailable, UpstreamUnreachable
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import BaseProvider
from app.providers.http import HttpClient, HttpError, exceptions
from app.providers.http.pool import Pool
from app.providers.kimi.nonce import NoncePolicy
from app.providers.kimi.page import Clearance, PageReader
from app.providers.kimi.provider import KimiProvider
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from tests.providers.openai_compatible.upstream import (
    MODEL,
    chunked,
    delta,
    make_guard,
    provider_at,
    raw_upstream,
    wanted,
)

URL = "http://127.0.0.1:1/"

# The error of the HTTP client, and what the provider raises: its class and its words.
MEANINGS: dict[type[HttpError], tuple[HttpError, type[GatewayError], str]] = {
    type(error): (error, kind, words)
    for error, kind, words in (
        (exceptions.InvalidUrl(), UnexpectedReply, "The upstream's address is not a valid URL."),
        (
            exceptions.InvalidHeader("X Key"),
            InternalError,
            "The gateway is set to send a header that HTTP doesn't allow: 'X Key'.",
        ),
        (exceptions.ConnectError(), UpstreamUnreachable, "No connection to the upstream can be made."),
        (exceptions.NameNotResolved(), UpstreamUnreachable, "The upstream's host name can't be resolved."),
        (
            exceptions.ConnectTimeout(10.0),
            UpstreamUnreachable,
            "No connection to the upstream could be made within 10 seconds.",
        ),
        (exceptions.TlsError(), UpstreamUnreachable, "No secure connection to the upstream can be made."),
        (exceptions.InvalidCertificate(), UpstreamUnreachable, "The upstream's certificate is not valid."),
        (exceptions.ProxyError(), UpstreamUnreachable, "The proxy in front of the upstream made no connection."),
        (
            exceptions.InvalidProxyUrl(),
            UpstreamUnreachable,
            "The proxy that the environment names is not an HTTP proxy.",
        ),
        (
            exceptions.ProxyRefused(407),
            UpstreamUnreachable,
            "The proxy refused to connect to the upstream (HTTP 407).",
        ),
        (
            exceptions.ProxyProtocolError(),
            UpstreamUnreachable,
            "The proxy in front of the upstream doesn't speak HTTP.",
        ),
        (
            exceptions.ProxyConnectionLost(),
            UpstreamUnreachable,
            "The proxy in front of the upstream closed the connection.",
        ),
        (exceptions.ConnectionLost(), UpstreamUnavailable, "The connection to the upstream was lost."),
        (exceptions.ConnectionReset(), UpstreamUnavailable, "The upstream closed the connection without an answer."),
        (exceptions.NoReply(), UpstreamUnavailable, "The upstream closed the connection without an answer."),
        (exceptions.IncompleteReply(), UpstreamUnavailable, "The upstream broke off in the middle of its answer."),
        (exceptions.ProtocolError(), UnexpectedReply, "The upstream's answer is not valid HTTP."),
        (exceptions.DecodingError(), UnexpectedReply, "The upstream's answer can't be decompressed."),
        (exceptions.ReplyTooLong(100), UnexpectedReply, "The upstream's answer is longer than 100 bytes."),
        (HttpError(), UpstreamUnavailable, "The request to the upstream failed."),
    )
}


def test_every_error_of_the_client_has_a_meaning() -> None:
    """Whoever adds a class to the tree is reminded to say here what it means to the gateway."""
    assert set(_tree(HttpError)) == set(MEANINGS)


def _tree(kind: type[HttpError]) -> Iterator[type[HttpError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


class FailingClient(HttpClient):
    """Every request fails in the same way."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(max_reply_bytes=1)
        self._error = error

    @property
    def _opened(self) -> Pool:
        raise self._error


class KnownPage(PageReader):
    """A chat page that needs no fetching."""

    async def fetch(self, *, new_visitor: bool = False) -> Clearance:
        return Clearance(nonce="abcdef1234", ajax_url=URL, page_url=URL, new_visitor=new_visitor)


def _kimi(client: HttpClient) -> BaseProvider:
    page = KnownPage(page_url=URL, ajax_url=URL, timeout=1)
    return KimiProvider(models=[MODEL], page=page, nonce_policy=NoncePolicy(), client=client, guard=make_guard())


def _openai_compatible(client: HttpClient) -> BaseProvider:
    upstream = Upstream(name="acme", base_url="http://127.0.0.1:1/v1", models=(MODEL,), discover=True)
    return OpenAICompatibleProvider(upstream, client=client, guard=make_guard(), max_reply_bytes=1000)


async def _complete(provider: BaseProvider) -> None:
    await provider.create_completion(wanted())


async def _stream(provider: BaseProvider) -> None:
    await _hear(provider, [])


async def _hear(provider: BaseProvider, heard: list[str]) -> None:
    async for part in provider.stream_completion(wanted()):
        heard.append(part.text)  # noqa: PERF401 - what was heard before an error counts


async def _connect(provider: BaseProvider) -> None:
    await provider.connect()


WAYS = {
    "kimi, whole": (_kimi, _complete),
    "kimi, streamed": (_kimi, _stream),
    "openai_compatible, whole": (_openai_compatible, _complete),
    "openai_compatible, streamed": (_openai_compatible, _stream),
    "openai_compatible, connect": (_openai_compatible, _connect),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
async def test_a_provider_raises_the_gateway_s_errors(kind: type[HttpError], way: str) -> None:
    """Whatever fails in the HTTP client, a provider raises what it means to the gateway, and keeps the cause."""
    make: Callable[[HttpClient], BaseProvider]
    make, call = WAYS[way]
    error, meaning, words = MEANINGS[kind]
    with pytest.raises(GatewayError) as raised:
        await call(make(FailingClient(error)))
    assert (raised.type, raised.value.message) == (meaning, words)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (chunked(delta(content="Hel")), UpstreamUnavailable),
        ([*chunked(delta(content="Hel")), b"what?\r\n"], UnexpectedReply),
    ],
    ids=["cut off", "garbled"],
)
async def test_a_stream_that_fails_midway_raises_the_gateway_s_errors(
    said: list[bytes], meaning: type[GatewayError]
) -> None:
    """Reading is translated as well as asking, after everything that had arrived."""
    async with raw_upstream(said) as upstream, provider_at(upstream.base_url) as provider:
        heard: list[str] = []
        with pytest.raises(GatewayError) as raised:
            await _hear(provider, heard)
        assert (heard, raised.type) == (["Hel"], meaning)
