"""Calls from beginning to end, without HTTP around them."""

from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

import pytest

from app.chat.events import Ending, Event, Opening
from app.chat.service import ChatService
from app.chat.session import SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import (
    ChatCall,
    Completion,
    Delta,
    FinishReason,
    Message,
    OutputFormat,
    SessionRef,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from app.domain.conversation import SessionKey
from app.domain.errors import (
    EmptyReply,
    GatewayError,
    MessageRefused,
    ModelNotFound,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.domain.usage import CallRecord
from app.providers.base import Ability
from app.providers.registry import ModelRoute, ProviderRegistry
from app.sessions.memory import MemorySessionStore
from tests.scripted import ScriptedProvider, Step
from tests.taken_texts import TakenTexts

ALICE = Caller("alice")
HELLO = (Message("user", "Hello"),)
IN_SESSION: dict[str, Any] = {"session": SessionRef("s", "header"), "idempotency_key": "k"}


class _House:
    """A chat service with these providers behind the model `r`, and what it hands in."""

    def __init__(self, *providers: ScriptedProvider) -> None:
        names = tuple(provider.models[0].id for provider in providers)
        registry = ProviderRegistry("r", {"r": ModelRoute(names)})
        for provider in providers:
            registry.register(provider)
        self.records: list[CallRecord] = []
        self.texts = TakenTexts()
        self.sessions = MemorySessionStore(max_sessions=10, time_to_live=60, lock_wait=0.01)
        self.service = ChatService(
            registry=registry,
            sessions=self.sessions,
            policy=SessionPolicy(),
            on_call=[self.records.append],
            on_texts=[self.texts],
        )

    async def complete(self, **fields: Any) -> Completion:
        """A whole answer."""
        return (await self.service.complete(_call(**fields), ALICE)).ending.completion

    async def stream(self, **fields: Any) -> list[Event]:
        """All events of a streamed one."""
        return [event async for event in self.service.stream(_call(**fields), ALICE)]


def _call(**fields: Any) -> ChatCall:
    return ChatCall(**{"model": "r", "messages": HELLO, **fields})


def _streaming(*steps: Step, name: str = "text") -> ScriptedProvider:
    return ScriptedProvider(name, steps, abilities=["messages", "tools"])


async def test_a_stream_is_an_opening_deltas_and_an_ending() -> None:
    """The deltas are the provider's own; the ending has all of them, in their order, and what was counted."""
    deltas = [Delta(reasoning="Hm."), Delta("One."), Delta(reasoning="Or?"), Delta("Two.", usage=Usage(1, 2))]
    house = _House(_streaming(*deltas))
    opening, *middle, ending = await house.stream()
    assert isinstance(opening, Opening)
    assert (opening.model, opening.provider, opening.action, opening.session_id) == ("r", "text", "stateless", None)
    assert middle == deltas
    assert isinstance(ending, Ending)
    assert ending.usage == Usage(1, 2)
    assert (ending.completion.text, ending.completion.reasoning) == ("One.Two.", "Hm.Or?")
    assert [delta.reasoning or delta.text for delta in ending.completion.deltas] == ["Hm.", "One.", "Or?", "Two."]


async def test_a_stream_is_opened_anew_for_each_who_is_asked() -> None:
    """Before the first word another target may take over: its opening says who, and who couldn't."""
    house = _House(
        _streaming(UpstreamTimeout("Slow."), name="first"),
        _streaming(UpstreamUnavailable("Down."), name="second"),
        _streaming(Delta("Hi."), name="third"),
    )
    openings = [event for event in await house.stream() if isinstance(event, Opening)]
    assert [(opening.provider, opening.fallback) for opening in openings] == [
        ("first", ()),
        ("second", ("first=upstream_timeout",)),
        ("third", ("first=upstream_timeout", "second=upstream_unavailable")),
    ]
    (record,) = house.records
    assert (record.provider, record.outcome, len(record.passed_over)) == ("third", "completed", 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (UpstreamUnavailable("Down."), UpstreamTimeout("Slow."), UpstreamTimeout),
        (MessageRefused("No."), UpstreamTimeout("Slow."), MessageRefused),
    ],
)
async def test_a_call_that_nobody_answers_fails(
    first: GatewayError, second: GatewayError, told: type[GatewayError], streamed: bool
) -> None:
    """The latest trouble is told; an error that would be the same elsewhere is told at once."""
    house = _House(ScriptedProvider("first", first), ScriptedProvider("second", second))
    asking: Callable[[], Any] = house.stream if streamed else house.complete
    with pytest.raises(told):
        await asking()
    (record,) = house.records
    assert (record.outcome, record.error_code, record.usage) == ("failed", told.code, None)
    assert house.texts.sent == [("Hello", "")]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_that_does_not_exist_has_no_record(streamed: bool) -> None:
    """There is no provider, and no bounded name, to record it under."""
    house = _House(ScriptedProvider("text"))
    asking: Callable[..., Any] = house.stream if streamed else house.complete
    with pytest.raises(ModelNotFound):
        await asking(model="unheard-of")
    assert not house.records


async def test_a_stream_that_is_left_is_abandoned_and_frees_its_session() -> None:
    """Its record says so, the provider's stream is closed, nothing is remembered, and the session can be taken."""
    provider = _streaming(Delta("Half of "), Delta("it."))
    house = _House(provider)
    async with aclosing(house.service.stream(_call(**IN_SESSION), ALICE)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    (record,) = house.records
    assert (record.outcome, record.error_code, record.action, record.usage) == ("abandoned", None, "new", None)
    assert house.texts.sent == [("user: Hello", "Half of ")]
    assert await house.sessions.load(SessionKey("alice", "s")) is None
    assert (await house.complete(**IN_SESSION)).text == "Half of it."


async def test_a_stream_that_breaks_off_is_not_remembered() -> None:
    """What had been said is in the log of texts only, and nobody else goes on with it."""
    other = ScriptedProvider("other")
    house = _House(_streaming(Delta("Half of "), UpstreamUnavailable("Gone.")), other)
    with pytest.raises(UpstreamUnavailable):
        await house.stream(**IN_SESSION)
    assert await house.sessions.load(SessionKey("alice", "s")) is None
    assert house.texts.sent == [("user: Hello", "Half of ")]
    assert house.records[0].error_code == "upstream_unavailable"
    assert not other.requests


async def test_the_turn_is_remembered_when_the_end_is_told() -> None:
    """Whoever has read the ending can go on at once, also before the stream is closed."""
    house = _House(_streaming(Delta("Hi.")))
    async with aclosing(house.service.stream(_call(**IN_SESSION), ALICE)) as events:
        async for event in events:
            if isinstance(event, Ending):
                session = await house.sessions.load(SessionKey("alice", "s"))
                assert session is not None
                assert [message.text for message in session.messages] == ["Hello", "Hi."]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_replay_asks_nobody(streamed: bool) -> None:
    """The answer comes from memory with what it had cost; options can't reach anybody, and there is a record."""
    calls = (ToolCall("c", "look", "{}"),)
    provider = ScriptedProvider("able", Completion("Hi.", "tool_calls", Usage(5, 6), calls), abilities=["options"])
    house = _House(provider)
    first = (await house.service.complete(_call(**IN_SESSION), ALICE)).opening
    if streamed:
        opening, *deltas, ending = await house.stream(**IN_SESSION)
        assert deltas == [
            Delta("Hi.", whole=True),
            Delta(tool_call=ToolCallDelta(0, "c", "look", "{}")),
            Delta(finish_reason="tool_calls", usage=Usage(5, 6)),
        ]
    else:
        answer = await house.service.complete(_call(**IN_SESSION), ALICE)
        opening, ending = answer.opening, answer.ending
    assert isinstance(opening, Opening)
    assert isinstance(ending, Ending)
    assert (first.options_taken, opening.options_taken) == (True, False)
    assert (first.action, opening.action) == ("new", "replayed")
    assert opening.prompt.size == first.prompt.size
    assert (ending.completion.text, ending.completion.tool_calls, ending.usage) == ("Hi.", calls, Usage(5, 6))
    assert len(provider.requests) == 1
    assert [record.action for record in house.records] == ["new", "replayed"]
    assert [record.usage for record in house.records] == [Usage(5, 6)] * 2
    assert len(house.texts.sent) == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("reason", "has_calls", "told"),
    [
        ("stop", True, "tool_calls"),
        ("tool_calls", False, "stop"),
        ("tool_calls", True, "tool_calls"),
        ("length", True, "length"),
        ("content_filter", False, "content_filter"),
    ],
)
async def test_the_finish_reason_is_true_to_the_calls(
    reason: FinishReason, has_calls: bool, told: str, streamed: bool
) -> None:
    """An agent that is told of calls finds some; one that isn't needn't look."""
    deltas: Iterable[Step] = [Delta("Hi."), Delta(finish_reason=reason)]
    completion = Completion("Hi.", reason)
    if has_calls:
        deltas = [Delta(tool_call=ToolCallDelta(0, "c", "look", "{}")), *deltas]
        completion = Completion("Hi.", reason, tool_calls=(ToolCall("c", "look", "{}"),))
    house = _House(ScriptedProvider("native", deltas if streamed else completion, abilities=["messages", "tools"]))
    if streamed:
        *_, ending = await house.stream()
        assert isinstance(ending, Ending)
        completion = ending.completion
    else:
        completion = await house.complete()
    assert completion.finish_reason == told


async def test_what_nobody_counted_is_estimated() -> None:
    """The prompt at four bytes a token, and of the answer everything that was written: thoughts and calls, too."""
    call = Delta(tool_call=ToolCallDelta(0, "c", "look", "{" + "x" * 34 + "}"))
    *_, ending = await _House(_streaming(Delta(reasoning="x" * 40), Delta("x" * 40), call)).stream()
    assert isinstance(ending, Ending)
    assert ending.usage == Usage(2, 30, estimated=True)


CALLED = Message("assistant", "", tool_calls=(ToolCall("c", "look", "{}"),))
RESULT = Message("tool", "done", tool_call_id="c")
FORMED: dict[str, Any] = {"output_format": OutputFormat("json_object")}
FORCED: dict[str, Any] = {"tools": ToolUse((Tool("look"),), "required")}


@pytest.mark.parametrize(
    ("messages", "fields", "is_end"),
    [
        ((*HELLO, CALLED, RESULT), {}, True),
        ((*HELLO, CALLED, RESULT, Message("user", "(a reminder)")), {}, True),
        ((*HELLO, CALLED, RESULT, Message("system", "Be brief.")), {}, True),
        ((*HELLO, Message("assistant", "Hi, I")), {}, True),
        (HELLO, {"stop": ("END",)}, True),
        (HELLO, {}, False),
        ((*HELLO, CALLED, RESULT, Message("assistant", "It is done."), *HELLO), {}, False),
        ((*HELLO, CALLED, RESULT), FORMED, False),
        ((*HELLO, CALLED, RESULT), FORCED, False),
    ],
)
async def test_an_empty_answer_is_an_end_where_nothing_was_asked(
    messages: tuple[Message, ...], fields: dict[str, Any], is_end: bool
) -> None:
    """After a tool's result, or where a stop text may have come first; whole as streamed. Else it is an error."""
    abilities: tuple[Ability, ...] = ("messages", "tools", "json_object")
    house = _House(ScriptedProvider("a", EmptyReply("Nothing."), abilities=abilities))
    if not is_end:
        for answer in (house.complete, house.stream):
            with pytest.raises(EmptyReply):
                await answer(messages=messages, **fields)
        return
    completion = await house.complete(messages=messages, **fields)
    assert (completion.text, completion.tool_calls, completion.finish_reason) == ("", (), "stop")
    opening, ending = await house.stream(messages=messages, **fields)
    assert isinstance(opening, Opening)
    assert isinstance(ending, Ending)
    assert ending.completion == completion
    assert [record.outcome for record in house.records] == ["completed"] * 2
