"""The OpenAI SDK through the gateway to upstreams with an API: the simulator's, and a mock server that others wrote."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, NotFoundError, OpenAI, RateLimitError
from openai.types.chat import ChatCompletionMessageParam

from simulator.live import LiveSimulator
from tests.clients.sdk import connect, said, text_of
from tests.conftest import StartGateway
from tests.live import UPSTREAM_KEY, LiveGateway

FOLDER = Path(__file__).parent / "node"
KIMI, LARGE = "kimi-k2-instruct-0905", "kimi-k2-0905-preview"
ROUTE = f"kimi=kimi-web/{KIMI}>moonshot/{LARGE}"
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def moonshot(site: LiveSimulator, start_gateway: StartGateway) -> Iterator[LiveGateway]:
    """A gateway with the Kimi site and, behind it, Moonshot's API, both simulated."""
    site.site.update(api_key=UPSTREAM_KEY)
    settings = {"moonshot_api_key": UPSTREAM_KEY, "moonshot_base_url": site.api_url, "model_routes": ROUTE}
    with start_gateway(max_retries=0, **settings) as gateway:
        yield gateway


def answered_by(client: OpenAI, text: str, **fields: Any) -> tuple[str, str | None, str | None]:
    """Text, `X-Provider` and `X-Fallback` of an answer."""
    raw = client.chat.completions.with_raw_response.create(model="kimi", messages=said(text), **fields)
    return text_of(raw.parse()), raw.headers.get("x-provider"), raw.headers.get("x-fallback")


def test_a_name_is_answered_by_whoever_can(moonshot: LiveGateway, site: LiveSimulator) -> None:
    """The site answers while it is up and the conversation is short enough for it; else Moonshot does."""
    with connect(moonshot) as client:
        text, provider, fallback = answered_by(client, "Hello")
        assert (provider, fallback) == ("kimi-web", None)
        text, provider, fallback = answered_by(client, "repeat after me: " + "word " * 1000)
        assert (text.count("word"), provider) == (1000, "moonshot")
        assert "context_length_exceeded" in (fallback or "")
        site.site.update(failure="maintenance")
        text, provider, fallback = answered_by(client, "Hello")
        assert provider == "moonshot"
        assert "kimi-web=upstream_unavailable" in (fallback or "")
        with pytest.raises(APIStatusError) as error:
            answered_by(client, "Hello", extra_headers={"X-Provider": "kimi-web"})
    assert error.value.code == "upstream_unavailable"


def test_a_session_goes_on_at_another_upstream(moonshot: LiveGateway, site: LiveSimulator) -> None:
    """The transcript is the gateway's: when the site goes down, Moonshot knows what was said there."""
    with connect(moonshot) as client:
        answered_by(client, "My name is Ada.", extra_body={"user": "ada"})
        site.site.update(failure="maintenance")
        text, provider, _ = answered_by(client, "What is my name?", extra_body={"user": "ada"})
    assert (text, provider) == ("Your name is Ada.", "moonshot")


def test_a_stream_passes_through_as_it_comes(moonshot: LiveGateway, site: LiveSimulator) -> None:
    """Pieces, thoughts, usage and unknown fields pass; ids and names are the gateway's; keys are nobody's."""
    site.site.update(api_reasoning="Let me count.")
    with connect(moonshot) as client:
        parts = list(
            client.chat.completions.create(
                model=f"moonshot/{LARGE}",
                messages=said("count to 30"),
                stream=True,
                stream_options={"include_usage": True},
                temperature=0.3,
                extra_body={"thinking": {"type": "enabled"}},
            )
        )
    text = "".join(choice.delta.content or "" for part in parts for choice in part.choices)
    thought = "".join(
        getattr(choice.delta, "reasoning_content", None) or "" for part in parts for choice in part.choices
    )
    assert (text.split()[-1], thought) == ("30", "Let me count.")
    assert len(parts) > 30
    assert parts[-1].usage is not None
    assert not any(part.id.startswith("chatcmpl-simulated") for part in parts)
    sent = site.site.api.requests[-1]
    assert (sent["temperature"], sent["thinking"], sent["model"]) == (0.3, {"type": "enabled"}, LARGE)


def test_a_failure_before_the_first_word_has_its_true_status(moonshot: LiveGateway, site: LiveSimulator) -> None:
    """A stream whose upstream refuses is an HTTP error with our code, not a stream that opens and fails."""
    for failure, status, code in (
        ("moonshot_quota", 502, "upstream_quota_exhausted"),
        ("openai_key", 502, "upstream_key_rejected"),
        ("moonshot_model", 404, "model_not_found"),
        ("openai_bad_request", 400, None),
        ("openai_rate", 429, "upstream_rate_limited"),
    ):
        site.site.update(api_failure=failure)
        with connect(moonshot) as client, pytest.raises(APIStatusError) as error:
            client.chat.completions.create(model=LARGE, messages=said("Hello"), stream=True)
        assert (error.value.status_code, error.value.code) == (status, code)


def test_a_client_that_leaves_a_stream_ends_it_at_the_upstream(moonshot: LiveGateway, site: LiveSimulator) -> None:
    """Closing the SDK's stream aborts the upstream call."""
    site.site.update(api_failure="hang_mid_answer")
    with connect(moonshot) as client:
        stream = client.chat.completions.create(model=LARGE, messages=said("count to 50"), stream=True)
        next(iter(stream))
        stream.close()
        assert site.site.api.wait_for(lambda counters: counters.abandoned == 1)


def test_models_of_all_upstreams_are_listed(moonshot: LiveGateway) -> None:
    """Plain, with their provider's name, and by the operator's names; any other model of the vendor can be named."""
    with connect(moonshot) as client:
        ids = {model.id for model in client.models.list()}
        assert {"kimi", KIMI, LARGE} <= ids
        assert not any("/" in model for model in ids)
        doubles = {model.id for model in client.models.list(extra_query={"all": "true"})}
        assert doubles >= {*ids, f"moonshot/{LARGE}", f"kimi-web/{KIMI}"}
        client.chat.completions.create(model="moonshot/brand-new", messages=said("Hello"))
        with pytest.raises(NotFoundError):
            client.chat.completions.create(model="brand-new", messages=said("Hello"))


@pytest.fixture(scope="module")
def aimock() -> Iterator[str]:
    """The address of @copilotkit/aimock, an OpenAI-compatible server by people who don't know this gateway."""
    if shutil.which("node") is None or not (FOLDER / "node_modules" / "@copilotkit").is_dir():
        pytest.skip("Node.js or the npm packages of tests/clients/node are missing: `./dev node-modules` installs them")
    with subprocess.Popen(["node", "aimock.mjs"], cwd=FOLDER, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def test_a_server_that_nobody_here_wrote(aimock: str, start_gateway: StartGateway) -> None:
    """Text, usage and an error come through from an independent server, whole and streamed."""
    with start_gateway(vllm_base_url=f"{aimock}/v1", vllm_models="gpt-4o") as gateway, connect(gateway) as client:
        for stream in (False, True):
            text, usage = ask(client, said("greet me"), stream=stream)
            assert text == "Hello 👩‍👧, 你好, and welcome!"
            assert usage == (11, 7)
            assert ask(client, said("please think"), stream=stream)[0] == "Forty-two."
        with pytest.raises(RateLimitError) as error:
            ask(client, said("are you busy?"), stream=True)
        assert error.value.code == "upstream_rate_limited"


def ask(client: OpenAI, messages: list[ChatCompletionMessageParam], *, stream: bool) -> tuple[str, tuple[int, int]]:
    """Text and tokens of an answer."""
    if not stream:
        answer = client.chat.completions.create(model="gpt-4o", messages=messages)
        assert answer.usage is not None
        return text_of(answer), (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    parts = list(
        client.chat.completions.create(
            model="gpt-4o", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for part in parts for choice in part.choices)
    assert parts[-1].usage is not None
    return text, (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens)


def test_tools_pass_natively_to_a_server_that_nobody_here_wrote(
    aimock: str, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """PROVIDERS_FILE says that its model calls tools by itself: call and result go there and back, also streamed."""
    file = tmp_path / "providers.toml"
    models = '{ "gpt-4o" = { abilities = ["tools"] } }'
    file.write_text(f'[[providers]]\nname = "mock"\nbase_url = "{aimock}/v1"\nmodels = {models}\n', encoding="utf-8")
    with start_gateway(providers_file=file) as gateway, connect(gateway) as client:
        question = said("What is the weather?")
        first = client.chat.completions.create(model="gpt-4o", messages=question, tools=[WEATHER])
        call = (first.choices[0].message.tool_calls or [])[0]
        assert call.type == "function"
        assert (call.id, call.function.name, call.function.arguments) == (
            *("call_weather", "get_weather"),
            '{"city":"Oslo"}',
        )
        with client.chat.completions.stream(model="gpt-4o", messages=question, tools=[WEATHER]) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].finish_reason == "tool_calls"
        history: list[Any] = [*question, first.choices[0].message.to_dict()]
        history.append({"role": "tool", "tool_call_id": call.id, "content": "Sunny."})
        assert ask(client, history, stream=True)[0] == "It is sunny in Oslo."
