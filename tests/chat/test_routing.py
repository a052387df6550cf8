"""Routes and fallback, through a running gateway whose further providers follow a script."""

from typing import Any, TextIO

import httpx
import pytest

from app.api.wire.addresses import GENERATE
from app.domain.chat import Completion, Delta, ToolCall, Usage
from app.domain.errors import (
    ContextTooLong,
    EmptyReply,
    GatewayError,
    GatewayOverloaded,
    MessageRefused,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.domain.prompt import PromptLimit
from simulator.live import LiveSimulator
from tests.addresses import address
from tests.live import LiveGateway
from tests.scripted import Answer, ScriptedProvider, gateway_with

HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def _ask(gateway: LiveGateway, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    with gateway.client() as client:
        body = {"model": "r", "messages": HELLO, **fields}
        return client.post("/v1/chat/completions", json=body, headers=headers)


def _text(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (UpstreamUnavailable("Down."), "upstream_unavailable"),
        (UpstreamTimeout("Slow."), "upstream_timeout"),
        (UpstreamRateLimited("Busy.", retry_after=5), "upstream_rate_limited"),
        (GatewayOverloaded("Full."), "gateway_overloaded"),
        (ContextTooLong("Long.", param="messages"), "context_length_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_next_target_answers_when_one_cannot(
    site: LiveSimulator, log_stream: TextIO, failure: GatewayError, reason: str, stream: bool
) -> None:
    """Whatever keeps one upstream from answering, the next one answers, and headers tell who and why."""
    broken, working = ScriptedProvider("broken", failure), ScriptedProvider("working")
    with gateway_with(site, log_stream, broken, working) as gateway:
        response = _ask(gateway, stream=stream)
    assert response.status_code == 200
    assert "Hello." in response.text
    assert '"model":"r"' in response.text
    assert response.headers["x-provider"] == "working"
    assert response.headers["x-fallback"] == f"broken={reason}"


def test_a_refusal_of_the_message_is_not_carried_elsewhere(site: LiveSimulator, log_stream: TextIO) -> None:
    """What one upstream refuses for its content is told to the client, and no other upstream sees it."""
    choosy, other = ScriptedProvider("choosy", MessageRefused("No.")), ScriptedProvider("other")
    with gateway_with(site, log_stream, choosy, other) as gateway:
        response = _ask(gateway)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_filter"
    assert not other.requests


def test_only_the_last_target_is_asked_again(site: LiveSimulator, log_stream: TextIO) -> None:
    """While another upstream stands by, a passing failure is no reason to wait; the last one is waited for."""
    first, second = ScriptedProvider("first", UpstreamUnavailable("Down.")), ScriptedProvider("second")
    small = ScriptedProvider("small", limit=PromptLimit(100))
    history = [*HELLO, {"role": "assistant", "content": "y" * 200}, {"role": "user", "content": "And?"}]
    with gateway_with(site, log_stream, small, first, second) as gateway:
        _ask(gateway, messages=history)
        second.answer = UpstreamUnavailable("Down, too.")
        _ask(gateway, messages=history)
    assert [request.retries for request in first.requests] == [False, False]
    assert [request.retries for request in second.requests] == [False, False]
    assert [request.retries for request in small.requests] == [True]


def test_a_target_leaves_time_to_those_behind_it(site: LiveSimulator, log_stream: TextIO) -> None:
    """A call takes no longer for its route: each target but the last gets at most half of what is left."""
    first, second = ScriptedProvider("first", UpstreamTimeout("Slow.")), ScriptedProvider("second")
    first.timeout = second.timeout = 100.0
    with gateway_with(site, log_stream, first, second) as gateway:
        before = gateway.loop.time()
        _ask(gateway)
        after = gateway.loop.time()
    deadlines = [provider.requests[0].deadline or 0.0 for provider in (first, second)]
    assert before + 50 <= deadlines[0] <= after + 50
    assert before + 100 <= deadlines[1] <= after + 100


def test_nobody_else_is_asked_after_the_first_word(site: LiveSimulator, log_stream: TextIO) -> None:
    """An answer that breaks off is an error in its stream; another upstream's words never continue it."""
    breaking = ScriptedProvider("breaking", [Delta("Once "), UpstreamUnavailable("Gone.")])
    other = ScriptedProvider("other")
    with gateway_with(site, log_stream, breaking, other) as gateway:
        response = _ask(gateway, stream=True)
    assert '"content":"Once "' in response.text
    assert '"code":"upstream_unavailable"' in response.text
    assert "[DONE]" not in response.text
    assert not other.requests


@pytest.mark.parametrize("order", [("large", "small"), ("small", "large")])
def test_if_nobody_can_answer_the_upstreams_trouble_is_told(
    site: LiveSimulator, log_stream: TextIO, order: tuple[str, str]
) -> None:
    """Whoever is asked first: that a larger model is down says more than that a small one has too little room."""
    providers = {
        "large": ScriptedProvider("large", UpstreamUnavailable("Down.", retry_after=7)),
        "small": ScriptedProvider("small", limit=PromptLimit(50)),
    }
    with gateway_with(site, log_stream, *(providers[name] for name in order)) as gateway:
        response = _ask(gateway, messages=[{"role": "user", "content": "x" * 60}])
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")


def test_a_long_conversation_goes_to_the_target_that_takes_all_of_it(site: LiveSimulator, log_stream: TextIO) -> None:
    """A target that would have to drop messages is passed over for one that takes the conversation whole."""
    small, large = ScriptedProvider("small", limit=PromptLimit(100)), ScriptedProvider("large")
    history = [*HELLO, {"role": "assistant", "content": "y" * 200}, {"role": "user", "content": "And?"}]
    with gateway_with(site, log_stream, small, large) as gateway:
        response = _ask(gateway, messages=history)
        short = _ask(gateway)
    assert response.headers["x-provider"] == "large"
    assert response.headers["x-fallback"] == "small=context_length_exceeded"
    assert response.headers["x-context-dropped"] == "0"
    assert short.headers["x-provider"] == "small"
    assert "x-fallback" not in short.headers


def test_if_no_target_takes_all_of_it_the_first_takes_what_it_can(site: LiveSimulator, log_stream: TextIO) -> None:
    """Dropping old messages is better than no answer."""
    small, large = (
        ScriptedProvider("small", limit=PromptLimit(100)),
        ScriptedProvider("large", UpstreamTimeout("Slow.")),
    )
    history = [*HELLO, {"role": "assistant", "content": "y" * 200}, {"role": "user", "content": "And?"}]
    with gateway_with(site, log_stream, small, large) as gateway:
        response = _ask(gateway, messages=history)
    assert response.headers["x-provider"] == "small"
    assert (response.headers["x-context-dropped"], response.headers["x-context-shortened"]) == ("1", "1")


def test_images_go_to_a_target_that_sees(site: LiveSimulator, log_stream: TextIO) -> None:
    """A text-only target is passed over; without one that sees, the error names the image's place."""
    blind = ScriptedProvider("blind")
    seeing = ScriptedProvider("seeing", limit=PromptLimit(4000, "tokens"), abilities=["messages", "images"])
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}]
    with gateway_with(site, log_stream, blind, seeing) as gateway:
        response = _ask(gateway, messages=messages)
        refused = _ask(gateway, messages=messages, headers={"X-Provider": "blind"})
    assert response.headers["x-provider"] == "seeing"
    assert response.headers["x-prompt-tokens"] == "5/4000"
    assert [image.url for image in seeing.requests[0].messages[0].images] == ["data:image/png;base64,AA=="]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].content[1]")


def test_an_image_that_was_refused_ends_no_chat(site: LiveSimulator, log_stream: TextIO) -> None:
    """A text-only model answers what comes after an image, which stays out; a target that sees is asked before it."""
    blind = ScriptedProvider("blind", limit=PromptLimit(4000, "tokens"), abilities=["messages"])
    writes = ScriptedProvider("writes")
    seeing = ScriptedProvider("seeing", limit=PromptLimit(4000, "tokens"), abilities=["messages", "images"])
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]},
        {"role": "user", "content": "What is my name?"},
    ]
    with gateway_with(site, log_stream, blind, writes, seeing) as gateway:
        seen = _ask(gateway, messages=messages)
        for provider in (blind, writes):
            unseen = _ask(gateway, messages=messages, headers={"X-Provider": provider.name})
            assert unseen.status_code == 200, unseen.text
            assert unseen.headers["x-ignored-params"] == "messages[0].content[1]"
    assert seen.headers["x-provider"] == "seeing"
    assert "x-ignored-params" not in seen.headers
    assert [(message.text, message.parts) for message in blind.requests[0].messages] == [
        ("What is it?\n[image]", ()),
        ("What is my name?", ()),
    ]
    assert writes.requests[0].prompt.text == "[User]: What is it?\n[image]\n[User]: What is my name?"


def test_a_session_goes_on_when_its_target_changes(site: LiveSimulator, log_stream: TextIO) -> None:
    """The transcript is the gateway's: whoever answers next reads what another upstream has said."""
    first, second = ScriptedProvider("first", Completion("I am One.")), ScriptedProvider("second")
    with gateway_with(site, log_stream, first, second) as gateway:
        _ask(gateway, user="ada")
        first.answer = UpstreamUnavailable("Down.")
        response = _ask(gateway, user="ada", messages=[{"role": "user", "content": "Who are you?"}])
    assert response.headers["x-session-action"] == "continued"
    assert "I am One." in second.requests[0].prompt.text


def test_a_pinned_provider_has_nobody_to_stand_in(site: LiveSimulator, log_stream: TextIO) -> None:
    """`X-Provider` asks one provider and takes its error."""
    broken, working = ScriptedProvider("broken", UpstreamUnavailable("Down.")), ScriptedProvider("working")
    with gateway_with(site, log_stream, broken, working) as gateway:
        assert _ask(gateway, headers={"X-Provider": "broken"}).status_code == 503
        assert _ask(gateway, headers={"X-Provider": "working"}).headers["x-provider"] == "working"
        unknown = _ask(gateway, headers={"X-Provider": "nobody"})
    assert unknown.json()["error"]["param"] == "X-Provider"


def test_a_model_that_takes_messages_gets_everything_as_it_is(site: LiveSimulator, log_stream: TextIO) -> None:
    """Messages, limits and further fields go to the upstream, nothing is ignored, and its own counts are passed on."""
    answer = Completion("Hi END there", usage=Usage(11, 7, cached_tokens=3, reasoning_tokens=2), reasoning="Hm.")
    native = ScriptedProvider("native", answer, abilities=["messages", "options"], limit=PromptLimit(99, "tokens"))
    with gateway_with(site, log_stream, native) as gateway:
        response = _ask(gateway, stop=["END"], max_tokens=1, temperature=0.5, top_k=3)
    request = native.requests[0]
    assert (request.stop, request.max_tokens, request.options) == (("END",), 1, {"temperature": 0.5, "top_k": 3})
    assert _text(response) == "Hi END there"
    assert response.json()["choices"][0]["message"]["reasoning_content"] == "Hm."
    assert response.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert response.json()["usage"]["total_tokens"] == 18
    assert "x-ignored-params" not in response.headers


def test_a_replay_is_told_like_the_first_time(site: LiveSimulator, log_stream: TextIO) -> None:
    """Text, calls, usage and the stop text come again as they were, whichever dialect asks, whole and streamed."""
    calls = (ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "g", "{}"))
    answer = Completion("Two.", "tool_calls", Usage(11, 7, 3, 2), calls)
    native = ScriptedProvider("native", answer, abilities=["messages", "tools"])
    tools = [{"name": "f", "input_schema": {}}, {"name": "g", "input_schema": {}}]
    functions = [{"type": "function", "function": {"name": tool["name"]}} for tool in tools]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"model": "r", "messages": HELLO, "tools": functions},
        "/v1/responses": {"model": "r", "input": "Hello", "tools": [{"type": "function", **tool} for tool in tools]},
        "/v1/messages": {"model": "r", "messages": HELLO, "tools": tools, "max_tokens": 99},
        GENERATE: {
            "contents": [{"parts": [{"text": "Hello"}]}],
            "tools": [{"functionDeclarations": [{"name": tool["name"]} for tool in tools]}],
        },
    }
    with gateway_with(site, log_stream, native) as gateway, gateway.client() as client:
        for path, body in bodies.items():
            headers = {"X-Session-Id": path, "Idempotency-Key": "k"}
            first, second = (client.post(address(path, "r"), json=body, headers=headers) for _ in range(2))
            stream = client.post(address(path, "r", stream=True), json={**body, "stream": True}, headers=headers)
            assert (first.status_code, second.headers["x-session-action"]) == (200, "replayed")
            assert _lasting(second.json()) == _lasting(first.json())
            assert stream.headers["x-session-action"] == "replayed"
            assert "c1" in stream.text
            assert "c2" in stream.text
    assert len(native.requests) == len(bodies)


_NEW = frozenset({"id", "created", "created_at", "responseId"})


def _lasting(value: Any) -> Any:
    """An answer without what is new each time: ids of its own and times."""
    if isinstance(value, dict):
        return {name: _lasting(part) for name, part in value.items() if name not in _NEW}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


def test_the_stop_text_of_a_replay_is_told(site: LiveSimulator, log_stream: TextIO) -> None:
    """An answer that a stop text ended says so again when it is sent again."""
    text = ScriptedProvider("text", Completion("One. END Two."))
    body = {"model": "r", "messages": HELLO, "max_tokens": 99, "stop_sequences": ["END"]}
    headers = {"X-Session-Id": "s", "Idempotency-Key": "k"}
    with gateway_with(site, log_stream, text) as gateway, gateway.client() as client:
        answers = [client.post("/v1/messages", json=body, headers=headers).json() for _ in range(2)]
    assert [answer["stop_sequence"] for answer in answers] == ["END", "END"]
    assert len(text.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_keeps_to_the_callers_limits_for_its_model(
    site: LiveSimulator, log_stream: TextIO, stream: bool
) -> None:
    """Where they leave no room it is passed over like one that is down; the next one answers, or the client is told."""
    down = ScriptedProvider("down", UpstreamUnavailable("Down."))
    dear, last = ScriptedProvider("dear"), ScriptedProvider("last")
    limits = "2 requests/hour for dear*, 1 at once for dear*, 100 requests/hour"
    settings: dict[str, Any] = {"database_url": "none", "default_limits": limits}
    with gateway_with(site, log_stream, down, dear, last, **settings) as gateway:
        answers = [_ask(gateway, stream=stream) for _ in range(3)]
        assert [answer.headers["x-provider"] for answer in answers] == ["dear", "dear", "last"]
        assert answers[2].headers["x-fallback"] == "down=upstream_unavailable, dear=gateway_overloaded"
        last.answer = UpstreamUnavailable("Down, too.")
        refused = _ask(gateway, stream=stream)
        assert (refused.status_code, refused.json()["error"]["message"]) == (503, "Down, too.")
        assert _ask(gateway, model="dear-model").status_code == 429
        assert (len(dear.requests), len(last.requests)) == (2, 2)


def test_a_fallback_that_was_not_asked_uses_nothing_of_its_models_limits(
    site: LiveSimulator, log_stream: TextIO
) -> None:
    """What is taken for it is given back if nothing was sent to it, and so is its place among calls at once."""
    down = ScriptedProvider("down", UpstreamUnavailable("Down."))
    full = ScriptedProvider("full", GatewayOverloaded("Full."))
    settings: dict[str, Any] = {
        "database_url": "none",
        "default_limits": "1 requests/hour for full*, 1 at once for full*",
    }
    with gateway_with(site, log_stream, down, full, **settings) as gateway:
        statuses = [_ask(gateway).status_code for _ in range(3)]
        full.answer = Completion("Here.")
        answered, refused = _ask(gateway), _ask(gateway)
    assert statuses == [503, 503, 503]
    assert (_text(answered), refused.status_code) == ("Here.", 503)
    assert len(full.requests) == 4


_LONG = "word " * 3000
_CALLED = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    "limits", [{"default_limits": "1k tokens/hour for dear*"}, {"upstream_limits": "dear: 1k tokens/hour"}]
)
@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ([Delta(_LONG), UpstreamUnavailable("Gone.")], {"stream": True}),
        (EmptyReply("Nothing."), {"stop": ["END"], "messages": [{"role": "user", "content": _LONG[:3000]}]}),
        (Completion(_LONG), {"tools": _CALLED, "tool_choice": "required"}),
    ],
)
def test_what_a_fallback_used_counts_for_its_limits_also_if_it_failed(
    site: LiveSimulator, log_stream: TextIO, limits: dict[str, Any], answer: Answer, asked: dict[str, Any]
) -> None:
    """It broke off after its first word, said nothing where it may, or was asked twice for what it doesn't do."""
    down, dear = ScriptedProvider("down", UpstreamUnavailable("Down.")), ScriptedProvider("dear", answer)
    with gateway_with(site, log_stream, down, dear, database_url="none", **limits) as gateway:
        for _ in range(3):
            _ask(gateway, **asked)
        asked_before = len(dear.requests)
        _ask(gateway, **asked)
    assert len(dear.requests) == asked_before
    assert asked_before <= 2


@pytest.mark.parametrize("limit", ["2k tokens/hour", "2k tokens/day", "1 requests/day"])
def test_what_a_fallback_used_counts_for_no_limit_of_the_first_model(
    site: LiveSimulator, log_stream: TextIO, limit: str
) -> None:
    """Limits for some models count only those."""
    down, dear = ScriptedProvider("down", UpstreamUnavailable("Down.")), ScriptedProvider("dear", Completion(_LONG))
    with gateway_with(
        site, log_stream, down, dear, database_url="none", default_limits=f"{limit} for down*"
    ) as gateway:
        assert [_ask(gateway).status_code for _ in range(3)] == [200, 200, 200]


def test_a_call_counts_once_for_a_limit_however_many_fallbacks_that_counts(
    site: LiveSimulator, log_stream: TextIO
) -> None:
    """One that was asked in vain leaves the next one room, as the first target does."""
    down, dear = (ScriptedProvider(name, UpstreamUnavailable("Down.")) for name in ("down", "dear"))
    dearer, limits = ScriptedProvider("dearer"), "2 requests/hour for dear*, 1 at once for dear*"
    with gateway_with(site, log_stream, down, dear, dearer, database_url="none", default_limits=limits) as gateway:
        answers = [_ask(gateway) for _ in range(3)]
        assert [answer.headers.get("x-provider") for answer in answers] == ["dearer", "dearer", None]
        assert (len(dear.requests), len(dearer.requests)) == (2, 2)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", GENERATE])
def test_a_client_is_not_asked_to_try_again_where_a_fallbacks_quota_is_spent(
    site: LiveSimulator, log_stream: TextIO, path: str
) -> None:
    """Where nothing else could be asked."""
    small, dear = ScriptedProvider("small", limit=PromptLimit(10)), ScriptedProvider("dear")
    body: dict[str, Any] = {"model": "r", "messages": [{"role": "user", "content": "Hello, you there."}]}
    if path == "/v1/responses":
        body = {"model": "r", "input": "Hello, you there."}
    elif path == GENERATE:
        body = {"contents": [{"parts": [{"text": "Hello, you there."}]}]}
    limits: dict[str, Any] = {"database_url": "none", "default_limits": "1 requests in total for dear*"}
    with gateway_with(site, log_stream, small, dear, **limits) as gateway, gateway.client() as client:
        answers = [
            client.post(address(path, "r"), json={**body, **({"max_tokens": 9} if "messages" in path else {})})
            for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [200, 503], answers[0].text
    assert answers[1].headers["x-should-retry"] == "false"
