"""What a session remembers, and what a request means for it. Pure: stores and locks are elsewhere.

The messages that the client sent always win; memory only fills in what was not sent; nothing is added twice.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import ChatCall, FinishReason, Message, ToolCall, Usage
from app.domain.errors import SessionNotFound

# What is asked for on behalf of a chat: a title, tags, the next questions, a search query, the rest of what is typed.
TASK = re.compile(
    r"\b(?:t[ií]t(?:le|el|re|ulo)s?|(?:a|the|short) name|name (?:for|this|the)|(?:hash)?tags?|topics?|keywords?"
    r"|follow[- ]?ups?|autocomplet\w{1,5}|queries|search query|emoji|suggestions"
    r"|(?:next|likely|relevant|suggested|more) (?:[\w-]{1,12} ){0,2}questions?)\b"
    r"|[标標][题題]|主[题題]|[标標][签籤]|命名|起名|[关關][键鍵][词詞]|(?:后续|後續|追|下一?个|相关|推荐)(?:问题|問題|问)",
    re.IGNORECASE,
)
# Every match of it has one of these in it, for speed: the search takes microseconds for each ten words.
_TASK_STEMS = (
    *("tit", "tít", "name", "tag", "topic", "keyword", "follow", "autocomplet", "quer", "emoji", "suggestions"),
    *("question", "标", "標", "主", "名", "关", "關", "问", "問"),
)
# How a conversation is quoted: in tags, with the speaker's name before the words, as JSON, or under its own name.
_QUOTED_CONVERSATION = re.compile(
    r"<(?:chat|conversation|history|messages?|transcript|dialogue?)(?:[_ -]?\w{1,12})?>"
    r"|^[ \t>|*#\[(-]{0,9}(?:(?:user|human|assistant|ai|bot|chatbot|response|customer)"
    r"(?: (?:input|query|message|question|response|\d{1,3}))?|用户|使用者|助手|助理|人类"
    r"|(?:(?:here(?:['’]s| is) )?the )?(?:conversation|chat history|messages|transcript|dialogue?)|对话|聊天记录)"
    r"[*\])]{0,3}[ \t]?[:：]"
    r"|[\"']role[\"'][ \t]?:[ \t]?[\"'](?:user|assistant)",
    re.IGNORECASE | re.MULTILINE,
)
# Well-known apps' tasks that quote no conversation in such a way: Open WebUI's, Jan's.
_TASK_OF_AN_APP = re.compile(
    r"\s{0,9}(?:### Task:\s{1,9}(?:Generate (?:a concise|\d)|Suggest \d|Analyze the chat|You are an autocompletion)"
    r"|Your task is to reflect the speaker's likely facial expression|Summarize in a \d{1,2}-word Title\."
    r"|You have been provided with a set of responses from various models)",
    re.IGNORECASE,
)
# Where in a message a task stands: at its beginning or its end.
# What the digest of a session begins with.
DIGEST_PREFIX = "session-"
SHORT_TEXT = 600

Action = Literal["new", "continued", "replaced", "replayed", "reset", "stateless"]


class SessionKey(Struct, frozen=True, cache_hash=True):
    """Where a session is kept: no caller can reach another caller's session by guessing its id."""

    caller_id: str
    session_id: str

    @property
    def digest(self) -> str:
        """Stands for the key where a session's id, often an e-mail address, must not appear."""
        text = f"{self.caller_id}\n{self.session_id}"
        return DIGEST_PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class LastTurn(Struct, frozen=True):
    """The latest answered request of a session, so that the same request sent again can be answered from it.

    Args:
        fingerprint: Of the request.
        idempotency_key: Of the request, if it had one.
        text: The answer.
        tool_calls: The calls in it.
        finish_reason: Why it ended.
        usage: What it took.
        prompt_size: Size of the prompt that was sent.
        dropped: Messages that were left out of it.
        shortened: Messages of which only a part was in it.
        at: When it was answered, in seconds since the epoch.
        stop: The stop text that ended it, if one did.
        refusal: What was said in place of an answer.
    """

    fingerprint: str
    idempotency_key: str | None
    text: str
    finish_reason: FinishReason
    usage: Usage
    prompt_size: int
    dropped: int
    shortened: int
    at: float
    tool_calls: tuple[ToolCall, ...] = ()
    stop: str | None = None
    refusal: str = ""


class Session(Struct, frozen=True):
    """A conversation as the gateway remembers it; times are in seconds since the epoch."""

    id: str
    created_at: float
    updated_at: float
    system: tuple[Message, ...]
    turns: tuple[Message, ...]
    last_turn: LastTurn

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything, in the order in which an upstream would read it."""
        return self.system + self.turns

    @property
    def characters(self) -> int:
        """Code points of all texts."""
        return _characters(self.messages)


class SessionRecord(Struct, frozen=True):
    """What a store knows under one key.

    `client_keeps_history` outlives the session itself: the client has sent a whole conversation under this `user`
    before, so it keeps its own, and a lone turn from it begins a new chat.
    """

    session: Session | None = None
    client_keeps_history: bool = False


class Plan(Struct, frozen=True):
    """What a request means for its session.

    Args:
        action: What is reported to the client.
        messages: The conversation to be answered.
        replay: The stored answer, if this request was answered a moment ago.
        client_keeps_history: To be stored with the session. Nothing is stored of a `stateless` request.
        continued: The session that the request's messages are added to; None if they are the whole conversation.
    """

    action: Action
    messages: tuple[Message, ...]
    replay: LastTurn | None = None
    client_keeps_history: bool = False
    continued: Session | None = None


def plan(call: ChatCall, record: SessionRecord, *, now: float, replay_seconds: float, is_plain: bool = False) -> Plan:
    """Decide what to answer, and on the strength of what.

    Args:
        call: The request, whose session is known.
        record: What the store holds under its key.
        now: Seconds since the epoch.
        replay_seconds: For how long a repeated request is answered with the stored answer.
        is_plain: It is known to be one short message that mentions no task, which spares a closer look.

    Raises:
        SessionNotFound: The client wants no new session in place of a missing one.
    """
    stored = record.session
    if stored and _is_repeated(call, stored.last_turn) and now - stored.last_turn.at <= replay_seconds:
        return Plan("replayed", call.messages, stored.last_turn, record.client_keeps_history)
    full = is_full_history(call.messages)
    by_user = call.session is not None and call.session.source == "user"
    keeps_history = record.client_keeps_history or (full and by_user)
    if call.reset:
        return Plan("reset", call.messages, None, keeps_history)
    if by_user and not full and not is_plain and _is_apart(call.messages, stored):
        return Plan("stateless", call.messages, None, record.client_keeps_history)
    if stored is None:
        if call.strict and not full:
            raise SessionNotFound(
                "This session doesn't exist or has expired, and X-Session-Strict asks for no new one."
            )
        return Plan("new", call.messages, None, keeps_history)
    if full:
        return Plan("replaced", call.messages, None, keeps_history)
    system, turns = _split(call.messages)
    if turns[0].role == "tool":
        if not _are_results_of(turns, stored.turns):
            return Plan("replaced", call.messages, None, keeps_history)
    elif record.client_keeps_history and by_user:
        return Plan("new", call.messages, None, keeps_history)
    messages = (*(system or stored.system), *stored.turns, *turns)
    return Plan("continued", messages, None, keeps_history, continued=stored)


def remember(
    call: ChatCall,
    decided: Plan,
    answer: Message,
    *,
    last_turn: LastTurn,
    created_at: float,
    max_characters: int,
) -> Session:
    """The session after an answered turn; the oldest turns go first when it grows beyond `max_characters`.

    Only words are remembered: no images, which would soon be all that there is room for, and no thoughts.
    """
    known = decided.continued
    added = [*(decided.messages if known is None else call.messages), answer]
    system, turns = _split(
        [_in_words(message) if message.parts or message.reasoning or message.extras else message for message in added]
    )
    if known is not None:
        # Remembering a turn more costs no more the longer the conversation is, but for a count of characters.
        system, turns = system or known.system, (*known.turns, *turns)
    return Session(
        id=call.session.id if call.session else "",
        created_at=created_at,
        updated_at=last_turn.at,
        system=tuple(system),
        turns=tuple(_without_oldest(turns, _characters([*system, *turns]) - max_characters)),
        last_turn=last_turn,
    )


def is_full_history(messages: Sequence[Message]) -> bool:
    """Does the client send the conversation itself, rather than just its next turn?

    A turn is one user message, or the results of tools, which the next user message may follow.
    """
    user_turns = results = 0
    for message in messages:
        if message.role == "assistant" or (message.role == "tool" and user_turns):
            return True
        user_turns += message.role == "user"
        results += message.role == "tool"
    return user_turns != 1 and not (results and not user_turns)


def fingerprint(model: str, messages: Sequence[Message]) -> str:
    """A digest that is the same for the same request."""
    said = [model]
    for message in messages:
        calls = images = ""
        if message.tool_calls:
            calls = "".join([f"\x1d{call.id}\x1d{call.name}\x1d{call.arguments}" for call in message.tool_calls])
        if message.parts:
            images = "".join([f"\x1d{image.url}" for image in message.images])
        said += (message.role, message.name or "", message.tool_call_id or "", calls, images, message.text)
    return hashlib.blake2b("\x1e".join(said).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def mentions_task(text: str) -> bool:
    """Whether a short text has words in which something is asked for on behalf of a chat."""
    folded = text.casefold()
    for stem in _TASK_STEMS:  # no generator: it would take as long as the whole loop
        if stem in folded:
            return TASK.search(text) is not None
    return False


def asks_for_task(text: str) -> bool:
    """Whether a message asks, where it begins or ends, for something on behalf of a chat."""
    return mentions_task(text[:SHORT_TEXT]) or mentions_task(text[-SHORT_TEXT:])


def is_background(messages: Sequence[Message]) -> bool:
    """Whether an app asks for something on behalf of a chat: one message that quotes it, and an instruction in that
    message or in the system's."""
    system, turns = _split(messages)
    if len(turns) != 1 or turns[0].role != "user":
        return False
    text = turns[0].text
    if _is_task(text):
        return True
    is_asked = any(asks_for_task(message.text) for message in system)
    return is_asked and _QUOTED_CONVERSATION.search(text) is not None


def quotation(text: str) -> tuple[int, int]:
    """Where in a message the conversation stands that it quotes: its beginning and its end.

    Where no tag ends it, it goes on to the end of the message; a message that quotes none is one itself.
    """
    found = _QUOTED_CONVERSATION.search(text)
    if found is None:
        return 0, len(text)
    if found[0].startswith("<"):
        end = text.rfind(f"</{found[0][1:]}")
        begin = text.rfind(found[0], 0, end) if end >= 0 else found.start()
        return begin + len(found[0]), end if end >= 0 else len(text)
    return found.start(), len(text)


def _is_repeated(call: ChatCall, last: LastTurn) -> bool:
    if call.idempotency_key and last.idempotency_key:
        says_so = call.idempotency_key == last.idempotency_key
    else:
        says_so = call.is_retry
    return says_so and fingerprint(call.model, call.messages) == last.fingerprint


def _is_apart(messages: Sequence[Message], stored: Session | None) -> bool:
    """Is a lone turn that names its session only by `user` a conversation of its own, whatever is remembered?

    Clients send the same `user` with everything: with a chat's turns, and with what they ask for on its behalf (a
    title, tags, the next questions) or in the steps of a workflow. Such a request has instructions of its own, or
    quotes the conversation that it is about.
    """
    system, turns = _split(messages)
    own = [message.text for message in system if message.text]
    if own and stored is not None and own != [message.text for message in stored.system]:
        return True
    return len(turns) == 1 and turns[0].role == "user" and _is_task(turns[0].text)


def _is_task(text: str) -> bool:
    """Whether a message asks for something about a conversation that it quotes, rather than being a turn of one."""
    if _TASK_OF_AN_APP.match(text):
        return True
    return asks_for_task(text) and _QUOTED_CONVERSATION.search(text) is not None


def _are_results_of(turns: Sequence[Message], before: Sequence[Message]) -> bool:
    """Whether the tool results among the turns belong to calls of the last of the turns before."""
    ids = {call.id for call in before[-1].tool_calls} if before else set()
    return bool(ids) and all(turn.tool_call_id in ids for turn in turns if turn.role == "tool")


def _split(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """Instructions and turns."""
    turns = [message for message in messages if message.role != "system"]
    if len(turns) == len(messages):
        return (), turns
    return [message for message in messages if message.role == "system"], turns


def _in_words(message: Message) -> Message:
    return replace(message, parts=(), reasoning="", extras=None)


def _characters(messages: Sequence[Message]) -> int:
    return sum([len(message.text) + (_of_calls(message) if message.tool_calls else 0) for message in messages])


def _of_calls(message: Message) -> int:
    return sum([len(call.name) + len(call.arguments) for call in message.tool_calls])


def _without_oldest(turns: Sequence[Message], excess: int) -> Sequence[Message]:
    """The turns without the oldest ones that make up so many characters too many; the last one stays in any case."""
    first = 0
    while excess > 0 and first < len(turns) - 1:
        excess -= _characters(turns[first : first + 1])
        first += 1
    return turns[first:] if first else turns
