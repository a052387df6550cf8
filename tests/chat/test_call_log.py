"""What is noted of a call, and what the client is told when nobody answers."""

import asyncio
from contextlib import suppress
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from app.api.relay.bodies import JsonBody
from app.chat.call_log import CallLog
from app.chat.events import Ending
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, Message, SessionRef, ToolCall, Usage
from app.domain.conversation import SessionKey
from app.domain.errors import (
    ContextTooLong,
    GatewayError,
    GatewayOverloaded,
    InternalError,
    InvalidRequest,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.domain.limits import read_limits
from app.domain.prompt import Prompt, PromptLimit, message_prompt, text_prompt
from app.domain.relay import RelayCall
from app.domain.usage import CallRecord
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.store import MemoryStore
from app.providers.registry import Target
from tests.scripted import ScriptedProvider
from tests.taken_texts import TakenTexts

CALL = ChatCall("r", (Message("user", "Hello"),))
LIMIT = PromptLimit(100)
PROMPT = text_prompt("Hello", 5, LIMIT, dropped=2)
ENDING = Ending(Completion("Hi."), Usage(3, 4))


def _target(name: str) -> Target:
    provider = ScriptedProvider(name)
    return Target(provider, provider.models[0])


FIRST, SECOND = _target("first"), _target("second")


class _Told:
    """Who takes records and texts."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.texts = TakenTexts()

    def log(self, call: ChatCall = CALL, target: Target = FIRST) -> CallLog:
        """Notes of a call that are handed in here."""
        return CallLog(call, Caller("alice"), target, [self.records.append], [self.texts])

    @property
    def record(self) -> CallRecord:
        """The only one."""
        (record,) = self.records
        return record


def test_a_completed_call_is_recorded_with_all_that_is_known() -> None:
    """Who answered in the end, what was sent, what it took, and what became of the others."""
    told = _Told()
    with told.log(replace(CALL, session=SessionRef("s", "user"))) as log:
        log.action = "continued"
        log.target, log.prompt = FIRST, text_prompt("Hello", 99, LIMIT)
        log.pass_over(FIRST, UpstreamTimeout("Slow."))
        log.target, log.prompt = SECOND, PROMPT
        log.answered()
        log.ending = ENDING
        assert not told.records
    record = told.record
    assert record.upstream_seconds is not None
    assert 0 <= record.upstream_seconds <= record.seconds
    assert replace(record, seconds=0.0, upstream_seconds=0.0) == CallRecord(
        caller_id="alice",
        model="second-model",
        provider="second",
        outcome="completed",
        error_code=None,
        action="continued",
        prompt_size=5,
        dropped=2,
        usage=Usage(3, 4),
        seconds=0.0,
        upstream_seconds=0.0,
        session=SessionKey("alice", "s").digest,
        passed_over=(("first", "upstream_timeout"),),
        project="environment",
        asked_model=CALL.model,
        served_model="second-model",
        charged=Usage(3, 4),
        prompt_limit=LIMIT,
    )


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (UpstreamUnavailable("Down."), "failed", "upstream_unavailable"),
        (InvalidRequest("No."), "failed", "invalid_request_error"),
        (ValueError("A fault of ours."), "failed", "internal_error"),
        (asyncio.CancelledError(), "abandoned", None),
        (GeneratorExit(), "abandoned", None),
    ],
)
def test_a_call_that_ends_early_is_recorded_as_far_as_it_came(
    error: BaseException, outcome: str, code: str | None
) -> None:
    """Failed or left by its client, it has a record, and the error goes on to whoever waits for it."""
    told = _Told()
    with pytest.raises(type(error)), told.log():
        raise error
    record = told.record
    assert (record.outcome, record.error_code, record.provider) == (outcome, code, "first")
    unknown = (record.action, record.prompt_size, record.dropped, record.usage, record.upstream_seconds, record.session)
    assert unknown == (None,) * 6


def test_a_call_counts_at_the_time_at_which_its_quotas_let_it_in() -> None:
    """The ledger writes it into the day whose quota it has used."""

    async def work() -> None:
        told = _Told()
        leases = Leases(MemoryStore(ZoneInfo("UTC")))
        limiter = Limiter(
            LimitBook(read_limits("5 requests/day for first*, 5 requests/day for second*")), leases, LimiterPolicy()
        )
        with told.log() as log:
            log.admission = await limiter.admit(CALL, Caller("alice"), "first", "first-model")
        assert log.admission is not None
        assert told.record.began == log.admission.at > 1_000_000_000
        told = _Told()
        with told.log() as log:
            log.fallback = await limiter.at_fallback(CALL, Caller("alice"), ("second", "second-model"), ("first",), 0)
        assert log.fallback is not None
        assert told.record.began == log.fallback.at > 1_000_000_000
        await leases.aclose()

    asyncio.run(work())


def test_a_model_that_nobody_has_listed_has_no_name_in_records() -> None:
    """Names that clients make up don't become labels of metrics."""
    told = _Told()
    with told.log(target=Target(FIRST.provider, replace(FIRST.spec, id="made-up", listed=False))):
        pass
    assert told.record.model == "unlisted"


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        (PROMPT, "Hello"),
        (
            message_prompt((Message("system", "Be brief."), Message("user", "Hello")), LIMIT),
            "system: Be brief.\nuser: Hello",
        ),
    ],
)
def test_texts_are_told_to_whom_may_know(prompt: Any, sent: str) -> None:
    """What was sent, in whatever form, and what came back: of a stream that broke off, what had been said."""
    told = _Told()
    with told.log() as log:
        log.target, log.prompt = FIRST, prompt
        log.ending = ENDING
    with suppress(UpstreamTimeout), told.log() as log:
        log.target, log.prompt = FIRST, prompt
        log.deltas += [Delta("Half "), Delta(reasoning="Hm."), Delta("of")]
        raise UpstreamTimeout("Slow.")
    assert told.texts.sent == [(sent, "Hi."), (sent, "Half of")]


def test_nothing_was_sent_in_a_call_that_sent_nothing() -> None:
    """Neither in one that failed before, nor in one that was answered from memory; what was asked is told."""
    told = _Told()
    with told.log():
        pass
    with told.log() as log:
        log.target, log.prompt = FIRST, Prompt(size=5, limit=LIMIT, tokens=2)
        log.ending = ENDING
    assert len(told.records) == 2
    assert [(one.prompt, one.answer.text) for one in told.texts.taken] == [(None, ""), (None, "Hi.")]
    with CallLog(CALL, Caller("alice"), FIRST, [told.records.append]) as log:
        log.target, log.prompt = FIRST, PROMPT
    assert len(told.records) == 3


def test_texts_are_taken_of_those_whose_texts_are_wanted_and_nobody_else() -> None:
    """With the record of their call, what the client sent, and its answer with its tool calls."""
    texts, nobody = TakenTexts(("alice",)), TakenTexts(())
    ending = Ending(Completion("", tool_calls=(ToolCall("1", "look", "{}"),)), Usage(3, 4))
    for caller in ("alice", "bob"):
        with CallLog(CALL, Caller(caller), FIRST, (), [nobody, texts]) as log:
            log.prompt, log.ending = PROMPT, ending
    (taken,) = texts.taken
    assert (taken.record.caller_id, taken.asked, taken.prompt, taken.answer) == (
        "alice",
        CALL.messages,
        PROMPT,
        ending.completion,
    )
    assert not nobody.taken


DOWN, SLOW = UpstreamUnavailable("Down."), UpstreamTimeout("Slow.")
BUSY, SPENT = GatewayOverloaded("Busy.", retry_after=1), GatewayOverloaded("Spent.", retry_after=20_000)
LONG, UNFIT = ContextTooLong("Too long."), InvalidRequest("No images.")


@pytest.mark.parametrize(
    ("errors", "refusal"),
    [
        ([LONG], LONG),
        ([LONG, DOWN], DOWN),
        ([DOWN, LONG], DOWN),
        ([UNFIT, LONG], LONG),
        ([DOWN, SLOW], SLOW),
        ([LONG, DOWN, UNFIT, SLOW, LONG], SLOW),
        ([BUSY, SPENT, SPENT], BUSY),
        ([SPENT, BUSY], BUSY),
        ([GatewayOverloaded("Full."), BUSY], BUSY),
        ([DOWN, SPENT], DOWN),
    ],
)
def test_an_upstreams_trouble_says_more_than_a_lack_of_room(errors: list[GatewayError], refusal: GatewayError) -> None:
    """The client is told of the latest trouble; only if there was none, of what the request is too much for.

    Of several upstreams without room, it is told of the one that has some first, and so when to come again.
    """
    log = _Told().log()
    for error in errors:
        log.pass_over(FIRST, error)
    assert log.refusal() is refusal
    assert [reason for _, reason in log.passed_over] == [error.code or "unfit" for error in errors]


@pytest.mark.parametrize(("known", "told"), [(None, "4000 characters"), ("8192 tokens", "8192 tokens")])
def test_what_is_too_long_is_told_with_the_models_limit(known: str | None, told: str) -> None:
    """In OpenAI's sentence, whoever noticed it; who knows the limit better has told it already."""
    log = _Told().log()
    log.pass_over(FIRST, ContextTooLong("Too long.", limit=known))
    assert log.refusal().message == f"This model's maximum context length is {told}. Too long."


def test_a_refusal_leads_nowhere() -> None:
    """It has no traceback, which would keep the call alive, and the log lets go of it; without one it is our fault."""
    log = _Told().log()
    try:
        raise UpstreamUnavailable("Down.")
    except UpstreamUnavailable as error:
        log.pass_over(FIRST, error)
    assert log.refusal().__traceback__ is None
    assert isinstance(log.refusal(), InternalError)


def test_waits_of_all_attempts_are_added_up() -> None:
    """By step, and told however the call ends; a call that waited for nothing has none."""
    told = _Told()
    log = told.log()
    log.note_wait("queue", 1.0)
    log.note_wait("nonce", 0.5)
    log.note_wait("queue", 0.25)
    log.__exit__(UpstreamTimeout, UpstreamTimeout("Slow."), None)
    with told.log():
        pass
    assert [record.waits for record in told.records] == [{"queue": 1.25, "nonce": 0.5}, None]


def test_whoever_leaves_a_request_that_is_passed_on_pays_for_what_was_asked() -> None:
    """Once its answer has begun; before that for nothing."""
    told = _Told()
    said: Any = {"prompt_tokens": 7, "unit": "characters", "amount": 12}
    call = RelayCall("m", "embeddings", "/embeddings", "input", JsonBody({}), **said)
    for has_begun in (True, False):
        with suppress(asyncio.CancelledError), CallLog(call, Caller("alice"), FIRST, [told.records.append]) as log:
            if has_begun:
                log.answered()
            raise asyncio.CancelledError
    assert [record.charged for record in told.records] == [
        Usage(7, 0, estimated=True, unit="characters", amount=12),
        None,
    ]


async def test_a_permit_comes_back_though_nobody_takes_the_record() -> None:
    """Whoever takes records may fail; the next call must not wait for that one for ever."""

    def fail(_: CallRecord) -> None:
        raise OverflowError

    leases = Leases(MemoryStore(ZoneInfo("UTC")))
    limiter = Limiter(LimitBook(read_limits("1 at once")), leases, LimiterPolicy(wait=0))
    with suppress(OverflowError), CallLog(CALL, Caller("alice"), FIRST, [fail]) as log:
        log.admission = await limiter.admit(CALL, Caller("alice"), "first", "r")
    assert await limiter.admit(CALL, Caller("alice"), "first", "r") is not None
    await leases.aclose()
