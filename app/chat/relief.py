"""What is sent of a last message that is too long: only its head and tail, or all of it in parts."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from app.chat.fitting import RoomPolicy
from app.domain.chat import Message
from app.domain.conversation import is_background
from app.domain.prompt import PromptLimit, pending_places
from app.domain.shortening import evenly, shortened, shortened_task, split

# What a message may take of the limit if something besides it has to be told: the rest is for that.
_SHARE = (2, 3)


class Relief(Struct, frozen=True):
    """A conversation whose last message has been made to fit.

    Args:
        messages: The conversation.
        earlier_parts: What is sent before it.
        shortened: Messages that were cut down to their head and tail.
    """

    messages: tuple[Message, ...]
    earlier_parts: tuple[str, ...] = ()
    shortened: int = 0


def relieved(
    messages: tuple[Message, ...], limit: PromptLimit, policy: RoomPolicy, *, is_formed: bool, can_split: bool
) -> Relief | None:
    """Make the last message of a conversation fit.

    What an app asks on behalf of a chat is shortened whatever the policy says: nobody would miss what is left out, and
    nobody reads why it was refused.

    Args:
        messages: The conversation.
        limit: The model's.
        policy: What is done with messages that are too long.
        is_formed: Whether the model is to be told of tools or a form as well.
        can_split: Whether the upstream keeps in mind what it was sent before in the same session.

    Returns:
        None if nothing can be done, or nothing may.
    """
    places, overhead = pending_places(messages, limit)
    if not places:
        return None
    is_alone = len(messages) == len(places) == 1 and not is_formed
    room = limit.size if is_alone else limit.size * _SHARE[0] // _SHARE[1] - overhead
    if is_background(messages):
        text = shortened_task(messages[places[0]].text, room, limit)
        return None if text is None else _with_texts(messages, places, [text])
    if policy.long_messages == "shorten":
        return _shortened(messages, places, room, limit)
    if policy.long_messages == "split" and can_split and len(places) == 1 and messages[places[0]].role == "user":
        parts = split(messages[places[0]].text, room, limit)
        if parts is None or len(parts) == 1:
            return None
        last = _with_texts(messages, places, parts[-1:])
        return None if last is None else Relief(last.messages, tuple(parts[:-1]))
    return None


def _shortened(messages: tuple[Message, ...], places: Sequence[int], room: int, limit: PromptLimit) -> Relief | None:
    """All that must be sent, its longest messages shortened."""
    texts = [messages[place].text for place in places]
    most = evenly([limit.measure(text) for text in texts], room)
    cut = [shortened(text, most, limit) for text in texts]
    return _with_texts(messages, places, [text for text in cut if text is not None]) if None not in cut else None


def _with_texts(messages: tuple[Message, ...], places: Sequence[int], texts: Sequence[str]) -> Relief | None:
    """The conversation with these texts at those places; None if it is what it was."""
    changed = list(messages)
    number = 0
    for place, text in zip(places, texts, strict=True):
        if text != messages[place].text:
            number += 1
            changed[place] = replace(messages[place], text=text)
    return Relief(tuple(changed), shortened=number) if number else None
