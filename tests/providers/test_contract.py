"""What every provider must do, the Kimi site's and those of each form of API, in front of the simulator."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.assembly.providers import build_registry
from app.domain.chat import Completion, Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
    EmptyReply,
    GatewayError,
    MessageRefused,
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamModelMissing,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.domain.prompt import compose, message_prompt
from app.providers.base import BaseProvider, CompletionRequest
from app.settings import load_settings
from simulator.live import LiveSimulator

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
Make = Callable[..., AbstractAsyncContextManager[BaseProvider]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of provider: its name, one of its models, and the simulator's knobs for it."""

    name: str
    model: str
    knob: str

    def fail(self, site: LiveSimulator, failure: str) -> None:
        site.site.update(**{self.knob: failure})

    def under_way(self, site: LiveSimulator) -> tuple[int, int]:
        """Requests at the upstream, and those that were left."""
        counters = site.site.counters if self.knob == "failure" else site.site.api.counters
        return counters.in_flight, counters.abandoned


KIMI = Kind("kimi-web", "kimi-k2-instruct", "failure")
API = Kind("moonshot", "kimi-k2-0905-preview", "api_failure")
CLAUDE = Kind("claude", "simulated-small", "api_failure")
GEMINI = Kind("google", "simulated-small", "api_failure")
APIS = [API, CLAUDE, GEMINI]
ALL = pytest.mark.parametrize("kind", [KIMI, *APIS], ids=lambda kind: kind.name)
# Upstreams of the other forms, at the simulator's address.
FILE = """
[[providers]]
name = "claude"
kind = "anthropic"
base_url = "{url}/v1"
headers = {{ "x-api-key" = "sk-simulated" }}
models = [{{ id = "simulated-small", abilities = ["tools", "images", "json_schema"] }}]

[[providers]]
name = "google"
kind = "gemini"
base_url = "{url}"
headers = {{ "x-goog-api-key" = "sk-simulated" }}
models = ["simulated-small"]
"""


@asynccontextmanager
async def started(
    site: LiveSimulator, directory: Path, kind: Kind, **settings: object
) -> AsyncGenerator[BaseProvider, None]:
    file = directory / "providers.toml"
    file.write_text(FILE.format(url=site.base_url))
    values: dict[str, object] = {
        "providers_file": file,
        "_env_file": None,
        "auth_disabled": True,
        "chat_page_url": site.page_url,
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": site.api_url,
        "max_retries": 0,
        **settings,
    }
    registry = build_registry(load_settings(**values))
    provider = next(each for each in registry.providers if each.name == kind.name)
    await provider.start()
    try:
        yield provider
    finally:
        await provider.aclose()


@pytest.fixture
def make(site: LiveSimulator, tmp_path: Path) -> Make:
    return partial(started, site, tmp_path)


def request(provider: BaseProvider, kind: Kind, text: str, **fields: object) -> CompletionRequest:
    spec = provider.find(kind.model)
    assert spec is not None
    messages = (Message("user", text),)
    limit = spec.prompt_limit
    prompt = message_prompt(messages, limit) if "messages" in spec.abilities else compose(messages, limit)
    values = {"prompt": prompt, "caller_id": "alice", **fields}
    return CompletionRequest(model=spec, **values)  # type: ignore[arg-type]


async def streamed(provider: BaseProvider, wanted: CompletionRequest) -> Completion:
    deltas = [delta async for delta in provider.stream_completion(wanted)]
    return Completion("".join(delta.text for delta in deltas), deltas[-1].finish_reason or "stop", deltas[-1].usage)


async def outcome(provider: BaseProvider, wanted: CompletionRequest, *, stream: bool) -> Completion:
    return await (streamed(provider, wanted) if stream else provider.create_completion(wanted))


@ALL
async def test_the_answer_is_the_same_whole_and_in_parts(make: Make, kind: Kind) -> None:
    """Text, reason and usage agree, however the answer is asked for."""
    async with make(kind) as provider:
        wanted = request(provider, kind, "emoji test")
        whole = await provider.create_completion(wanted)
        assert whole.text.startswith("Family: 👨‍👩‍👧‍👦")
        assert await streamed(provider, wanted) == whole
    assert (whole.usage is not None) == (kind is not KIMI)


@ALL
@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_frees_the_upstream(make: Make, site: LiveSimulator, kind: Kind, stream: bool) -> None:
    """A cancelled call ends the request at the upstream and frees the slot for the next."""
    kind.fail(site, "hang")
    async with make(kind, upstream_concurrency=1) as provider:
        call = asyncio.ensure_future(outcome(provider, request(provider, kind, "Hello"), stream=stream))
        await asyncio.to_thread(_wait_for, site, kind, (1, 0))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(_wait_for, site, kind, (0, 1))
        site.site.update(**{kind.knob: None})
        assert (await outcome(provider, request(provider, kind, "Hello"), stream=stream)).text


def _wait_for(site: LiveSimulator, kind: Kind, wanted: tuple[int, int]) -> bool:
    if kind.knob == "failure":
        return site.site.wait_for(lambda _: kind.under_way(site) == wanted)
    return site.site.api.wait_for(lambda _: kind.under_way(site) == wanted)


@pytest.mark.parametrize(
    ("kind", "failure", "error"),
    [
        (KIMI, "rate_limited", UpstreamRateLimited),
        (API, "openai_rate", UpstreamRateLimited),
        (CLAUDE, "anthropic_rate", UpstreamRateLimited),
        (GEMINI, "gemini_rate", UpstreamRateLimited),
        (KIMI, "maintenance", UpstreamUnavailable),
        (API, "deepseek_busy", UpstreamUnavailable),
        (CLAUDE, "anthropic_busy", UpstreamUnavailable),
        (GEMINI, "gemini_busy", UpstreamUnavailable),
        (KIMI, "too_large", ContextTooLong),
        (API, "moonshot_context", ContextTooLong),
        (CLAUDE, "anthropic_context", ContextTooLong),
        (GEMINI, "gemini_context", ContextTooLong),
        (KIMI, "moderated", MessageRefused),
        (API, "moonshot_risk", MessageRefused),
        (CLAUDE, "anthropic_policy", MessageRefused),
        (GEMINI, "gemini_blocked", MessageRefused),
        (API, "openai_key", UpstreamKeyRejected),
        (CLAUDE, "anthropic_key", UpstreamKeyRejected),
        (GEMINI, "gemini_key", UpstreamKeyRejected),
        (API, "openai_quota", UpstreamQuotaExhausted),
        (CLAUDE, "anthropic_credit", UpstreamQuotaExhausted),
        (API, "moonshot_model", UpstreamModelMissing),
        (CLAUDE, "anthropic_model", UpstreamModelMissing),
        (KIMI, "empty_message", EmptyReply),
        *[(api, "empty_answer", EmptyReply) for api in APIS],
        (KIMI, "challenge", CloudflareChallenge),
        *[(api, "cloudflare_challenge", CloudflareChallenge) for api in APIS],
        (KIMI, "reset_mid_body", UpstreamUnavailable),
        *[(api, "reset_mid_answer", UpstreamUnavailable) for api in APIS],
        (KIMI, "html", UpstreamError),
        *[(api, "html", UpstreamError) for api in APIS],
        (KIMI, "huge", UpstreamError),
        *[(api, "huge_mid_answer", UpstreamError) for api in APIS],
        (KIMI, "hang", UpstreamTimeout),
        *[(api, "hang", UpstreamTimeout) for api in APIS],
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_failure_is_a_typed_error(
    make: Make, site: LiveSimulator, kind: Kind, failure: str, error: type[GatewayError], stream: bool
) -> None:
    """The same trouble is the same error, whoever is in it; and nothing but our errors comes out."""
    kind.fail(site, failure)
    settings = {"request_timeout": 0.3} if failure == "hang" else {}
    async with make(kind, max_reply_bytes=100_000, **settings) as provider:
        with pytest.raises(error):
            await outcome(provider, request(provider, kind, "Hello, how are you today?"), stream=stream)


@ALL
async def test_the_request_s_own_deadline_is_kept(make: Make, site: LiveSimulator, kind: Kind) -> None:
    """Whoever has less time than the provider would take gets a timeout by then."""
    kind.fail(site, "hang")
    async with make(kind, request_timeout=3600) as provider:
        for stream in (False, True):
            wanted = request(provider, kind, "Hello", deadline=asyncio.get_running_loop().time() + 0.2)
            with pytest.raises(UpstreamTimeout):
                await outcome(provider, wanted, stream=stream)


@ALL
async def test_a_passing_trouble_is_not_seen(make: Make, site: LiveSimulator, kind: Kind) -> None:
    """One lost connection before a word is tried again."""
    async with make(kind, max_retries=1) as provider:
        for stream in (False, True):
            site.site.update(**{kind.knob: "reset", f"{kind.knob}_times": 1})
            assert (await outcome(provider, request(provider, kind, "Hello"), stream=stream)).text


@ALL
async def test_the_status_says_what_operators_want_to_know(make: Make, kind: Kind) -> None:
    """A provider that can serve is ready, connects, and has numbers for the metrics."""
    async with make(kind) as provider:
        await provider.connect()
        status = provider.status()
    assert status.ready
    assert {"breaker_closed", "queue_depth", "slots_free"} <= set(status.gauges)


@pytest.mark.parametrize("kind", APIS, ids=lambda kind: kind.name)
async def test_native_models_get_tools(make: Make, site: LiveSimulator, kind: Kind) -> None:
    """A model that calls tools by itself is sent them, and what it calls comes back whole and in parts."""
    site.site.update(api_tool_calls=[{"name": "look", "arguments": {"at": 1}}, {"name": "run", "arguments": {}}])
    async with make(kind) as provider:
        tools = ToolUse((Tool("look"), Tool("run")))
        wanted = request(provider, kind, "Look!", tools=tools)
        whole = await provider.create_completion(wanted)
        deltas = [delta async for delta in provider.stream_completion(wanted)]
    calls = [(call.name, json.loads(call.arguments)) for call in whole.tool_calls]
    assert calls == [("look", {"at": 1}), ("run", {})]
    assert [part.tool_call.name for part in deltas if part.tool_call and part.tool_call.name] == ["look", "run"]
    assert (whole.finish_reason, deltas[-1].finish_reason) == ("tool_calls", "tool_calls")
    arguments = [part.tool_call.arguments for part in deltas if part.tool_call and part.tool_call.index == 0]
    assert json.loads("".join(arguments)) == {"at": 1}


async def test_openai_s_form_asks_for_json(make: Make, site: LiveSimulator) -> None:
    """A model that writes JSON by itself is asked to."""
    async with make(API) as provider:
        await provider.create_completion(request(provider, API, "Go!", output_format=OutputFormat("json_object")))
    assert site.site.api.requests[0]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("kind", APIS, ids=lambda kind: kind.name)
async def test_a_conversation_of_every_kind_of_part_is_understood(make: Make, site: LiveSimulator, kind: Kind) -> None:
    """Instructions, an image, an earlier call and its result reach the upstream; its thoughts and text come back."""
    site.site.update(api_reasoning="Let me see.", reply="A cat, in Rome.")
    conversation = (
        Message("system", "Be brief."),
        Message("user", "What is [image]?", parts=("What is", Image(f"data:image/png;base64,{PIXEL}"), "?")),
        Message("assistant", "", tool_calls=(ToolCall("call.1", "look", '{"at":1}'),)),
        Message("tool", "A cat.", tool_call_id="call.1", name="look"),
    )
    async with make(kind) as provider:
        wanted = request(provider, kind, "", tools=ToolUse((Tool("look"),)))
        prompt = message_prompt(conversation, wanted.model.prompt_limit)
        wanted = replace(wanted, prompt=prompt)
        whole = await provider.create_completion(wanted)
        deltas = [delta async for delta in provider.stream_completion(wanted)]
    assert (whole.reasoning, whole.text) == ("Let me see.", "A cat, in Rome.")
    assert "".join(delta.reasoning for delta in deltas) == "Let me see."
    assert "".join(delta.text for delta in deltas) == "A cat, in Rome."
    sent = json.dumps(site.site.api.requests[0])
    assert all(words in sent for words in ("Be brief.", "What is", PIXEL, "look", "A cat."))


@pytest.mark.parametrize("kind", APIS, ids=lambda kind: kind.name)
async def test_no_key_is_in_an_error(make: Make, site: LiveSimulator, kind: Kind) -> None:
    """Whatever goes wrong, the error that clients see holds no key and no address."""
    async with make(kind) as provider:
        for failure in ("openai_key", "other_json", "reset", "no_such_url"):
            kind.fail(site, failure)
            with pytest.raises(GatewayError) as caught:
                await provider.create_completion(request(provider, kind, "Hello"))
            assert "sk-simulated" not in caught.value.message
            assert site.base_url not in caught.value.message
