"""A session lived through at random: whatever happens, it remembers exactly what was said."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from app.domain.chat import ChatCall, Message, SessionRef, Usage
from app.domain.conversation import LastTurn, Plan, SessionRecord, fingerprint, plan, remember
from tests.domain.messages import assistant, system, user

_REPLAY_SECONDS = 60.0
_words = st.text(max_size=6)


class SessionLife(RuleBasedStateMachine):
    """A client and its session, next to a plain list of what they have said."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.session = SessionRef("s1", "header")
        self.record = SessionRecord()
        self.said: list[Message] = []
        self.instructions: list[Message] = []
        self.last_call: ChatCall | None = None
        self.last_answer = ""
        self.answered_at = 0.0

    @initialize(by_user=st.booleans())
    def choose_id(self, by_user: bool) -> None:
        """The id comes by header or by `user`; that makes a difference only for clients that keep histories."""
        self.session = SessionRef("s1", "user" if by_user else "header")

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds

    @rule(text=_words, instruction=st.none() | _words, answer=_words)
    def say(self, text: str, instruction: str | None, answer: str) -> None:
        """One more turn is sent, and answered; by `user`, other instructions make it no turn of the session."""
        given = [] if instruction is None else [system(instruction)]
        call = ChatCall("kimi", (*given, user(text)), session=self.session)
        if self.session.source == "user" and self.said and instruction and given != self.instructions:
            assert self._plan(call).action == "stateless"
            return
        decided = self._answer(call, answer)
        assert decided.action == ("continued" if self.said else "new")
        self.instructions = given or self.instructions
        self.said += [user(text), assistant(answer)]

    @rule(text=_words)
    def fail(self, text: str) -> None:
        """One more turn is sent, but no answer comes: nothing is remembered."""
        self._plan(ChatCall("kimi", (user(text),), session=self.session))

    @precondition(lambda self: self.last_call is not None)
    @rule()
    def send_again(self) -> None:
        """The latest request comes again, as a retry: while its answer is fresh, that is the answer."""
        assert self.last_call is not None
        decided = self._plan(replace(self.last_call, is_retry=True))
        fresh = self.now - self.answered_at <= _REPLAY_SECONDS
        assert (decided.action == "replayed") is fresh
        assert (decided.replay.text if decided.replay else None) == (self.last_answer if fresh else None)

    @rule(text=_words, answer=_words)
    def start_over(self, text: str, answer: str) -> None:
        """A reset begins with nothing but its own turn."""
        decided = self._answer(ChatCall("kimi", (user(text),), session=self.session, reset=True), answer)
        assert decided.action == "reset"
        self.instructions = []
        self.said = [user(text), assistant(answer)]

    @rule()
    def expire(self) -> None:
        """The session is forgotten."""
        self.record = SessionRecord(None, self.record.client_keeps_history)
        self.said, self.instructions, self.last_call = [], [], None

    @invariant()
    def remembers_what_was_said(self) -> None:
        """The transcript is what was said, each turn once and in order, under the latest instructions."""
        stored = self.record.session
        assert list(stored.turns if stored else ()) == self.said
        assert list(stored.system if stored else ()) == self.instructions

    def _plan(self, call: ChatCall) -> Plan:
        return plan(call, self.record, now=self.now, replay_seconds=_REPLAY_SECONDS)

    def _answer(self, call: ChatCall, answer: str) -> Plan:
        decided = self._plan(call)
        assert decided.messages[-1] == call.messages[-1]
        last_turn = LastTurn(
            fingerprint=fingerprint(call.model, call.messages),
            idempotency_key=None,
            text=answer,
            finish_reason="stop",
            usage=Usage(1, 1),
            prompt_size=1,
            dropped=0,
            shortened=0,
            at=self.now,
        )
        session = remember(
            call, decided, assistant(answer), last_turn=last_turn, created_at=self.now, max_characters=10**6
        )
        self.record = SessionRecord(session, decided.client_keeps_history)
        self.last_call, self.last_answer, self.answered_at = call, answer, self.now
        return decided


class HistoryLife(SessionLife):
    """A client that mixes lone turns with whole histories, under an id that it gives by header."""

    @initialize(by_user=st.just(False))
    def choose_id(self, by_user: bool) -> None:
        """The id comes by header."""
        super().choose_id(by_user)

    @rule(edited=_words, text=_words, answer=_words)
    def send_history(self, edited: str, text: str, answer: str) -> None:
        """The client sends a conversation of its own: from then on that is the truth."""
        history = (user(edited), assistant("…"), user(text))
        decided = self._answer(ChatCall("kimi", history, session=self.session), answer)
        assert decided.action == ("replaced" if self.said else "new")
        self.instructions = []
        self.said = [*history, assistant(answer)]


_SETTINGS = settings(
    deadline=None, max_examples=60, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_session_remembers_exactly_what_was_said() -> None:
    """After any order of turns, failures, retries, resets and expiry the transcript is what was said, once."""
    run_state_machine_as_test(SessionLife, settings=_SETTINGS)


def test_a_history_sent_by_the_client_replaces_what_was_remembered() -> None:
    """The same with whole histories in between, which take the place of the transcript and are then continued."""
    run_state_machine_as_test(HistoryLife, settings=_SETTINGS)
