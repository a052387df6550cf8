"""Which targets can take a conversation, and in which order they are asked."""

from typing import Any

import pytest
from app.chat.candidates import Candidate, PassedOver, candidates

from app.domain.chat import ChatCall, Message, OutputFormat, ToolCall
from app.domain.prompt import PromptLimit
from app.providers.base import Ability
from app.providers.registry import Target
from tests.scripted import ROOM, ScriptedProvider

LONG = "y" * 200
ASKED = Message("user", "And?")
BIG_CALL = Message("assistant", "", tool_calls=(ToolCall("c", "f", f'{{"a":"{LONG}"}}'),))


def _target(name: str, limit: PromptLimit = ROOM, abilities: tuple[Ability, ...] = ()) -> Target:
    provider = ScriptedProvider(name, limit=limit, abilities=abilities)
    return Target(provider, provider.models[0])


def _told(targets: list[Target], *messages: Message, **fields: Any) -> list[str]:
    """The names in the order in which they are asked; with a minus those that are passed over."""
    call = ChatCall(model="r", messages=messages, **fields)
    found = candidates(targets, call, messages)
    return [("-" if isinstance(each, PassedOver) else "") + each.target.provider.name for each in found]


@pytest.mark.parametrize(
    ("small", "message"),
    [
        (_target("small", PromptLimit(100)), Message("assistant", LONG)),
        (_target("small", PromptLimit(40, "tokens"), ("messages",)), Message("assistant", LONG)),
        (_target("small", PromptLimit(40, "tokens"), ("messages", "tools")), BIG_CALL),
    ],
    ids=["shortened", "many-tokens", "a-long-call"],
)
def test_who_takes_all_of_it_is_asked_first(small: Target, message: Message) -> None:
    """A target that could take only a part, or more than fits, is asked after all that take the whole conversation."""
    large = _target("large")
    assert _told([small, large], message, ASKED) == ["-small", "large", "small"]
    assert _told([small, large], ASKED) == ["small", "large"]
    assert _told([small], message, ASKED) == ["small"]


def test_a_schema_is_looked_at_only_by_whom_it_has_to_be_asked_for_in_words() -> None:
    """A model that keeps to schemas by itself gets them as they come; others are passed over for one they can't use."""
    native = _target("native", abilities=("messages", "json_schema"))
    wanted = OutputFormat("json_schema", {"type": "objekt"})
    assert _told([_target("text"), native], ASKED, output_format=wanted) == ["-text", "native"]
    (found,) = candidates([native], ChatCall("r", (ASKED,), output_format=wanted), (ASKED,))
    assert isinstance(found, Candidate)
    assert found.emulator is None
