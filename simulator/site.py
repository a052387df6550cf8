"""The state of the simulated site: nonces, visitors, behaviour, counters and the messages received. No HTTP.

The server's thread changes it while a test's thread reads and steers it, hence one lock around everything.
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from simulator.answers import compose_answer
from simulator.api_desk import ApiDesk
from simulator.behaviour import CHALLENGES, Behaviour, merge

ACTION: Final = "kimi_send_message"
MODELS: Final = ("moonshotai/Kimi-K2-Instruct-0905", "moonshotai/Kimi-K2-Instruct")
KEPT_MESSAGES: Final = 1000
Script = Callable[[str], str]
"""What the site answers to a prompt. Pure and quick: it runs in the server's event loop."""
EVERYBODY: Final = ""
"""Owner of the nonce that all visitors share while nonces are not bound to cookies."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened since the start or the last reset.

    `failures` are messages that met the failure knob; `refused_nonce` those that the nonce check itself
    refused; `abandoned` those whose client left before the answer, whatever it would have been.
    """

    pages: int = 0
    messages: int = 0
    accepted: int = 0
    refused_nonce: int = 0
    failures: int = 0
    abandoned: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as logged, without its nonce. `outcome` is `in_flight` until it is known."""

    message: str
    model: str
    session_id: str
    characters: int
    outcome: str
    user_agent: str
    cookies: tuple[str, ...]
    """Names of the cookies that came along."""


@dataclass(frozen=True, slots=True)
class Post:
    """A message as it arrives. A missing form field is an empty text."""

    action: str = ""
    nonce: str = ""
    message: str = ""
    model: str = ""
    session_id: str = ""
    user_agent: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What becomes of a message: a failure knob's name, or else the site's own verdict."""

    ticket: int
    behaviour: Behaviour
    failure: str | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page fetch gets: a nonce, the cookies to set, and the failure that it meets, if any."""

    nonce: str
    behaviour: Behaviour
    failure: str | None
    cookies: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Nonce:
    value: str
    issued_at: float


class Site:
    """One simulated site. All methods may be called from any thread."""

    def __init__(self, behaviour: Behaviour | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._behaviour = behaviour or Behaviour()
        self._script: Script = compose_answer
        self._nonces: dict[str, _Nonce] = {}
        self._expired_nonce: str | None = None
        self._issued: set[str] = set()
        self._clearances: set[str] = set()
        self._page_user_agents: set[str] = set()
        self._counters = Counters()
        self._tickets = count()
        self._in_flight: set[int] = set()
        self._messages: dict[int, ReceivedMessage] = {}
        self.api = ApiDesk()

    @property
    def behaviour(self) -> Behaviour:
        """The knobs as they stand now; failure times and stale pages count down in it."""
        with self._changed:
            return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        with self._changed:
            self._behaviour = behaviour

    def reply_to(self, prompt: str) -> str:
        """What is answered to a message: the knob `reply`, or else what the script makes of it."""
        with self._changed:
            fixed, script = self._behaviour.reply, self._script
        return script(prompt) if fixed is None else fixed

    def play(self, script: Script) -> None:
        """Let a script answer from now on, until the next one or a reset."""
        with self._changed:
            self._script = script

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        with self._changed:
            return self._counters

    @property
    def messages(self) -> tuple[ReceivedMessage, ...]:
        """The last messages received, oldest first."""
        with self._changed:
            return tuple(self._messages.values())

    @property
    def issued_nonces(self) -> frozenset[str]:
        """Every nonce ever handed out, valid or not: none of them may show up in a log."""
        with self._changed:
            return frozenset(self._issued)

    def update(self, **knobs: Any) -> None:
        """Change some knobs. Raises ValueError on a bad one."""
        self.merge(knobs)

    def merge(self, changes: object) -> None:
        """Change the knobs that a JSON object names. Raises ValueError if it is none, or on a bad knob."""
        with self._changed:
            self._behaviour = merge(self._behaviour, changes)

    def rotate(self) -> str:
        """Make all nonces stale at once; return the new one that visitors share."""
        with self._changed:
            if self._nonces:
                self._expired_nonce = next(reversed(self._nonces.values())).value
            self._nonces.clear()
            return self._current_nonce(EVERYBODY)

    def reset(self) -> None:
        """Default behaviour, zero counters, empty log. What visitors hold (nonces, cookies) stays valid."""
        with self._changed:
            self._behaviour = Behaviour()
            self._script = compose_answer
            self._counters = Counters()
            self._messages.clear()
            self.api.reset()
            self.forget_in_flight()

    def forget_in_flight(self) -> None:
        """Stop following the messages under way, so that a server that stops doesn't count them as abandoned."""
        with self._changed:
            self._in_flight.clear()
            self._tally()

    def wait_for(self, condition: Callable[[Counters], bool], timeout_s: float = 10.0) -> bool:
        """Block until the counters meet `condition`; False if they didn't in time. Not for event loops."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._counters), timeout_s)

    def visit(self, *, cookies: Mapping[str, str], user_agent: str, cacheable: bool) -> Visit:
        """A page fetch. `cacheable` says that the URL had no query string, so that a page cache may answer."""
        with self._changed:
            self._tally(pages=1)
            self._page_user_agents.add(user_agent)
            failure = self._take_failure("page_failure")
            visitor = cookies.get("kimi_visitor") or secrets.token_hex(16)
            new = {"kimi_visitor": visitor} | self._clearance(cookies, failure)
            return Visit(
                nonce=self._nonce_for_page(visitor, cacheable=cacheable and failure is None),
                behaviour=self._behaviour,
                failure=failure,
                cookies={name: value for name, value in new.items() if cookies.get(name) != value},
            )

    def receive(self, post: Post) -> Receipt:
        """A message arrives: log it and decide what becomes of it. To be followed by `finish` or `abandon`."""
        with self._changed:
            behaviour = self._behaviour
            passes = behaviour.failure in CHALLENGES and self._is_cleared(post.cookies)
            failure = None if passes else self._take_failure("failure")
            verdict = failure or self._judge(post)
            ticket = next(self._tickets)
            self._in_flight.add(ticket)
            self._log(ticket, post, "in_flight" if verdict == "accepted" else verdict)
            self._tally(
                messages=1,
                failures=int(failure is not None),
                refused_nonce=int(verdict == "nonce_refused" and not failure),
            )
            return Receipt(ticket, behaviour, failure, verdict)

    def take_api_failure(self) -> tuple[Behaviour, str | None]:
        """How a request to the OpenAI API is to be treated."""
        with self._changed:
            behaviour = self._behaviour
            return behaviour, self._take_failure("api_failure")

    def finish(self, receipt: Receipt) -> None:
        """The answer is about to be complete."""
        accepted = receipt.verdict == "accepted"
        self._close(receipt, receipt.verdict, accepted=int(accepted))

    def abandon(self, receipt: Receipt) -> None:
        """The client left before its answer."""
        self._close(receipt, "abandoned", abandoned=1)

    def _close(self, receipt: Receipt, outcome: str, **more: int) -> None:
        with self._changed:
            if receipt.ticket not in self._in_flight:
                return
            self._in_flight.remove(receipt.ticket)
            logged = self._messages.get(receipt.ticket)
            if logged is not None:
                self._messages[receipt.ticket] = replace(logged, outcome=outcome)
            self._tally(**more)

    def _tally(self, **more: int) -> None:
        """Add to the counters, bring those of messages under way up to date, and wake who waits for them."""
        under_way = len(self._in_flight)
        sums = {name: getattr(self._counters, name) + number for name, number in more.items()}
        most = max(self._counters.max_in_flight, under_way)
        self._counters = replace(self._counters, in_flight=under_way, max_in_flight=most, **sums)
        self._changed.notify_all()

    def _log(self, ticket: int, post: Post, outcome: str) -> None:
        self._messages[ticket] = ReceivedMessage(
            message=post.message,
            model=post.model,
            session_id=post.session_id,
            characters=len(post.message),
            outcome=outcome,
            user_agent=post.user_agent,
            cookies=tuple(sorted(post.cookies)),
        )
        if len(self._messages) > KEPT_MESSAGES:
            del self._messages[next(iter(self._messages))]

    def _judge(self, post: Post) -> str:
        """What the site itself makes of a message; the first check that objects decides."""
        knobs = self._behaviour
        checks = {
            "unknown_visitor": knobs.require_same_user_agent and post.user_agent not in self._page_user_agents,
            "unknown_action": post.action != ACTION,
            "nonce_refused": not self._is_valid(post),
            "empty": not post.message.strip(),
            "too_long": 0 < knobs.char_limit < len(post.message),
            "invalid_model": not knobs.any_model and post.model not in MODELS,
        }
        return next((name for name, objects in checks.items() if objects), "accepted")

    def _is_valid(self, post: Post) -> bool:
        nonce = self._nonces.get(self._owner(post.cookies.get("kimi_visitor", "")))
        return (
            nonce is not None
            and nonce.value == post.nonce
            and not self._is_expired(nonce)
            and not self._behaviour.nonces_never_valid
        )

    def _owner(self, visitor: str) -> str:
        return visitor if self._behaviour.require_cookie else EVERYBODY

    def _is_expired(self, nonce: _Nonce) -> bool:
        return self._clock() - nonce.issued_at >= self._behaviour.nonce_lifetime_s

    def _is_cleared(self, cookies: Mapping[str, str]) -> bool:
        return self._behaviour.challenge_cleared_by_page and cookies.get("cf_clearance") in self._clearances

    def _clearance(self, cookies: Mapping[str, str], failure: str | None) -> dict[str, str]:
        if failure or not self._behaviour.challenge_cleared_by_page or self._is_cleared(cookies):
            return {}
        clearance = secrets.token_hex(16)
        self._clearances.add(clearance)
        return {"cf_clearance": clearance}

    def _nonce_for_page(self, visitor: str, *, cacheable: bool) -> str:
        if cacheable and self._behaviour.stale_pages:
            self._behaviour = replace(self._behaviour, stale_pages=self._behaviour.stale_pages - 1)
            # Until one has expired, the cached page is from before this site's start.
            self._expired_nonce = self._expired_nonce or self._new_nonce()
            return self._expired_nonce
        return self._current_nonce(self._owner(visitor))

    def _current_nonce(self, owner: str) -> str:
        nonce = self._nonces.get(owner)
        if nonce is None or self._is_expired(nonce):
            self._expired_nonce = nonce.value if nonce else self._expired_nonce
            nonce = self._nonces[owner] = _Nonce(self._new_nonce(), self._clock())
        return nonce.value

    def _new_nonce(self) -> str:
        value = secrets.token_hex(5)
        self._issued.add(value)
        return value

    def _take_failure(self, knob: str) -> str | None:
        """The failure that the knob asks for, counting down its times and switching it off after the last."""
        failure: str | None = getattr(self._behaviour, knob)
        times: int | None = getattr(self._behaviour, f"{knob}_times")
        if failure and times is not None:
            left: dict[str, Any] = {f"{knob}_times": times - 1} if times > 1 else {knob: None, f"{knob}_times": None}
            self._behaviour = replace(self._behaviour, **left)
        return failure
