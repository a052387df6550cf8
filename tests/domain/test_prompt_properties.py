"""What holds for every conversation and every limit."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.domain.chat import Message, Role, ToolCall
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.prompt import PromptLimit, TextPrompt, Unit, compose
from tests.domain.strategies import UNTIMED, wild_texts

_UNITS: tuple[Unit, ...] = ("codepoints", "utf16", "bytes", "tokens")
_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
_ENDLESS = 10**9
_REAL_TAG = re.compile(r"[\[［] ?(?:system|user|assistant|tool)(?: [^\]］\n]*)?[\]］] ?[:：]", re.IGNORECASE)
_BRACKET = re.compile(r"[\[［]")
_PLACE = re.compile(r"\ue000(\d+)\ue001")

_bodies = st.builds(lambda text, times: text * times, wild_texts, st.integers(1, 12))
_calls = st.lists(st.builds(ToolCall, st.just("c"), st.text(max_size=5), st.text(max_size=20)), max_size=2).map(tuple)
_messages = st.one_of(
    st.builds(Message, st.sampled_from(_ROLES), _bodies, name=st.none() | wild_texts),
    st.builds(Message, st.just("assistant"), _bodies, tool_calls=_calls),
)
_conversations = st.lists(_messages, min_size=1, max_size=8)
_limits = st.builds(PromptLimit, st.integers(1, 1500), st.sampled_from(_UNITS))

_FORGERIES = (
    "[User]: ",
    "[SYSTEM]:",
    "[assistant bob]: ",
    "[tool",
    "[",
    "]: ",
    "]",
    ":",
    " ",
    "\n",
    "user",
    "é",
    "［",
    "］",
    "：",
)
_forged_bodies = st.lists(st.sampled_from(_FORGERIES), min_size=1, max_size=60).map("".join)


def _composed(messages: Sequence[Message], limit: PromptLimit, told: str = "") -> TextPrompt | None:
    """The prompt, or None if the mandatory part is too long; examples with nothing to answer are passed over."""
    try:
        return compose(messages, limit, told)
    except ContextTooLong:
        return None
    except InvalidRequest:
        assume(False)
        raise


def _mandatory(messages: Sequence[Message]) -> list[Message]:
    """Tool results at the end, else everything from the last user turn on, else the last message."""
    said = [message for message in messages if message.role != "system"]
    if not said:
        return list(messages)
    results: list[Message] = []
    while said and said[-1].role == "tool":
        results.insert(0, said.pop())
    if results:
        return results
    users = [place for place, message in enumerate(said) if message.role == "user"]
    return said[users[-1] :] if users else said[-1:]


@UNTIMED
@given(messages=_conversations, limit=_limits)
def test_a_prompt_is_never_over_its_limit(messages: list[Message], limit: PromptLimit) -> None:
    """For any texts and any unit the prompt keeps within the limit, and its size is told truthfully."""
    prompt = _composed(messages, limit)
    assume(prompt is not None)
    assert prompt is not None
    assert prompt.size == limit.measure(prompt.text) <= limit.size
    assert prompt.dropped >= 0
    assert 0 <= prompt.shortened <= len(messages)


@UNTIMED
@given(messages=_conversations, limit=_limits)
def test_only_what_can_not_fit_is_too_long(messages: list[Message], limit: PromptLimit) -> None:
    """A conversation is refused for its length exactly when what must be sent would not fit on its own."""
    alone = _composed(_mandatory(messages), PromptLimit(_ENDLESS, limit.unit))
    assert alone is not None
    assert (_composed(messages, limit) is None) == (alone.size > limit.size)


@UNTIMED
@given(messages=_conversations, limit=_limits)
def test_what_must_be_sent_is_in_every_prompt(messages: list[Message], limit: PromptLimit) -> None:
    """Each mandatory message is in the prompt in full; only the brackets of forged tags may differ."""
    prompt = _composed(messages, limit)
    assume(prompt is not None)
    assert prompt is not None
    sent = _BRACKET.sub("(", prompt.text)
    assert all(_BRACKET.sub("(", message.text) in sent for message in _mandatory(messages))


@UNTIMED
@given(text=wild_texts.filter(str.strip), limit=_limits)
def test_a_lone_message_is_sent_verbatim_or_not_at_all(text: str, limit: PromptLimit) -> None:
    """A single user message is the prompt, to the last code point, if it fits."""
    prompt = _composed([Message("user", text)], limit)
    assert (None if prompt is None else prompt.text) == (text if limit.measure(text) <= limit.size else None)


@UNTIMED
@given(messages=_conversations, limit=_limits)
def test_the_same_conversation_gives_the_same_prompt(messages: list[Message], limit: PromptLimit) -> None:
    """Composing is repeatable, and leaves what it was given as it was."""
    before = list(messages)
    assert _composed(messages, limit) == _composed(tuple(before), limit)
    assert messages == before


@UNTIMED
@given(messages=_conversations, limit=_limits, more=st.integers(1, 300))
def test_more_room_never_drops_more(messages: list[Message], limit: PromptLimit, more: int) -> None:
    """With a larger limit a prompt is not refused that wasn't before, and no further message is missing."""
    less = _composed(messages, limit)
    assume(less is not None)
    wider = _composed(messages, PromptLimit(limit.size + more, limit.unit))
    assert less is not None
    assert wider is not None
    assert wider.dropped <= less.dropped


@pytest.mark.parametrize("unit", _UNITS)
@settings(UNTIMED, max_examples=30)
@given(messages=st.lists(_messages, min_size=2, max_size=6))
def test_room_that_grows_step_by_step_never_drops_more(unit: Unit, messages: list[Message]) -> None:
    """At no limit, from too small to more than enough, does one unit more cost a message."""
    enough = _composed(messages, PromptLimit(_ENDLESS, unit))
    assert enough is not None
    dropped = len(messages)
    for size in range(1, min(enough.size + 40, 900)):
        prompt = _composed(messages, PromptLimit(size, unit))
        if prompt is not None:
            assert prompt.dropped <= dropped
            dropped = prompt.dropped
    assert enough.dropped == enough.shortened == 0


@pytest.mark.parametrize("instruction", ["s" * 1000, "👩‍👩‍👧‍👦" * 200, "s" * 90])
@pytest.mark.parametrize("turn", ["t", "t" * 70])
def test_the_place_of_the_system_prompt_is_reserved(instruction: str, turn: str) -> None:
    """With many turns, a system prompt that begins to fit with one unit more takes no turn's place by that."""
    messages = [Message("system", instruction), *[Message("user", turn)] * 60]
    dropped = [compose(messages, PromptLimit(size)).dropped for size in range(len(turn), 1200)]
    assert dropped == sorted(dropped, reverse=True)
    assert dropped[0] == 60


@UNTIMED
@given(messages=_conversations, limit=_limits)
def test_what_is_kept_is_the_most_important_in_order(messages: list[Message], limit: PromptLimit) -> None:
    """What users said, first of all the first thing, and the newest answer come before other answers; those before what
    was never answered."""
    numbered = [
        Message(message.role, f"\ue000{place}\ue001{message.text}", message.name)
        for place, message in enumerate(messages)
    ]
    prompt = _composed(numbered, limit)
    assume(prompt is not None)
    assert prompt is not None
    sent = [int(place) for place in _PLACE.findall(prompt.text)]
    turns = [place for place, message in enumerate(numbered) if message.role != "system"]
    sent_turns = [place for place in sent if numbered[place].role != "system"]
    last = len(_mandatory(numbered)) if turns else 0
    history = turns[: len(turns) - last]
    unanswered = [
        place
        for place, following in pairwise(turns)
        if place in history
        and numbered[place].role == numbered[following].role == "user"
        and numbered[place].name == numbered[following].name
    ]
    answered = [place for place in history[::-1] if place not in unanswered]
    answers = [place for place in answered if numbered[place].role != "user"]
    first = [place for place in answered if place not in answers[1:]]
    opening = next((place for place in history if numbered[place].role == "user"), None)
    if opening in first:
        first.remove(opening)
        first.insert(1, opening)
    important = [*turns[len(history) :][::-1], *first, *answers[1:], *unanswered[::-1]]
    assert sent_turns == sorted(important[: len(sent_turns)])
    # The system prompt comes before all turns.
    assert sent == [*(place for place in sent if place not in turns), *sent_turns]


@UNTIMED
@given(
    bodies=st.lists(st.tuples(st.sampled_from(_ROLES), _forged_bodies), min_size=2, max_size=5),
    last=_forged_bodies.filter(str.strip),
    limit=_limits,
)
def test_no_content_can_forge_a_tag(bodies: list[tuple[Role, str]], last: str, limit: PromptLimit) -> None:
    """A tagged prompt holds exactly one tag for each of its messages, whatever they say and wherever they are cut."""
    messages = [*(Message(role, body) for role, body in bodies), Message("user", last)]
    prompt = _composed(messages, limit)
    assume(prompt is not None)
    assert prompt is not None
    sections = len([message for message in messages if message.role != "system"])
    sections += any(message.role == "system" for message in messages)
    kept = sections - prompt.dropped
    if kept == 1:
        assert prompt.text == last
    else:
        assert len(_REAL_TAG.findall(prompt.text)) == kept


@UNTIMED
@given(messages=_conversations, limit=_limits, told=_bodies.filter(bool))
def test_instructions_are_in_every_prompt(messages: list[Message], limit: PromptLimit, told: str) -> None:
    """A prompt with instructions keeps within the limit and holds them whole, before what must be sent."""
    if (prompt := _composed(messages, limit, told)) is None:
        alone = _composed(_mandatory(messages), PromptLimit(_ENDLESS, limit.unit), told)
        assert alone is not None
        assert alone.size > limit.size
        return
    assert prompt.size == limit.measure(prompt.text) <= limit.size
    assert f"[System]: {told}\n[" in prompt.text


@UNTIMED
@given(messages=_conversations, limit=_limits, told=_bodies, more=st.integers(1, 300))
def test_more_room_never_drops_more_beside_instructions(
    messages: list[Message], limit: PromptLimit, told: str, more: int
) -> None:
    """Instructions take their room from the rest in a way that grows with the limit, too."""
    less = _composed(messages, limit, told)
    assume(less is not None)
    wider = _composed(messages, PromptLimit(limit.size + more, limit.unit), told)
    assert less is not None
    assert wider is not None
    assert 0 <= wider.dropped <= less.dropped
