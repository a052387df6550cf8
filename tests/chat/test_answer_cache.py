"""Which requests get the answer that the same request got before, which answers are kept, and for whom."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from app.chat.answer_cache import LONGEST_ANSWER, AnswerCache, CachePolicy
from app.chat.events import Answer, Ending, Event, Opening
from app.chat.service import ChatService
from app.chat.session import SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import (
    ApiKind,
    CacheWish,
    ChatCall,
    Completion,
    Delta,
    Image,
    Message,
    NativeEvent,
    NativeRequest,
    OutputFormat,
    SessionRef,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from app.domain.errors import GatewayError, SessionStoreUnavailable, UpstreamUnavailable
from app.domain.prompt import PromptLimit
from app.domain.usage import CallRecord
from app.providers.registry import ModelRoute, ProviderRegistry
from app.sessions.base import SnapshotKey
from app.sessions.memory import MemorySessionStore, MemorySnapshotStore
from tests.clock import Clock
from tests.scripted import ScriptedProvider

ADA, BEN = Caller("ada", project="lab"), Caller("ben", project="lab")
HELLO = (Message("user", "Hello"),)
TOOL = ToolUse((Tool("look"),))
ASKING = CacheWish(60)
SECONDS = 600.0


class _House:
    """A chat service with a cache, and providers behind the models `r` and `s`; each answer is another one."""

    def __init__(self, *providers: ScriptedProvider, models: tuple[str, ...] = (), store: Any = None) -> None:
        self.providers = providers or (counting(),)
        names = tuple(provider.models[0].id for provider in self.providers)
        self.registry = ProviderRegistry("r", {"r": ModelRoute(names), "s": ModelRoute(names)})
        for provider in self.providers:
            self.registry.register(provider)
        self.clock = Clock()
        self.records: list[CallRecord] = []
        self.look_ups: list[str] = []
        self.service = ChatService(
            registry=self.registry,
            sessions=MemorySessionStore(max_sessions=10, time_to_live=60, lock_wait=0.01),
            policy=SessionPolicy(),
            on_call=[self.records.append],
            cache=AnswerCache(
                store or MemorySnapshotStore(max_snapshots=100, time_to_live=SECONDS, clock=self.clock),
                CachePolicy(SECONDS, models),
                on_look_up=self.look_ups.append,
                clock=self.clock,
            ),
        )

    @property
    def asked(self) -> int:
        """How often an upstream was asked."""
        return sum(len(provider.requests) for provider in self.providers)

    async def ask(self, caller: Caller = ADA, **fields: Any) -> Answer:
        """A whole answer, by default to a request that asks for a kept one."""
        return await self.service.complete(_call(**fields), caller)

    async def text(self, caller: Caller = ADA, **fields: Any) -> str:
        """Its text."""
        return (await self.ask(caller, **fields)).ending.completion.text

    async def stream(self, **fields: Any) -> list[Event]:
        """All events of a streamed one."""
        return [event async for event in self.service.stream(_call(**fields), ADA)]


def counting(name: str = "up", **options: Any) -> ScriptedProvider:
    """A provider that never answers the same twice."""
    answers: Callable[[Any], Completion] = lambda _: Completion(f"Answer {len(provider.requests)}")  # noqa: E731
    provider = ScriptedProvider(name, answers, abilities=["messages", "tools", "options", "images"], **options)
    return provider


def _call(**fields: Any) -> ChatCall:
    return ChatCall(**{"model": "r", "messages": HELLO, "cache": ASKING, **fields})


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_the_same_request_gets_the_same_answer_for_nothing(streamed: bool) -> None:
    """Whoever of the project asks, and streamed or not: nobody is asked again, and nothing is charged."""
    house = _House()
    first = (await house.ask()).opening
    house.clock.now += 7
    if streamed:
        opening, *deltas, ending = await house.stream()
        assert deltas[0] == Delta("Answer 1", whole=True)
    else:
        answer = await house.ask(BEN)
        opening, ending = answer.opening, answer.ending
    assert isinstance(opening, Opening)
    assert isinstance(ending, Ending)
    assert ending.completion.text == "Answer 1"
    assert (house.asked, house.look_ups) == (1, ["miss", "hit"])
    assert (first.cache_age, opening.cache_age) == (-1, 7)
    assert (opening.provider, opening.prompt.size, opening.options_taken) == ("up", first.prompt.size, True)
    record = house.records[-1]
    assert (record.action, record.outcome, record.charged, record.counts) == ("replayed", "completed", None, False)
    assert record.provider == "up"


async def test_a_streamed_answer_is_kept_as_well() -> None:
    """With its thoughts, its calls and what it took, in their order."""
    calls = [Delta(tool_call=ToolCallDelta(0, "c", "look", "{}"))]
    steps = [Delta(reasoning="Hm."), Delta("Look: "), *calls, Delta(finish_reason="tool_calls", usage=Usage(5, 6))]
    house = _House(ScriptedProvider("up", steps, abilities=["messages", "tools"]))
    *_, first = await house.stream(tools=TOOL)
    again = await house.ask(tools=TOOL)
    assert again.ending == first
    assert again.ending.completion.tool_calls == (ToolCall("c", "look", "{}"),)
    assert house.asked == 1


async def test_an_answer_has_its_age() -> None:
    """A request gets none that is older than it says, nor any that is older than answers are kept."""
    house = _House()
    assert await house.text() == "Answer 1"
    house.clock.now += 60
    assert await house.text() == "Answer 1"
    house.clock.now += 1
    assert await house.text(cache=CacheWish(100)) == "Answer 1"
    assert await house.text() == "Answer 2"
    house.clock.now += SECONDS + 1
    assert await house.text(cache=CacheWish(1e9)) == "Answer 3"


async def test_who_wants_no_kept_answer_gets_none() -> None:
    """`no-cache` renews what is kept, `no-store` leaves it as it is and isn't told of a cache."""
    house = _House()
    assert await house.text() == "Answer 1"
    unkept = await house.ask(cache=CacheWish(0, keeps=False))
    assert (unkept.ending.completion.text, unkept.opening.cache_age) == ("Answer 2", None)
    assert await house.text() == "Answer 1"
    assert await house.text(cache=CacheWish(0)) == "Answer 3"
    assert await house.text() == "Answer 3"
    assert await house.text(cache=None) == "Answer 4"


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, True), ({"temperature": 0}, True), ({"temperature": 0.0}, True), ({"temperature": 0.7}, False)],
)
async def test_listed_models_need_not_be_asked(options: dict[str, object], kept: bool) -> None:
    """Their requests are answered from the cache, unless a temperature asks for answers that differ; others aren't."""
    house = _House(models=("r*",))
    fields: dict[str, Any] = {"cache": None, "options": options}
    assert await house.text(**fields) == "Answer 1"
    assert (await house.text(**fields) == "Answer 1") is kept
    other = await house.ask(**fields, model="s")
    assert other.opening.cache_age is None


@pytest.mark.parametrize(
    "different",
    [
        {"model": "s"},
        {"model": "R"},
        {"messages": (Message("user", "Hello."),)},
        {"messages": (Message("system", "Hello"),)},
        {"messages": (Message("user", "Hello", parts=("Hello", Image("data:image/png;base64,aa"))),)},
        {"options": {"temperature": 0.5}},
        {"options": {"temperature": 0}},
        {"options": {"top_p": 0.5}},
        {"options": {"seed": 1}},
        {"options": {"reasoning_effort": "low"}},
        {"max_tokens": 1000},
        {"stop": ("END",)},
        {"tools": TOOL},
        {"output_format": OutputFormat("json_object")},
        {"provider": "up"},
    ],
    ids=str,
)
async def test_another_request_gets_an_answer_of_its_own(different: dict[str, Any]) -> None:
    """Whatever an answer depends on tells requests apart."""
    house = _House(ScriptedProvider("up", Completion('{"a": 1}'), abilities=["messages", "tools", "options", "images"]))
    await house.ask()
    assert (await house.ask(**different)).opening.cache_age == -1
    assert (await house.ask(**different)).opening.cache_age == 0
    assert house.asked == 2


async def test_how_a_request_is_sent_makes_no_difference() -> None:
    """Neither that it is a retry, nor its key for retries, nor the order of its options."""
    house = _House()
    await house.ask(options={"seed": 1, "top_p": 0.5})
    again = await house.ask(is_retry=True, idempotency_key="k", options={"top_p": 0.5, "seed": 1})
    assert again.opening.cache_age == 0


async def test_no_project_gets_anothers_answer() -> None:
    """Nor does a key of the environment get the answer of another one of them."""
    house = _House()
    callers = [ADA, Caller("ada", project="shop"), Caller("key-1"), Caller("key-2")]
    assert [await house.text(caller) for caller in callers] == [f"Answer {number}" for number in range(1, 5)]
    assert [await house.text(caller) for caller in callers] == [f"Answer {number}" for number in range(1, 5)]


async def test_a_key_that_may_not_use_the_model_gets_no_kept_answer() -> None:
    """What a key may do comes first."""
    house = _House()
    await house.ask()
    with pytest.raises(GatewayError, match="model"):
        await house.ask(Caller("eve", project="lab", models=("other",)))


@pytest.mark.parametrize("fields", [{"session": SessionRef("x", "header")}, {"n": 2}], ids=str)
async def test_sessions_and_several_answers_are_not_cached(fields: dict[str, Any]) -> None:
    """What they get doesn't depend on the request alone, or is asked for because it differs."""
    house = _House()
    assert (await house.ask(**fields)).opening.cache_age is None
    assert not house.look_ups


@pytest.mark.parametrize(
    "answer",
    [
        Completion("Half of", "length"),
        Completion("", "content_filter"),
        Completion("No.", refusal="No."),
        Completion("".join(f"{number:x}" for number in range(LONGEST_ANSWER))),
    ],
    ids=["length", "filter", "refusal", "too long"],
)
async def test_an_answer_that_is_not_whole_is_not_kept(answer: Completion) -> None:
    """Nor one that refuses, or is too long; the same request asks anew."""
    house = _House(ScriptedProvider("up", answer, abilities=["messages", "options"]))
    assert [(await house.ask()).opening.cache_age for _ in range(2)] == [-1, -1]


@pytest.mark.parametrize("begun", [[], [Delta("Half of ")]], ids=["at once", "after a word"])
async def test_an_answer_that_fails_is_not_kept(begun: list[Delta]) -> None:
    """Neither an error nor what was said before it is given again."""
    provider = ScriptedProvider("up", [*begun, UpstreamUnavailable("Gone.")], abilities=["messages"])
    house = _House(provider)
    with pytest.raises(UpstreamUnavailable):
        await house.stream()
    provider.answer = Completion("Hello.")
    assert (await house.ask()).ending.completion.text == "Hello."


async def test_a_stream_that_is_left_is_not_kept() -> None:
    """What its client has heard of it is not the answer."""
    house = _House(ScriptedProvider("up", [Delta("Half of "), Delta("it.")], abilities=["messages"]))
    events = house.service.stream(_call(), ADA)
    async for event in events:
        if isinstance(event, Delta):
            break
    await events.aclose()
    assert (await house.ask()).opening.cache_age == -1


async def test_an_answer_to_a_part_of_the_conversation_is_not_kept() -> None:
    """There may be more room next time."""
    house = _House(ScriptedProvider("up", limit=PromptLimit(60)))
    messages = (Message("user", "x" * 50), Message("assistant", "y" * 50), *HELLO)
    openings = [(await house.ask(messages=messages)).opening for _ in range(2)]
    assert openings[0].prompt.dropped
    assert [opening.cache_age for opening in openings] == [-1, -1]


@pytest.mark.parametrize("what", ["upstream", "model"])
async def test_another_upstream_behind_the_same_name_answers_anew(what: str) -> None:
    """Its address, its account or what it calls the model has been changed: the old answer is another's."""
    house = _House()
    assert await house.text() == "Answer 1"
    [provider] = house.providers
    if what == "upstream":
        provider.identity = "another"
    else:
        provider.models = [replace(spec, upstream_id="another") for spec in provider.models]
    assert await house.text() == "Answer 2"
    assert await house.text() == "Answer 2"


async def test_only_those_who_may_answer_are_heard_again() -> None:
    """An answer of a model that the name no longer leads to is not given; another one that may answer is asked."""
    first, second = counting("first"), counting("second")
    house = _House(first, second)
    assert (await house.ask()).opening.provider == "first"
    house.registry.adopt([second], {"r": ModelRoute(("second-model",))})
    again = (await house.ask()).opening
    assert (again.provider, again.cache_age) == ("second", -1)


class _Away:
    """A store that can't be reached."""

    async def load(self, _: SnapshotKey) -> bytes | None:
        raise SessionStoreUnavailable("Away.")

    async def save(self, *_: object) -> None:
        raise SessionStoreUnavailable("Away.")


class _Damaged(_Away):
    """A store in which somebody else has written."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def load(self, _: SnapshotKey) -> bytes | None:
        return self._data


@pytest.mark.parametrize(
    "store",
    [_Away(), _Damaged(b"?"), _Damaged(b"\x01j{}"), _Damaged(b"")],
    ids=["away", "an unknown form", "no answer", "nothing"],
)
async def test_a_store_of_no_use_costs_no_answer(store: object) -> None:
    """Upstreams are asked then, as if nothing were kept."""
    house = _House(store=store)
    assert [await house.text(), await house.text()] == ["Answer 1", "Answer 2"]


@pytest.mark.parametrize("odd", ["\ud800", "李雷 🎉", "\0"], ids=ascii)
async def test_any_text_can_be_kept(odd: str) -> None:
    """Half characters too, in the request as in the answer."""
    house = _House(ScriptedProvider("up", Completion(odd), abilities=["messages"]))
    messages = (Message("user", odd),)
    assert [await house.text(messages=messages) for _ in range(2)] == [odd, odd]
    assert house.asked == 1


class _Native(ScriptedProvider):
    """An upstream of Anthropic's form."""

    kind: ClassVar[ApiKind | None] = "anthropic"


def _native(streamed: bool, **fields: object) -> NativeRequest:
    told = {"messages": HELLO[0].text, "stream": streamed, **fields}
    wire = {name: Raw(msgspec.json.encode(value)) for name, value in told.items()}
    return NativeRequest("anthropic", wire, HELLO, None, ())


async def test_an_answer_in_the_requests_own_form_is_given_again_in_it() -> None:
    """Whole as it came, streamed event by event; and every field of the body tells requests apart."""
    events = (NativeEvent("message_start", b'{"signature":"x"}'), NativeEvent("message_stop", b"{}"))
    provider = _Native("up", Completion("Hi.", native={"signature": "x"}), abilities=["messages", "tools"])
    house = _House(provider)
    await house.ask(native=_native(streamed=False))
    whole = await house.ask(native=_native(streamed=False))
    assert (whole.opening.native, whole.ending.completion.native) == (True, {"signature": "x"})
    provider.answer = [Delta("Hi.", native=events[:1]), Delta(native=events[1:])]
    await house.stream(native=_native(streamed=True))
    opening, *deltas, ending = await house.stream(native=_native(streamed=True))
    assert isinstance(opening, Opening)
    assert (opening.native, opening.cache_age) == (True, 0)
    assert _events(deltas) == events
    assert isinstance(ending, Ending)
    assert house.asked == 2
    different = replace(_native(streamed=True, cache="x"), headers={"anthropic-beta": "b"})
    assert (await house.stream(native=different))[0].cache_age == -1  # type: ignore[union-attr]


def _events(deltas: Sequence[Event]) -> tuple[NativeEvent, ...]:
    return tuple(event for delta in deltas if isinstance(delta, Delta) for event in delta.native)
