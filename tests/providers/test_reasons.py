"""Why a connection to an upstream failed: what the operator is told, and the client isn't."""

import asyncio
import errno
import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.domain.errors import GatewayError
from app.providers.http import failure_reason
from app.providers.kimi.page import PageReader
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from tests.conftest import RunLog, StartGateway
from tests.ports import free_port
from tests.providers.http.conftest import _no_proxy, certificate, tls  # noqa: F401 - fixtures
from tests.providers.http.server import Talk, hold, reply, server
from tests.providers.openai_compatible.upstream import make_guard, provider_at, wanted


def _certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_certificate_error(10), "certificate expired"),
        (_certificate_error(9), "certificate not valid yet"),
        (_certificate_error(20), "certificate not trusted"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "name lookup failed"),
        (OSError(errno.EHOSTUNREACH, "no route"), "host unreachable"),
        (OSError(errno.ENETUNREACH, "no network"), "network unreachable"),
        (OSError(errno.EMFILE, "too many"), "too many open files"),
        (TimeoutError(), "connection timed out"),
        (OSError("Multiple exceptions"), "connection failed"),
    ],
)
def test_what_the_system_says_has_a_few_words(error: OSError, reason: str) -> None:
    """What can hardly be brought about in a test, by what the system would say."""
    assert failure_reason(error) == reason


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a reset instead of a reply."""
    connected: socket.socket = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


@asynccontextmanager
async def _trouble(kind: str, secure: ssl.SSLContext) -> AsyncGenerator[str, None]:
    """An address with a trouble of its own."""
    talks: dict[str, Talk] = {
        "connection reset": _reset,
        "connection closed without a reply": _hang_up,
        "no answer in time": hold,
    }
    if kind == "connection refused":
        yield f"http://127.0.0.1:{free_port()}"
    elif kind == "name not found":
        yield "http://no-such-host.invalid"
    elif kind == "no TLS on this port":
        async with await asyncio.start_server(_greet, "127.0.0.1", 0) as listening:
            yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    elif kind.startswith("certificate"):
        async with server(reply(), tls=secure) as listening:
            yield f"https://{'localhost' if 'another' in kind else '127.0.0.1'}:{listening.port}"
    else:
        async with server(talks[kind]) as listening:
            yield f"http://127.0.0.1:{listening.port}"


REASONS = (
    "connection refused",
    "name not found",
    "no TLS on this port",
    "certificate self-signed",
    "certificate for another host",
    "connection reset",
    "connection closed without a reply",
    "no answer in time",
)


@pytest.mark.parametrize("reason", REASONS)
async def test_an_api_upstream_s_trouble_has_a_reason(
    reason: str,
    tls: ssl.SSLContext,  # noqa: F811
    certificate: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error, `/ready` and one line of the log have it; what the client is told names no server."""
    if "another" in reason:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    guard = make_guard(timeout=0.5 if "in time" in reason else 20.0)
    async with _trouble(reason, tls) as url, provider_at(f"{url}/v1", guard=guard) as provider:
        with capture_logs() as lines:
            error = await _failure(provider)
            await _failure(provider)
    place = url.split("//")[1] + (":80" if "invalid" in url else "")
    server_told = "" if "in time" in reason else place
    assert (error.reason, error.server) == (reason, server_told)
    assert place not in error.message
    assert place.split(":")[0] not in error.message
    assert provider.status().details["failure_reason"] == reason
    told = [line for line in lines if line["event"] == "upstream.failing"]
    assert [(line["reason"], line["server"], line["log_level"]) for line in told] == [
        (reason, server_told or None, "warning")
    ]


async def _failure(provider: OpenAICompatibleProvider) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await provider.create_completion(wanted())
    return raised.value


@pytest.mark.parametrize("reason", REASONS)
async def test_the_chat_page_s_trouble_has_a_reason(
    reason: str,
    tls: ssl.SSLContext,  # noqa: F811
    certificate: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same words for the page, which another client fetches."""
    if "another" in reason:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    async with _trouble(reason, tls) as url:
        reader = PageReader(page_url=f"{url}/chat/", ajax_url=None, timeout=0.5 if "in time" in reason else 20)
        with pytest.raises(GatewayError) as raised:
            await reader.fetch()
    place = url.split("//")[1] + (":80" if "invalid" in url else "")
    assert (raised.value.reason, raised.value.server) == (reason, place)
    assert place.split(":")[0] not in raised.value.message


def test_ready_and_the_log_of_requests_say_why_the_page_can_t_be_had(
    start_gateway: StartGateway, run_log: RunLog
) -> None:
    """In `/ready` without the address; with it in the request's line and in a warning."""
    port = free_port()
    begin = run_log.path.stat().st_size
    with (
        start_gateway(chat_page_url=f"http://127.0.0.1:{port}/chat/", max_retries=0) as gateway,
        gateway.client() as http,
    ):
        answer = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
        ready = http.get("/ready")
    assert answer.status_code == 503
    assert str(port) not in answer.text + ready.text
    assert ready.json()["providers"]["kimi-web"]["nonce_failure_reason"] == "connection refused"
    run_log.stream.flush()
    with run_log.path.open() as log:
        log.seek(begin)
        lines = [json.loads(line) for line in log]
    told = [line for line in lines if line.get("server") == f"127.0.0.1:{port}"]
    assert {(line["event"], line["reason"]) for line in told} == {
        ("request", "connection refused"),
        ("page.failing", "connection refused"),
        ("upstream.failing", "connection refused"),
    }
