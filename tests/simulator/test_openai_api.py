"""The simulated OpenAI API, seen by the OpenAI SDK."""

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from simulator.behaviour import API_FAILURES
from simulator.live import LiveSimulator

MODEL = "kimi-k2-0905-preview"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def connect(live: LiveSimulator) -> openai.OpenAI:
    return openai.OpenAI(base_url=live.api_url, api_key="sk-simulated", max_retries=0, timeout=10)


def said(*texts: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text} for text in texts]


def test_it_answers_whole_and_in_chunks(live: LiveSimulator) -> None:
    """The same words either way, with usage at the end if asked for, and a memory of what was sent."""
    with connect(live) as client:
        whole = client.chat.completions.create(model=MODEL, messages=said("My name is Ada.", "What is my name?"))
        parts = list(
            client.chat.completions.create(
                model=MODEL,
                messages=said("My name is Ada.", "What is my name?"),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(choice.delta.content or "" for part in parts for choice in part.choices)
    assert text == whole.choices[0].message.content == "Your name is Ada."
    assert parts[-1].usage == whole.usage
    assert len(parts) > 5
    assert live.site.api.counters.answered == 2


def test_it_thinks_and_calls_tools_as_scripted(live: LiveSimulator) -> None:
    """Calls come when tools are offered, and never in answer to a result."""
    live.site.update(api_reasoning="Let me see.", api_tool_calls=[{"name": "look", "arguments": {"at": "the sky"}}])
    with connect(live) as client:
        answer = client.chat.completions.create(model=MODEL, messages=said("Look!"), tools=[TOOL])  # type: ignore[list-item]
        call = (answer.choices[0].message.tool_calls or [])[0]
        history: list[ChatCompletionMessageParam] = [
            *said("Look!"),
            answer.choices[0].message.to_dict(),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "Blue."},
        ]
        after = client.chat.completions.create(model=MODEL, messages=history, tools=[TOOL])  # type: ignore[list-item]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert call.function.arguments == '{"at": "the sky"}'
    assert after.choices[0].finish_reason == "stop"


def test_it_calls_a_tool_when_told_so(live: LiveSimulator) -> None:
    """A message that names a tool on offer and its arguments is answered with that call."""
    with connect(live) as client:
        answer = client.chat.completions.create(model=MODEL, messages=said('Call look with {"at": 1}'), tools=[TOOL])  # type: ignore[list-item]
        other = client.chat.completions.create(model=MODEL, messages=said("Call jump with {}"), tools=[TOOL])  # type: ignore[list-item]
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("look", '{"at": 1}')
    assert other.choices[0].message.tool_calls is None


def test_it_minds_keys_and_lengths(live: LiveSimulator) -> None:
    """A wrong key is a 401, for the models too; a conversation that is too long a 400 with OpenAI's code."""
    live.site.update(api_key="sk-right", api_context=100)
    with connect(live) as client:
        for ask in (client.models.list, lambda: client.chat.completions.create(model=MODEL, messages=said("Hi"))):
            with pytest.raises(openai.AuthenticationError):
                ask()
        live.site.update(api_key="sk-simulated")
        assert MODEL in [model.id for model in client.models.list()]
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model=MODEL, messages=said("word " * 100))
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("failure", [name for name in API_FAILURES if "hang" not in name])
@pytest.mark.parametrize("stream", [False, True])
def test_every_failure_happens_once_and_then_no_more(
    live: LiveSimulator, client: httpx.Client, failure: str, stream: bool
) -> None:
    """Each failure is something else than the usual answer, for as often as it was asked for."""
    body = {"model": MODEL, "messages": said("Hello"), "stream": stream, "stream_options": {"include_usage": True}}

    def seen() -> tuple[int, str] | str:
        try:
            answer = client.post(f"{live.api_url}/chat/completions", json=body)
        except httpx.TransportError as error:
            return type(error).__name__
        return answer.status_code, answer.text

    healthy = seen()
    live.site.update(api_failure=failure, api_failure_times=1)
    failed = seen()
    assert (failed == healthy) is (not stream and failure in ("no_done", "no_finish_reason"))
    assert seen() == healthy


def test_a_client_that_leaves_is_noticed(live: LiveSimulator) -> None:
    """While nothing is said yet, and in the middle of an answer."""
    for failure in ("hang", "hang_mid_answer"):
        live.site.update(api_failure=failure)
        body = {"model": MODEL, "messages": said("count to 50"), "stream": True}
        with httpx.Client(trust_env=False, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
            client.post(f"{live.api_url}/chat/completions", json=body)
    assert live.site.api.wait_for(lambda counters: counters.abandoned == 2)
    assert live.site.api.counters.in_flight == 0
