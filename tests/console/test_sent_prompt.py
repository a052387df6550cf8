"""What the playground tells of a prompt: which messages went whole, cut down, or not at all."""

import random

from app.api.console.sent_prompt import _last, sent_prompt
from app.domain.chat import Message
from app.domain.prompt import PromptLimit, compose, message_prompt


def _words(number: int, word: str) -> str:
    return " ".join([f"{word}{place}" for place in range(number)])


def _states(*messages: Message, size: int = 1000) -> list[str]:
    prompt = compose(messages, PromptLimit(size))
    sent = sent_prompt(prompt, messages)
    states = [part.state for part in sent.parts]
    assert (sent.size, sent.limit) == (prompt.size, size)
    assert states.count("dropped") == prompt.dropped
    assert states.count("shortened") == prompt.shortened
    return list(states)


def test_a_conversation_that_fits_is_whole() -> None:
    """Its system prompt, too, wherever it came."""
    question, answer = Message("user", "What is it?"), Message("assistant", "A bird.")
    assert _states(question, answer, Message("system", "Be brief."), Message("user", "And that?")) == ["whole"] * 4
    assert _states(question) == ["whole"]


def test_what_was_said_twice_is_told_apart() -> None:
    """The one that was dropped is not taken for the one that was sent."""
    again = Message("assistant", _words(40, "again"))
    messages = [Message("user", "first"), again, Message("user", "second"), again, Message("user", "third"), again]
    states = _states(*messages, Message("user", "now"), size=500)
    assert states[-1] == "whole"
    assert states[5] == "whole"
    assert states[1] == "dropped"


def test_a_message_that_was_cut_says_so() -> None:
    """Its head and its tail were sent."""
    assert _states(Message("system", _words(200, "rule")), Message("user", "Go."))[0] == "shortened"


def test_messages_that_go_as_messages_are_whole() -> None:
    """For models that take them."""
    messages = (Message("user", "Hello"), Message("assistant", "Hello."), Message("user", "Again"))
    sent = sent_prompt(message_prompt(messages, PromptLimit(4000, "tokens")), messages)
    assert [part.state for part in sent.parts] == ["whole"] * 3


def test_the_last_place_is_found_from_the_end() -> None:
    """As `str.rfind` finds it, whose time grows with the square of a text that was made for that."""
    rng = random.Random(3)
    for _ in range(2000):
        sent, text = ("".join(rng.choices("ab", k=rng.randrange(most))) for most in (30, 4))
        end = rng.randrange(len(sent) + 1)
        assert _last(sent[::-1], text, end) == sent.rfind(text, 0, end)
    half = 1_000_000
    sent, text = "a" * half + "b" + "a" * half, "a" * half + "c" + "a" * (half // 2)
    assert _last(sent[::-1], text, len(sent)) == -1
