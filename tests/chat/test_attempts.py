"""Which targets are asked for an answer, in which order, for how long, and for what."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.chat.attempts import Attempt, attempts, reminded
from app.chat.call_log import CallLog
from app.chat.session import CallSession, SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import PLAIN_TEXT, ChatCall, Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.emulation.schema import Checks, SchemaCompiler
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.prompt import MessagePrompt, PromptLimit, TextPrompt
from app.providers.base import Ability
from app.providers.registry import Target
from app.sessions.memory import MemorySessionStore
from tests.loops import in_leaping_time
from tests.scripted import ROOM, ScriptedProvider

LONG = "y" * 200
ASKED = Message("user", "And?")
BIG_CALL = Message("assistant", "", tool_calls=(ToolCall("c", "f", f'{{"a":"{LONG}"}}'),))
TOOLS = ToolUse((Tool("look", parameters={"type": "object"}),))
ANY_JSON = OutputFormat("json_object")


def _target(
    name: str, limit: PromptLimit = ROOM, abilities: tuple[Ability, ...] = (), timeout: float = 100.0
) -> Target:
    provider = ScriptedProvider(name, limit=limit, abilities=abilities)
    provider.timeout = timeout
    return Target(provider, provider.models[0])


class _Compiler(SchemaCompiler):
    """Counts how often it is asked."""

    times = 0

    def checks(self, tools: Sequence[Tool], output_format: OutputFormat) -> Checks:
        self.times += 1
        return super().checks(tools, output_format)


class _Attempts:
    """All attempts at an answer to messages, made one after the other."""

    def __init__(self, targets: list[Target], *messages: Message, **fields: Any) -> None:
        call = ChatCall("r", messages, **fields)
        caller = Caller("alice")
        store = MemorySessionStore(max_sessions=1, time_to_live=60, lock_wait=1)
        self.log = CallLog(call, caller, targets[0], ())
        session = CallSession(store, SessionPolicy(), call, caller)
        self.compiler = _Compiler()
        self.coming = attempts(call, caller.id, targets, session, self.log, compiler=self.compiler)

    def __next__(self) -> Attempt:
        return next(self.coming)

    def names(self) -> list[str]:
        """Of the providers that are asked."""
        return [attempt.target.provider.name for attempt in self.coming]

    def one(self) -> Attempt:
        """The only one."""
        (attempt,) = self.coming
        return attempt


@pytest.mark.parametrize(
    ("small", "message"),
    [
        (_target("small", PromptLimit(100)), Message("assistant", LONG)),
        (_target("small", PromptLimit(40, "tokens"), ("messages",)), Message("assistant", LONG)),
        (_target("small", PromptLimit(40, "tokens"), ("messages", "tools")), BIG_CALL),
    ],
    ids=["shortened", "many-tokens", "a-long-call"],
)
async def test_who_takes_all_of_it_is_asked_first(small: Target, message: Message) -> None:
    """A target that could take only a part, or more than fits, is asked after all that take the whole conversation."""
    large = _target("large")
    long = _Attempts([small, large], message, ASKED)
    assert long.names() == ["large", "small"]
    assert long.log.passed_over == [("small", "context_length_exceeded")]
    short = _Attempts([small, large], ASKED)
    assert (short.names(), short.log.passed_over) == (["small", "large"], [])
    alone = _Attempts([small], message, ASKED)
    assert (alone.names(), alone.log.passed_over) == (["small"], [])


async def test_who_can_not_take_it_at_all_is_only_noted() -> None:
    """If nobody can, the note is what the client is told."""
    tiny, blind = _target("tiny", PromptLimit(3)), _target("blind")
    picture = Message("user", "[image]", parts=(Image("data:,", "messages[0].content[0]"),))
    nobody = _Attempts([tiny, blind], picture)
    assert nobody.names() == []
    assert nobody.log.passed_over == [("tiny", "unfit"), ("blind", "unfit")]
    refusal = nobody.log.refusal()
    assert isinstance(refusal, InvalidRequest)
    assert refusal.param == "messages[0].content[0]"
    too_long = _Attempts([tiny], ASKED)
    assert too_long.names() == []
    assert isinstance(too_long.log.refusal(), ContextTooLong)


async def test_a_schema_is_looked_at_only_by_whom_it_has_to_be_asked_for_in_words() -> None:
    """A model that keeps to schemas by itself gets them as they come; others are passed over for one they can't use."""
    native = _target("native", abilities=("messages", "json_schema"))
    wanted = OutputFormat("json_schema", {"type": "objekt"})
    asked = _Attempts([_target("text"), native], ASKED, output_format=wanted)
    attempt = asked.one()
    assert asked.log.passed_over == [("text", "unfit")]
    assert (attempt.target, attempt.emulator, attempt.request.output_format) == (native, None, wanted)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "objekt"}])
async def test_schemas_are_compiled_once_for_all_targets(schema: dict[str, object]) -> None:
    """Those that can be used and those that can't; for a model that takes them by itself, not at all."""
    wanted = OutputFormat("json_schema", schema)
    targets = [_target("one"), _target("two"), _target("three")]
    asked = _Attempts(targets, ASKED, tools=TOOLS, output_format=wanted)
    assert len(asked.names()) + len(asked.log.passed_over) == 3
    assert asked.compiler.times == 1
    native = _target("native", abilities=("messages", "tools", "json_schema"))
    asked = _Attempts([native], ASKED, tools=TOOLS, output_format=wanted)
    assert (asked.names(), asked.compiler.times) == (["native"], 0)


async def test_a_model_is_asked_for_what_it_can_do() -> None:
    """Each of its abilities brings it a part of the call; what it lacks is emulated, or comes to nothing."""
    fields: dict[str, Any] = {
        "tools": TOOLS,
        "output_format": ANY_JSON,
        "options": {"seed": 1},
        "stop": ("END",),
        "max_tokens": 7,
    }
    able = _target("able", abilities=("messages", "options", "tools", "json_object"))
    everything = _Attempts([able], ASKED, **fields).one()
    request = everything.request
    assert (request.tools, request.output_format, request.options) == (TOOLS, ANY_JSON, {"seed": 1})
    assert (request.stop, request.max_tokens, request.caller_id) == (("END",), 7, "alice")
    assert (everything.emulator, everything.limiter) == (None, None)
    emulated = _Attempts([_target("text")], ASKED, **fields).one()
    request = emulated.request
    assert (request.tools, request.output_format, request.options, request.stop) == (None, PLAIN_TEXT, {}, ())
    assert emulated.emulator is not None
    assert emulated.limiter is not None


async def test_a_provider_finds_text_and_messages_in_either_case() -> None:
    """A conversation goes out in the form that the model takes, and can be read in the other."""
    history = (Message("user", "Hi"), Message("assistant", "Yes?"), ASKED)
    as_text = _Attempts([_target("text")], *history).one().request
    assert isinstance(as_text.prompt, TextPrompt)
    assert as_text.prompt.text == "[User]: Hi\n[Assistant]: Yes?\n[User]: And?"
    assert as_text.messages == (Message("user", as_text.prompt.text),)
    as_messages = _Attempts([_target("native", abilities=("messages",))], *history).one().request
    assert isinstance(as_messages.prompt, MessagePrompt)
    assert as_messages.messages == history
    assert as_messages.prompt.text == "user: Hi\nassistant: Yes?\nuser: And?"


def test_each_leaves_half_of_the_time_to_those_behind_it() -> None:
    """All have the time of the most patient one; only the last one may use it up, and none has more than its own."""

    async def work() -> None:
        now = asyncio.get_running_loop().time
        began = now()
        asked = _Attempts([_target("a"), _target("b", timeout=10), _target("c", timeout=80), _target("d")], ASKED)
        first = next(asked).request
        await asyncio.sleep(20)
        second, third = next(asked).request, next(asked).request
        await asyncio.sleep(30)
        last = next(asked).request
        assert [request.deadline for request in (first, second, third, last)] == [
            began + 50,
            began + 30,
            began + 60,
            began + 100,
        ]
        assert [request.retries for request in (first, second, third, last)] == [False, False, False, True]

    in_leaping_time(work())


@pytest.mark.parametrize(("others", "share"), [(0, 100.0), (1, 50.0)], ids=["alone", "with another behind it"])
@pytest.mark.parametrize("abilities", [(), ("messages",)])
def test_who_is_asked_once_more_has_the_time_of_once(others: int, share: float, abilities: tuple[Ability, ...]) -> None:
    """Asking a target once more, for a reply of the right form, takes nothing from those behind it."""

    async def work() -> None:
        began = asyncio.get_running_loop().time()
        targets = [_target(name, abilities=abilities) for name in "ab"[: 1 + others]]
        attempt = next(_Attempts(targets, ASKED, output_format=ANY_JSON))
        await asyncio.sleep(20)
        again = reminded(attempt, "Hm.", "JSON, please.")
        assert attempt.request.deadline == again.request.deadline == began + share

    in_leaping_time(work())


async def test_who_takes_messages_is_reminded_of_its_reply() -> None:
    """The reply and the reminder are two further messages; an empty reply, which upstreams may refuse, is none."""
    attempt = _Attempts([_target("native", abilities=("messages",))], ASKED, output_format=ANY_JSON).one()
    again = reminded(attempt, "Hm.", "JSON, please.")
    first = attempt.request.messages
    assert again.request.messages == (*first, Message("assistant", "Hm."), Message("user", "JSON, please."))
    assert again.request.prompt.size > attempt.request.prompt.size
    assert reminded(attempt, " \n", "Please.").request.messages == (*first, Message("user", "Please."))


async def test_who_takes_text_is_reminded_within_its_instructions() -> None:
    """The conversation is composed anew with the reminder; where there is no room for that, it can't be asked again."""
    attempt = _Attempts([_target("text")], Message("user", "Hi"), ASKED, output_format=ANY_JSON).one()
    first, again = attempt.request.prompt, reminded(attempt, "Hm.", "JSON, please.").request.prompt
    assert isinstance(again, TextPrompt)
    assert again.text == first.text.replace("\n[User]: And?", "\nJSON, please.\n[User]: And?")
    tight = _Attempts([_target("text", PromptLimit(first.size))], Message("user", "Hi"), ASKED, output_format=ANY_JSON)
    with pytest.raises(ContextTooLong):
        reminded(tight.one(), "Hm.", "No. " * 100)


def test_several_answers_are_asked_of_those_who_can_give_them() -> None:
    """Neither a model that answers text only nor one whose calls are made up for gives several; the error says so."""

    async def asked() -> tuple[list[tuple[str, int]], Exception]:
        able, text = _target("api", abilities=("messages", "tools")), _target("site")
        coming = _Attempts([text, able], ASKED, n=2).coming
        emulated = _Attempts([_target("plain", abilities=("messages",))], ASKED, n=2, tools=TOOLS)
        assert not emulated.names()
        return [(found.target.provider.name, found.request.n) for found in coming], emulated.log.refusal()

    asked_for, refusal = asyncio.run(asked())
    assert asked_for == [("api", 2)]
    assert isinstance(refusal, InvalidRequest)
    assert (refusal.param, refusal.code) == ("n", "unsupported_value")
