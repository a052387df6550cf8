"""Several keys of one upstream: which one a call is made with, and what happens to one that is refused."""

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from app.domain.errors import (
    GatewayError,
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from app.domain.relay import Payload, RelayHead
from app.providers.anthropic.provider import AnthropicProvider
from app.providers.api_upstream.accounts import SET_ASIDE, Account, Accounts, chosen
from app.providers.api_upstream.provider import ApiProvider
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import CompletionRequest, RelayRequest
from app.providers.gemini.provider import GeminiProvider
from app.providers.http import HttpClient
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.resilience.breaker import BreakerPolicy
from app.providers.resilience.guard import Guard
from app.providers.resilience.limits import Bulkhead, RetryBudget, RetryPolicy
from tests.clock import Clock
from tests.providers.openai_compatible.upstream import (
    DONE,
    MODEL,
    RawUpstream,
    delta,
    event,
    make_guard,
    provider_at,
    raw_upstream,
    reply,
    stream,
    wanted,
)

KEYS = {"ACME_API_KEY 1": "sk-first-0a1b2c3d", "ACME_API_KEY 2": "sk-second-4e5f6a7b"}
FIRST, SECOND = KEYS.values()
MESSAGE = {"role": "assistant", "content": "Hi"}
ANSWER = reply({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]})
STREAM = stream(delta(content="Hi"), delta(finish_reason="stop"), DONE)
MODELS = reply({"data": [{"id": "vendor-m"}]})


def _refusal(status: str, message: str, **headers: str) -> Sequence[bytes]:
    return reply({"error": {"message": message}}, status, **headers)


WRONG_KEY = _refusal("401 Unauthorized", f"Incorrect API key provided: {SECOND}.")
FORBIDDEN = _refusal("403 Forbidden", "You may not use this.")
NO_QUOTA = _refusal("429 Too Many Requests", "You exceeded your current quota: insufficient_quota")
LIMITED = _refusal("429 Too Many Requests", "Slow down.", Retry_After="30")
LIMITED_LONG = _refusal("429 Too Many Requests", "Slow down.", Retry_After="90")


def _guard(clock: Clock) -> Guard:
    return Guard(
        bulkhead=Bulkhead(slots=10, queue_size=10, queue_timeout=20),
        breaker=BreakerPolicy(minimum_calls=2),
        retry=RetryPolicy(retries=0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=20.0,
        clock=clock,
    )


def _accounts(clock: Clock, count: int = 3) -> list[Account[str]]:
    """Keys whose sender is the key itself."""
    guard = _guard(clock)
    return [Account("acme", f"KEY {place}", f"sk-{place}", f"sk-{place}", guard) for place in range(1, count + 1)]


def test_a_key_that_may_not_list_models_goes_on_answering(clock: Clock) -> None:
    """What it may do with models isn't known from that."""
    account, *_ = _accounts(clock)
    forbidden = UpstreamKeyRejected("no")
    forbidden.concerns_all_models = False
    account.refuse("", forbidden)
    assert not account.is_set_aside("m")


def test_a_failing_key_is_known_before_the_upstream_counts_as_failing() -> None:
    """Of calls that go to each in turn a part is enough to judge one."""
    guard = Guard(
        bulkhead=Bulkhead(slots=10, queue_size=10, queue_timeout=20),
        breaker=BreakerPolicy(minimum_calls=20),
        retry=RetryPolicy(retries=0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=20.0,
    )
    account = Account("acme", "KEY", "sk-1", "sk-1", guard, of=2)
    for _ in range(5):
        with pytest.raises(UpstreamUnavailable), account.call("m"):
            raise UpstreamUnavailable("no")
    assert account.is_failing


# ── The choice ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_least_busy_key_is_taken(clock: Clock) -> None:
    """Of equally busy ones the one that has rested longest."""
    first, second, third = accounts = _accounts(clock)
    first.calls, second.calls = 2, 1
    assert chosen(accounts) is third
    third.calls, second.turn, third.turn = 1, 5, 4
    assert chosen(accounts) is third
    third.turn = 6
    assert chosen(accounts) is second


def test_a_conversation_keeps_its_key(clock: Clock) -> None:
    """The same on each worker, whatever the order of the keys; all keys have their share, and nobody else's
    conversations move when a key drops out."""
    accounts, others = _accounts(clock), _accounts(clock)[::-1]
    names = [f"alice\ns{number}\n1" for number in range(300)]
    own = {name: chosen(accounts, name) for name in names}
    assert [account.name for account in own.values()] == [chosen(others, name).name for name in names]
    shares = Counter(account.name for account in own.values())
    assert len(shares) == 3
    assert min(shares.values()) > 50
    dropped, *rest = accounts
    assert all(chosen(rest, name) is account for name, account in own.items() if account is not dropped)


def test_a_conversation_leaves_a_key_that_is_clearly_busier(clock: Clock) -> None:
    """Two calls more are borne for the cache's sake, three are not."""
    accounts = _accounts(clock)
    own = chosen(accounts, "talk")
    own.calls = 2
    assert chosen(accounts, "talk") is own
    own.calls = 3
    assert chosen(accounts, "talk") is not own


def test_a_key_that_keeps_failing_is_the_last_choice(clock: Clock) -> None:
    """Until it is time for a probe; if all fail, one is taken all the same."""
    first, second = accounts = _accounts(clock, 2)
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable), first.call("m"):
            raise UpstreamUnavailable("Down.")
    second.calls = 5
    assert chosen(accounts) is second
    assert Accounts(accounts).details == {"keys_failing": "KEY 1"}
    assert chosen([first]) is first
    clock.now += 5
    assert chosen(accounts) is first
    with first.call("m"):  # the probe: one at a time
        assert chosen(accounts) is second
    assert chosen(accounts) is first
    assert Accounts(accounts).details == {}


@pytest.mark.parametrize("error", [UpstreamKeyRejected("No."), UpstreamQuotaExhausted("No.")])
async def test_a_key_is_set_aside_for_ten_minutes(clock: Clock, error: UpstreamError) -> None:
    """Then it is tried again; and sooner if all are set aside, the one first that has waited longest."""
    accounts = Accounts(_accounts(clock))
    refused = {"sk-1", "sk-2"}
    asked: list[str] = []

    async def ask(sender: str) -> str:
        asked.append(sender)
        if sender in refused:
            raise error
        return sender

    assert await accounts.run(ask, model="m") == "sk-3"
    assert await accounts.run(ask, model="m") == "sk-3"
    assert asked == ["sk-1", "sk-2", "sk-3", "sk-3"]
    clock.now += SET_ASIDE / 2
    refused.add("sk-3")
    for expected in ("sk-3", "sk-1", "sk-2", "sk-3"):
        asked.clear()
        clock.now += 1
        with pytest.raises(type(error)):
            await accounts.run(ask, model="m", conversation_id="talk")
        assert asked == [expected]
    refused.clear()
    assert await accounts.run(ask, model="m") == "sk-1"
    asked.clear()
    assert [await accounts.run(ask, model="m") for _ in range(2)] == ["sk-1", "sk-1"]
    clock.now += SET_ASIDE
    assert {await accounts.run(ask, model="m") for _ in range(3)} == {"sk-1", "sk-2", "sk-3"}


async def test_a_call_from_before_a_refusal_does_not_end_it(clock: Clock) -> None:
    """A long answer that ends well says nothing of a quota that has run out meanwhile."""
    (account,) = _accounts(clock, 1)
    with account.call("m"):
        account.refuse("m", UpstreamQuotaExhausted("Spent."))
    assert account.is_set_aside("m")
    with account.call("m"):
        pass
    assert not account.is_set_aside("m")


async def test_a_refusal_keeps_nothing_in_memory(clock: Clock) -> None:
    """When a call is over, its errors are gone, and the request that they refer to, without the garbage collector."""
    refusals: list[weakref.ref[UpstreamError]] = []

    def refusal() -> UpstreamError:
        error = UpstreamKeyRejected("No.")
        refusals.append(weakref.ref(error))
        return error

    async def refuse(_: str) -> None:
        raise refusal()

    async def refused_stream(_: str) -> AsyncGenerator[str, None]:
        raise refusal()
        yield ""

    gc.disable()
    try:
        accounts = Accounts(_accounts(clock))
        with pytest.raises(UpstreamKeyRejected):
            await accounts.run(refuse, model="m")
        with pytest.raises(UpstreamKeyRejected):
            await anext(accounts.stream(refused_stream, model="m"))
        assert [found for one in refusals if (found := one()) is not None] == []
    finally:
        gc.enable()


def test_what_is_known_of_made_up_models_is_bounded(clock: Clock) -> None:
    """Clients may ask for any; what stops all models is kept."""
    (account,) = _accounts(clock, 1)
    account.refuse("", UpstreamKeyRejected("No."))
    forbidden = UpstreamKeyRejected("Not this one.")
    forbidden.concerns_all_models = False
    for number in range(1000):
        account.refuse(f"m{number}", forbidden)
        account.pause(f"m{number}", UpstreamRateLimited("Later.", retry_after=5))
    assert account.is_set_aside("another")
    assert account.standing_refusal("m0") is None
    assert account.standing_refusal("m999") is not None


# ── Over a socket ────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def _two_keys(
    first: Sequence[Sequence[bytes]], second: Sequence[Sequence[bytes]], guard: Guard | None = None
) -> AsyncGenerator[tuple[OpenAICompatibleProvider, RawUpstream]]:
    """A provider with two keys, and its upstream, which answers so to each."""
    async with raw_upstream() as upstream:
        upstream.by_key = {FIRST: list(first), SECOND: list(second)}
        async with provider_at(upstream.base_url, guard=guard, key=FIRST, keys=KEYS) as provider:
            yield provider, upstream


async def _ask(provider: OpenAICompatibleProvider, how: str, request: CompletionRequest | None = None) -> str:
    """What the answer says, requested in one of the three ways."""
    if how == "whole":
        return (await provider.create_completion(request or wanted())).text
    if how == "stream":
        return "".join([part.text async for part in provider.stream_completion(request or wanted())])
    parts = provider.relay(_relayed(Payload(b"{}")))
    head = await anext(parts)
    assert isinstance(head, RelayHead)
    return "Hi" if b"Hi" in b"".join([part async for part in parts if isinstance(part, bytes)]) else ""


def _relayed(payload: Payload, *, retries: bool = False) -> RelayRequest:
    deadline = asyncio.get_running_loop().time() + 20
    return RelayRequest(MODEL, "/embeddings", "input", payload, "alice", deadline, retries, lambda _: None)


WAYS = pytest.mark.parametrize("how", ["whole", "stream", "relay"])


@WAYS
@pytest.mark.parametrize(
    ("refusal", "fact", "logged"),
    [
        (WRONG_KEY, "keys_refused", "upstream_key_rejected"),
        (FORBIDDEN, "keys_refused", "upstream_key_rejected"),
        (NO_QUOTA, "keys_without_quota", "upstream_quota_exhausted"),
        (LIMITED, "keys_paused", ""),
    ],
    ids=["wrong key", "forbidden", "no quota", "limited"],
)
async def test_the_same_call_goes_on_with_another_key(
    how: str, refusal: Sequence[bytes], fact: str, logged: str
) -> None:
    """The client notices nothing; the refused key is named, never shown, and not used again."""
    answer = STREAM if how == "stream" else ANSWER
    async with _two_keys([refusal], [answer]) as (provider, upstream):
        with capture_logs() as lines:
            assert [await _ask(provider, how) for _ in range(3)] == ["Hi"] * 3
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND, SECOND, SECOND]
        status = provider.status()
    assert status.ready
    assert status.details == {"breaker": "closed", fact: "ACME_API_KEY 1"}
    told = [line for line in lines if line["event"] == "upstream.key_set_aside"]
    assert [(line["key"], line["error"], line["log_level"]) for line in told] == (
        [("ACME_API_KEY 1", logged, "warning")] if logged else []
    )
    assert not any(key in str(lines) for key in KEYS.values())


@WAYS
async def test_a_refused_key_is_no_failure_of_all(how: str) -> None:
    """With all keys refused the error is that of a single key, names the one that was asked last, and hides all."""
    async with _two_keys([WRONG_KEY], [WRONG_KEY]) as (provider, upstream):
        for count in (2, 3, 4):  # then one request for each call, as with a single key
            with pytest.raises(UpstreamKeyRejected) as raised:
                await _ask(provider, how)
            assert len(upstream.requests) == count
        details = provider.status().details
    assert raised.value.message == "acme rejects the gateway's key (ACME_API_KEY 2) with HTTP 401."
    assert details["keys_refused"] == "ACME_API_KEY 1, ACME_API_KEY 2"


@pytest.mark.parametrize("kind", [AnthropicProvider, GeminiProvider])
async def test_each_form_of_api_has_several_keys(kind: type[ApiProvider]) -> None:
    """Each sends the key in its own header."""
    async with raw_upstream() as raw:
        raw.by_key = {FIRST: [WRONG_KEY], SECOND: [FORBIDDEN]}
        client = HttpClient(max_reply_bytes=10_000, keep_cookies=False)
        upstream = Upstream("acme", raw.base_url, key=FIRST, keys=KEYS, models=(MODEL,))
        provider = kind(upstream, client=client, guard=make_guard(), max_reply_bytes=10_000)
        await provider.start()
        with pytest.raises(UpstreamKeyRejected):
            await provider.create_completion(wanted())
        await provider.aclose()
    assert [sent.key for sent in raw.requests] == [FIRST, SECOND]


async def test_an_error_shows_none_of_the_keys() -> None:
    """Not the key of another account either, which an upstream might quote."""
    quoting = _refusal("400 Bad Request", f"Seen {FIRST} and {SECOND} before.")
    async with _two_keys([quoting], [quoting]) as (provider, _):
        with pytest.raises(GatewayError) as raised:
            await _ask(provider, "whole")
    assert FIRST not in raised.value.message
    assert SECOND not in raised.value.message


@WAYS
async def test_with_all_keys_limited_the_shortest_pause_counts(how: str, clock: Clock) -> None:
    """Until then nothing is sent, and then only with the key whose pause is over."""
    answer = STREAM if how == "stream" else ANSWER
    async with _two_keys([LIMITED_LONG, answer], [LIMITED, answer], _guard(clock)) as (provider, upstream):
        for seconds, requests in ((30, 2), (29, 2)):
            with pytest.raises(UpstreamRateLimited) as raised:
                await _ask(provider, how)
            assert (raised.value.retry_after, len(upstream.requests)) == (seconds, requests)
            clock.now += 1
        clock.now += 28
        assert await _ask(provider, how) == "Hi"
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND, SECOND]
        clock.now += 60
        assert [await _ask(provider, how) for _ in range(2)] == ["Hi", "Hi"]
        assert {sent.key for sent in upstream.requests[3:]} == {FIRST, SECOND}


async def test_a_limit_and_a_refusal_make_a_limit() -> None:
    """The 429 says when there is hope."""
    async with _two_keys([LIMITED], [WRONG_KEY]) as (provider, _):
        with pytest.raises(UpstreamRateLimited) as raised:
            await _ask(provider, "whole")
    assert raised.value.retry_after == 30


async def test_a_key_may_lack_a_permission_for_one_model() -> None:
    """It goes on with the others."""
    other = CompletionRequest(model=replace(MODEL, upstream_id="other"), prompt=wanted().prompt, caller_id="alice")
    async with _two_keys([FORBIDDEN, ANSWER], [ANSWER]) as (provider, upstream):
        await _ask(provider, "whole")
        await _ask(provider, "whole", other)
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND, FIRST]
        assert provider.status().details["keys_refused"] == "ACME_API_KEY 1"


async def test_other_errors_stay_with_their_key() -> None:
    """What the upstream says of the request, or of itself, another key wouldn't change."""
    bad = _refusal("400 Bad Request", "Unknown field.")
    async with _two_keys([bad], [ANSWER]) as (provider, upstream):
        with pytest.raises(GatewayError, match="Unknown field"):
            await _ask(provider, "whole")
        assert len(upstream.requests) == 1


async def test_nothing_moves_after_the_first_word() -> None:
    """The error ends the stream; its pause is the key's alone, so the next call has the other one."""
    limited = event({"error": {"message": "Rate limit reached, try again in 20s", "code": 429}})
    async with _two_keys([stream(delta(content="Hi"), limited)], [STREAM]) as (provider, upstream):
        parts = provider.stream_completion(wanted())
        assert (await anext(parts)).text == "Hi"
        with pytest.raises(UpstreamRateLimited):
            await anext(parts)
        assert await _ask(provider, "stream") == "Hi"
        assert await _ask(provider, "stream") == "Hi"
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND, SECOND]


async def test_a_key_that_is_limited_in_its_stream_keeps_nobody_waiting_for_longer_than_the_others(
    clock: Clock,
) -> None:
    """With all keys limited, the model pauses until the first of them may be used, and not until that one may."""
    limited = event({"error": {"message": "Rate limit reached, try again in 90s", "code": 429}})
    keys = [stream(delta(content="Hi"), limited), ANSWER], [LIMITED, ANSWER]
    async with _two_keys(*keys, _guard(clock)) as (provider, upstream):
        parts = provider.stream_completion(wanted())
        assert (await anext(parts)).text == "Hi"
        assert await _ask(provider, "whole") == "Hi"
        with pytest.raises(UpstreamRateLimited) as raised:
            await anext(parts)
        assert raised.value.retry_after == 30
        clock.now += 31
        assert await _ask(provider, "whole") == "Hi"
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND, FIRST, SECOND]


@pytest.mark.parametrize(
    "other", [{"base_url": "https://b.test/v1"}, {"key": SECOND}, {"keys": KEYS}, {"headers": {"a": "b"}}]
)
def test_an_upstream_is_known_by_its_address_and_its_keys(other: dict[str, Any]) -> None:
    """Not by what it is called, nor by its models; and nothing secret can be read from it."""

    def identity(**fields: Any) -> str:
        upstream = Upstream(**{"name": "acme", "base_url": "https://a.test/v1", "key": FIRST, **fields})
        client = HttpClient(max_reply_bytes=10_000, keep_cookies=False)
        return OpenAICompatibleProvider(upstream, client=client, guard=make_guard(), max_reply_bytes=1).identity

    assert identity() == identity(name="b", models=(MODEL,)) != identity(**other)
    assert FIRST not in identity()


@pytest.mark.parametrize("retries", [False, True])
async def test_an_upload_moves_only_if_it_can_be_sent_again(*, retries: bool) -> None:
    """The refusal of its key is then its end, and holds for nobody else."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"{}"

    upload = Payload(pieces=pieces, length=2, content_type="application/octet-stream")
    async with _two_keys([LIMITED], [ANSWER]) as (provider, upstream):
        parts = provider.relay(_relayed(upload, retries=retries))
        if retries:
            assert isinstance(await anext(parts), RelayHead)
        else:
            with pytest.raises(UpstreamRateLimited):
                await anext(parts)
        await parts.aclose()
        assert await _ask(provider, "relay") == "Hi"
        assert upstream.requests[-1].key == SECOND


async def test_sessions_keep_their_keys() -> None:
    """Each turn of a session has the key of the first, stream or not; calls without one take turns."""
    async with _two_keys([ANSWER], [ANSWER]) as (provider, upstream):
        for name in ("a", "b", "c", "d", "e", "f"):
            upstream.requests.clear()
            for _ in range(3):
                await _ask(provider, "whole", wanted(conversation_id=f"alice\n{name}\n1"))
                await _ask(provider, "stream", wanted(conversation_id=f"alice\n{name}\n1"))
            assert len({sent.key for sent in upstream.requests}) == 1
        upstream.requests.clear()
        for _ in range(4):
            await _ask(provider, "whole")
        assert Counter(sent.key for sent in upstream.requests) == {FIRST: 2, SECOND: 2}


async def test_calls_at_once_are_shared_out() -> None:
    """A key that is answering counts as busy, until its call is over or its client leaves."""
    async with _two_keys([ANSWER], [ANSWER]) as (provider, upstream):
        open_streams = [provider.stream_completion(wanted()) for _ in range(4)]
        for parts in open_streams:
            await anext(parts)
        assert Counter(sent.key for sent in upstream.requests) == {FIRST: 2, SECOND: 2}
        await open_streams[0].aclose()
        await open_streams[2].aclose()
        gone = upstream.requests[0].key
        upstream.requests.clear()
        again = [provider.stream_completion(wanted()) for _ in range(2)]
        for parts in again:
            await anext(parts)
        assert [sent.key for sent in upstream.requests] == [gone, gone]
        for parts in (*open_streams, *again):
            await parts.aclose()


async def test_a_trial_tries_all_keys() -> None:
    """It names the one that is refused; one that works again is used again at once."""
    async with _two_keys([MODELS], [WRONG_KEY, MODELS]) as (provider, upstream):
        with pytest.raises(UpstreamKeyRejected, match="ACME_API_KEY 2"):
            await provider.connect()
        assert [sent.key for sent in upstream.requests] == [FIRST, SECOND]
        assert provider.status().details["keys_refused"] == "ACME_API_KEY 2"
        await provider.connect()
        assert "keys_refused" not in provider.status().details


async def test_the_list_of_models_is_read_with_a_key_that_works() -> None:
    """The first one being refused takes no models away."""
    async with raw_upstream() as upstream:
        upstream.by_key = {FIRST: [WRONG_KEY], SECOND: [MODELS]}
        async with provider_at(upstream.base_url, key=FIRST, keys=KEYS, models=(), discover=True) as provider:
            await provider.prepare()
            assert [spec.id for spec in provider.models] == ["vendor-m"]
