"""The rules of sessions: what a request means for what is remembered."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.chat import ChatCall, Message, SessionRef, ToolCall, Usage
from app.domain.conversation import (
    TASK,
    Action,
    LastTurn,
    Plan,
    Session,
    SessionRecord,
    fingerprint,
    is_full_history,
    mentions_task,
    plan,
    remember,
)
from app.domain.errors import SessionNotFound
from tests.domain.messages import assistant, system, tool, user
from tests.domain.strategies import UNTIMED

NOW = 1_000_000.0
REPLAY_SECONDS = 60.0
BY_HEADER = SessionRef("s1", "header")
BY_USER = SessionRef("s1", "user")
CALL = ChatCall("kimi", (user("Next"),), session=BY_HEADER)
HISTORY = (user("A"), assistant("B"), user("C"))
STORED_TURNS = (user("One"), assistant("Two"))
STORED = Session(
    id="s1",
    created_at=NOW - 500,
    updated_at=NOW - 10,
    system=(system("Stored."),),
    turns=STORED_TURNS,
    last_turn=LastTurn(
        fingerprint=fingerprint("kimi", (user("One"),)),
        idempotency_key="key-1",
        text="Two",
        finish_reason="length",
        usage=Usage(3, 4),
        prompt_size=20,
        dropped=0,
        shortened=0,
        at=NOW - 10,
    ),
)
NOTHING = SessionRecord()
SESSION = SessionRecord(STORED)
KEEPER = SessionRecord(STORED, client_keeps_history=True)
EXPIRED_KEEPER = SessionRecord(None, client_keeps_history=True)


def _plan(call: ChatCall, record: SessionRecord) -> Plan:
    return plan(call, record, now=NOW, replay_seconds=REPLAY_SECONDS)


@dataclass(frozen=True, slots=True)
class Rule:
    """A request, what is stored, and what becomes of them."""

    call: ChatCall
    record: SessionRecord
    action: Action
    messages: tuple[Message, ...]
    keeps_history: bool = False


RULES = {
    "the first turn": Rule(CALL, NOTHING, "new", (user("Next"),)),
    "the first turn with instructions": Rule(
        replace(CALL, messages=(system("S"), user("Next"))), NOTHING, "new", (system("S"), user("Next"))
    ),
    "a next turn": Rule(CALL, SESSION, "continued", (system("Stored."), *STORED_TURNS, user("Next"))),
    "a next turn by `user`": Rule(
        replace(CALL, session=BY_USER), SESSION, "continued", (system("Stored."), *STORED_TURNS, user("Next"))
    ),
    "a next turn with instructions of its own": Rule(
        replace(CALL, messages=(system("New."), user("Next"))),
        SESSION,
        "continued",
        (system("New."), *STORED_TURNS, user("Next")),
    ),
    "instructions after the turn": Rule(
        replace(CALL, messages=(user("Next"), system("New."))),
        SESSION,
        "continued",
        (system("New."), *STORED_TURNS, user("Next")),
    ),
    "a whole history at first": Rule(replace(CALL, messages=HISTORY), NOTHING, "new", HISTORY),
    "a whole history later": Rule(replace(CALL, messages=HISTORY), SESSION, "replaced", HISTORY),
    "a whole history by `user` at first": Rule(
        replace(CALL, messages=HISTORY, session=BY_USER), NOTHING, "new", HISTORY, keeps_history=True
    ),
    "a whole history by `user` later": Rule(
        replace(CALL, messages=HISTORY, session=BY_USER), SESSION, "replaced", HISTORY, keeps_history=True
    ),
    "a whole history of a client known to keep it": Rule(
        replace(CALL, messages=HISTORY), KEEPER, "replaced", HISTORY, keeps_history=True
    ),
    "a tool result is history": Rule(
        replace(CALL, messages=(user("A"), tool("R"))), SESSION, "replaced", (user("A"), tool("R"))
    ),
    "two user turns are history": Rule(
        replace(CALL, messages=(user("A"), user("B"))), SESSION, "replaced", (user("A"), user("B"))
    ),
    "a lone turn by `user` of a client that keeps history": Rule(
        replace(CALL, session=BY_USER), KEEPER, "new", (user("Next"),), keeps_history=True
    ),
    "the same after its session has expired": Rule(
        replace(CALL, session=BY_USER), EXPIRED_KEEPER, "new", (user("Next"),), keeps_history=True
    ),
    "a lone turn by header of a client that keeps history": Rule(
        CALL, KEEPER, "continued", (system("Stored."), *STORED_TURNS, user("Next")), keeps_history=True
    ),
    "a reset": Rule(replace(CALL, reset=True), SESSION, "reset", (user("Next"),)),
    "a reset of nothing": Rule(replace(CALL, reset=True), NOTHING, "reset", (user("Next"),)),
    "a reset with a whole history": Rule(replace(CALL, reset=True, messages=HISTORY), SESSION, "reset", HISTORY),
    "a reset with a whole history by `user`": Rule(
        replace(CALL, reset=True, messages=HISTORY, session=BY_USER), SESSION, "reset", HISTORY, keeps_history=True
    ),
    "a reset doesn't forget who keeps history": Rule(
        replace(CALL, reset=True, session=BY_USER), KEEPER, "reset", (user("Next"),), keeps_history=True
    ),
    "strict, and the session is there": Rule(
        replace(CALL, strict=True), SESSION, "continued", (system("Stored."), *STORED_TURNS, user("Next"))
    ),
    "strict with a reset": Rule(replace(CALL, strict=True, reset=True), NOTHING, "reset", (user("Next"),)),
    "strict with a whole history needs no session": Rule(
        replace(CALL, strict=True, messages=HISTORY), NOTHING, "new", HISTORY
    ),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_what_a_request_means_for_its_session(rule: Rule) -> None:
    """Every rule of sessions: what is reported, what is answered, and what is known of the client afterwards."""
    continued = rule.record.session if rule.action == "continued" else None
    assert _plan(rule.call, rule.record) == Plan(rule.action, rule.messages, None, rule.keeps_history, continued)


CALLS = (ToolCall("c1", "look", "{}"), ToolCall("c2", "look", "{}"))
CALLED = replace(STORED, turns=(user("One"), assistant("", *CALLS)))
RESULTS = (tool("R", "c1"), tool("S", "c2"))


@pytest.mark.parametrize("session", [BY_HEADER, BY_USER], ids=["by header", "by user"])
@pytest.mark.parametrize("record", [SessionRecord(CALLED), SessionRecord(CALLED, client_keeps_history=True)])
@pytest.mark.parametrize("sent", [RESULTS, RESULTS[:1], (*RESULTS, user("And?")), (system("Stored."), *RESULTS)])
def test_the_results_of_tools_continue_the_session_that_called_them(
    sent: tuple[Message, ...], record: SessionRecord, session: SessionRef
) -> None:
    """Results alone, or with the next user message, are added to the turn that called: question and call are known."""
    decided = _plan(replace(CALL, messages=sent, session=session), record)
    turns = tuple(message for message in sent if message.role != "system")
    assert (decided.action, decided.continued) == ("continued", CALLED)
    assert decided.messages == (system("Stored."), *CALLED.turns, *turns)


@pytest.mark.parametrize(
    ("sent", "record", "action"),
    [
        (RESULTS, SESSION, "replaced"),
        ((tool("R", "c1"), tool("S", "other")), SessionRecord(CALLED), "replaced"),
        ((tool("R"),), SessionRecord(CALLED), "replaced"),
        (RESULTS, NOTHING, "new"),
        ((*CALLED.turns, *RESULTS), SessionRecord(CALLED), "replaced"),
    ],
    ids=["no calls", "another call", "no id", "no session", "a whole history"],
)
def test_other_results_continue_nothing(sent: tuple[Message, ...], record: SessionRecord, action: Action) -> None:
    """Results of calls that the session's last turn didn't make are no part of it."""
    decided = _plan(replace(CALL, messages=sent), record)
    assert (decided.action, decided.messages) == (action, sent)


TITLE = "Write a title of at most five words for this conversation."
TASKS = {
    "a title": f"{TITLE} Reply with it only.\n\nUser: Which herbs go with tomatoes?\nAI: Basil.",
    "a title, asked last": "Here is a chat:\n**User**: Herbs?\n**Assistant**: Basil.\nGive the chat a short name.",
    "LibreChat": 'Detect user language and write a title.\n\n||>User:\n"Herbs?"\n||>Response:\n"Basil."\n\n||>Title:',
    "LibreChat, later": "Provide a concise title for the conversation.\n\nConversation:\nHerbs? Basil.",
    "tags": "### Task:\nGenerate 1-3 broad tags.\n<chat_history>\nUSER: Herbs?\nASSISTANT: Basil.\n</chat_history>",
    "Open WebUI's follow-ups": "### Task:\nSuggest 3-5 relevant follow-up questions.",
    "Open WebUI's completion": "### Task:\nYou are an autocompletion system. Continue the text in `<text>`."
    + " " * 600,
    "Dify's next questions": "Predict the three most likely questions.\nHuman: Herbs?\nAssistant: Basil.\nquestions:",
    "messages as JSON": 'Search queries for the last message: [{"role": "user", "content": "Herbs?"}]',
    "a title in Chinese": "为以下对话起一个简短的标题：\n用户：西红柿配什么香草？\n助手：罗勒。",
    "a long chat": f"{TITLE}\n<conversation>\n{'Herbs? ' * 500}\n</conversation>",
}


@UNTIMED
@given(st.from_regex(TASK))
def test_the_fast_look_for_a_task_misses_none(text: str) -> None:
    """Whatever the words are, in whatever case."""
    assert mentions_task(text)


@pytest.mark.parametrize("record", [NOTHING, SESSION, KEEPER])
@pytest.mark.parametrize("text", TASKS.values(), ids=TASKS.keys())
def test_what_is_asked_about_a_quoted_chat_is_no_turn_of_it(text: str, record: SessionRecord) -> None:
    """By `user`, a request for a title and the like sees nothing of what is remembered, and isn't remembered."""
    decided = _plan(replace(CALL, messages=(user(text),), session=BY_USER), record)
    assert (decided.action, decided.messages) == ("stateless", (user(text),))
    if record is SESSION:
        assert _plan(replace(CALL, messages=(user(text),)), record).action == "continued"


@pytest.mark.parametrize(
    "text",
    [
        "What is my secret word?",
        "Write a title for my essay about herbs.",
        "Give this conversation a title.",
        "Which tags does HTML have?",
        "Suggest some follow-up questions for my interview.",
        "This is our chat:\nUser: Herbs?\nAssistant: Basil.\nWhat do you make of it?",
        "### Task:\nSort these names.",
        "My name is Ada. " * 200,
    ],
)
def test_an_ordinary_message_is_a_turn(text: str) -> None:
    """A lone message by `user` continues the session, also one that asks for a title but quotes no conversation."""
    assert _plan(replace(CALL, messages=(user(text),), session=BY_USER), SESSION).action == "continued"


@pytest.mark.parametrize(
    ("instructions", "action"),
    [("Stored.", "continued"), ("Another step.", "stateless"), ("", "continued"), (None, "continued")],
)
def test_by_user_instructions_of_its_own_make_a_conversation_of_its_own(
    instructions: str | None, action: Action
) -> None:
    """A lone message under a system message that isn't the remembered one is no turn of the session."""
    given = () if instructions is None else (system(instructions),)
    decided = _plan(replace(CALL, messages=(*given, user("Next")), session=BY_USER), SESSION)
    assert decided.action == action


@pytest.mark.parametrize("record", [NOTHING, EXPIRED_KEEPER])
def test_strict_wants_no_new_session_in_place_of_an_old_one(record: SessionRecord) -> None:
    """A turn that relies on a session that isn't there is refused if the client asked for that."""
    with pytest.raises(SessionNotFound):
        _plan(replace(CALL, strict=True), record)


@pytest.mark.parametrize(
    ("messages", "full"),
    [
        ((user("A"),), False),
        ((system("S"), user("A")), False),
        ((system("S"), user("A"), system("T")), False),
        ((user("A"), user("B")), True),
        ((assistant("A"),), True),
        ((user("A"), assistant("B")), True),
        ((assistant("A"), user("B")), True),
        ((tool("R"),), False),
        ((tool("R"), tool("S"), user("B")), False),
        ((system("S"), tool("R")), False),
        ((tool("R"), user("B"), user("C")), True),
        ((tool("R"), user("B"), tool("S")), True),
        ((user("A"), tool("R")), True),
        ((system("S"),), True),
        (HISTORY, True),
    ],
)
def test_a_history_is_told_from_a_turn(messages: tuple[Message, ...], full: bool) -> None:
    """One user message, or tools' results before at most one, is a turn; all that shows earlier ones is a history."""
    assert is_full_history(messages) is full


SAME_TURN = replace(CALL, messages=(user("One"),))
REPLAYS = {
    "counted as a retry": (replace(SAME_TURN, is_retry=True), 10.0, True),
    "the same idempotency key": (replace(SAME_TURN, idempotency_key="key-1"), 10.0, True),
    "both": (replace(SAME_TURN, idempotency_key="key-1", is_retry=True), 10.0, True),
    "at the last moment": (replace(SAME_TURN, is_retry=True), REPLAY_SECONDS, True),
    "a moment too late": (replace(SAME_TURN, is_retry=True), REPLAY_SECONDS + 0.001, False),
    "too late by key": (replace(SAME_TURN, idempotency_key="key-1"), REPLAY_SECONDS + 0.001, False),
    "another key": (replace(SAME_TURN, idempotency_key="key-2"), 10.0, False),
    "the same turn said anew": (SAME_TURN, 10.0, False),
    "a retry of another turn": (replace(CALL, is_retry=True), 10.0, False),
    "the same key for another turn": (replace(CALL, idempotency_key="key-1"), 10.0, False),
    "another model": (replace(SAME_TURN, model="other", is_retry=True), 10.0, False),
    "other instructions": (replace(SAME_TURN, messages=(system("S"), user("One")), is_retry=True), 10.0, False),
    "a retried reset": (replace(SAME_TURN, reset=True, is_retry=True), 10.0, True),
    "a retried strict turn": (replace(SAME_TURN, strict=True, is_retry=True), 10.0, True),
}


@pytest.mark.parametrize(("call", "age", "replayed"), REPLAYS.values(), ids=REPLAYS.keys())
def test_a_request_that_is_sent_again_gets_the_same_answer(call: ChatCall, age: float, replayed: bool) -> None:
    """The same turn, retried or with the same key, is answered from the stored reply for a while; nothing else is."""
    last = replace(STORED.last_turn, at=NOW - age)
    decided = _plan(call, SessionRecord(replace(STORED, last_turn=last)))
    assert decided.replay == (last if replayed else None)
    assert (decided.action == "replayed") is replayed


def test_no_key_is_not_the_same_key() -> None:
    """Two requests without an idempotency key are two requests."""
    stored = replace(STORED, last_turn=replace(STORED.last_turn, idempotency_key=None))
    assert _plan(SAME_TURN, SessionRecord(stored)).action == "continued"


def test_a_replay_keeps_what_is_known_of_the_client() -> None:
    """A retried history still tells that the client keeps its own."""
    last = replace(STORED.last_turn, fingerprint=fingerprint("kimi", HISTORY))
    record = SessionRecord(replace(STORED, last_turn=last), client_keeps_history=True)
    decided = _plan(replace(CALL, messages=HISTORY, is_retry=True), record)
    assert (decided.action, decided.client_keeps_history) == ("replayed", True)


@pytest.mark.parametrize(
    "other",
    [
        (user("B"),),
        (system("A"),),
        (user("A", "Alice"),),
        (user("A"), user("")),
        (user(""), user("A")),
        (assistant("A"),),
        (Message("user", "A", tool_call_id="c"),),
        (Message("user", "A", tool_calls=(ToolCall("c", "look", "{}"),)),),
        (),
    ],
)
def test_different_requests_have_different_fingerprints(other: tuple[Message, ...]) -> None:
    """Whatever a message consists of is part of what makes a request the same one."""
    assert fingerprint("kimi", other) != fingerprint("kimi", (user("A"),))


def test_the_same_request_has_the_same_fingerprint() -> None:
    """The fingerprint depends on what is said only, is no way back to it, and can be taken of any text."""
    said = (user("secret words \ud83d"), assistant("", ToolCall("c", "look", "{}")))
    copied = (user("secret words \ud83d"), assistant("", ToolCall("c", "look", "{}")))
    assert fingerprint("kimi", said) == fingerprint("kimi", copied) != fingerprint("other", said)
    assert "secret" not in fingerprint("kimi", said)


def _remember(call: ChatCall, decided: Plan, answer: str, max_characters: int = 1000) -> Session:
    return remember(
        call,
        decided,
        assistant(answer),
        last_turn=replace(STORED.last_turn, text=answer, at=NOW),
        created_at=NOW - 500,
        max_characters=max_characters,
    )


def test_an_answered_turn_is_remembered_with_its_answer() -> None:
    """The session after a turn is the conversation that was answered, then the answer, and what a retry needs."""
    decided = Plan("continued", (system("S"), *STORED_TURNS, user("Next")))
    assert _remember(CALL, decided, "Three") == Session(
        id="s1",
        created_at=NOW - 500,
        updated_at=NOW,
        system=(system("S"),),
        turns=(*STORED_TURNS, user("Next"), assistant("Three")),
        last_turn=replace(STORED.last_turn, text="Three", at=NOW),
    )


def test_a_session_reads_in_the_order_of_a_prompt() -> None:
    """All messages of a session: the instructions, then the turns; its size is that of all of them."""
    call = ToolCall("c", "look", "{12}")
    session = replace(STORED, turns=(user("жжж"), assistant("", call)))
    assert session.messages == (system("Stored."), user("жжж"), assistant("", call))
    assert session.characters == len("Stored.") + len("жжж") + len("look{12}")


@pytest.mark.parametrize(
    ("max_characters", "turns"),
    [
        (30, ("a" * 10, "b" * 10, "c" * 5, "d" * 5)),
        (29, ("b" * 10, "c" * 5, "d" * 5)),
        (20, ("b" * 10, "c" * 5, "d" * 5)),
        (19, ("c" * 5, "d" * 5)),
        (9, ("d" * 5,)),
        (1, ("d" * 5,)),
    ],
)
def test_the_oldest_turns_of_a_long_session_go(max_characters: int, turns: tuple[str, ...]) -> None:
    """A session that grows too large loses its oldest turns, no more than needed, and never the latest answer."""
    decided = Plan("continued", (user("a" * 10), assistant("b" * 10), user("c" * 5)))
    session = _remember(CALL, decided, "d" * 5, max_characters)
    assert tuple(message.text for message in session.turns) == turns


def test_instructions_outlive_the_turns() -> None:
    """Trimming leaves the system prompt, which counts towards the size, in place."""
    decided = Plan("continued", (system("s" * 10), user("a" * 10), assistant("b" * 10), user("c" * 5)))
    session = _remember(CALL, decided, "d" * 5, 30)
    assert session.system == (system("s" * 10),)
    assert session.turns == (assistant("b" * 10), user("c" * 5), assistant("d" * 5))
    assert session.characters == 30


def test_another_idempotency_key_is_another_request() -> None:
    """The same words under a new key are meant: an SDK's retry count doesn't turn them into a repetition."""
    again = replace(CALL, messages=(user("One"),), idempotency_key="key-2", is_retry=True)
    assert _plan(again, SESSION).action == "continued"
