"""Making a text fit that has to be sent and is too long: its middle left out, or sent in several parts. Pure.

What an app asks on behalf of a chat (a title, tags, the next questions) is an instruction around a quoted
conversation, and often longer than the conversation itself. Of both the beginning and the end stay, and if the
instruction asks for JSON, it does so once more in one line, so that its example isn't lost in the middle.
"""

import re
from collections.abc import Sequence

from app.domain.chunking import boundary_before
from app.domain.conversation import quotation
from app.domain.prompt import ELLIPSIS, USEFUL, PromptLimit, head_of, tail_of
from app.domain.wording import left_out_mark, part_note

MOST_PARTS = 10
_WANTS_JSON = re.compile(r"\bJSON\b", re.IGNORECASE)
# An object or array without others in it, but for lists in an object.
_JSON_EXAMPLE = re.compile(r"\{\s*\"[^{}]{1,300}\}|\[\s*\"[^\[\]{}]{1,300}\]")
_ENDS_OF_SENSE = (*("\n\n", "\n", "。", "！", "？", ". ", "! ", "? "), " ")


def shortened(text: str, size: int, limit: PromptLimit) -> str | None:
    """The head and the tail of a text, with a mark between them that says how much is missing.

    Args:
        text: The text.
        size: How large it may be.
        limit: For the unit of its size.

    Returns:
        The text itself if it fits; None if too little of it would be left.
    """
    if limit.measure(text) <= size:
        return text
    room = size - limit.measure(left_out_mark(text, len(text)))
    if room < USEFUL:
        return None
    head, tail = head_of(text, room - room // 2, limit), tail_of(text, room // 2, limit)
    return head + left_out_mark(text, len(text) - len(head) - len(tail)) + tail


def evenly(sizes: Sequence[int], room: int) -> int:
    """The most that each of several things may take, so that together they fit: what one leaves, the others get."""
    left = room
    waiting = sorted(sizes)
    for place, size in enumerate(waiting):
        share = left // (len(waiting) - place)
        if size > share:
            return share
        left -= size
    return room


def shortened_task(text: str, size: int, limit: PromptLimit) -> str | None:
    """A message that quotes a conversation and asks for something about it, cut to a size.

    The quotation and the instruction around it get half of the room each, or what the other leaves.

    Returns:
        None if too little would be left.
    """
    measure = limit.measure
    if measure(text) <= size:
        return text
    begin, end = quotation(text)
    before, quoted, after = text[:begin], text[begin:end], text[end:]
    line = _json_line(before + after)
    room = size - measure(line)
    around = measure(before) + measure(after)
    for_quoted = min(measure(quoted), max(room // 2, room - around))
    share = evenly((measure(before), measure(after)), room - for_quoted)
    parts = [_cut(before, share, limit), _cut(quoted, for_quoted, limit), _cut(after, share, limit)]
    if min(for_quoted, room - for_quoted) < USEFUL:
        return None
    return "".join(parts) + line


def split(text: str, last: int, limit: PromptLimit) -> list[str] | None:
    """A text in several parts, each with a note that says which part it is, and when to answer.

    Args:
        text: The text.
        last: How large the last part may be, with its note; the others may fill the limit.
        limit: How large a part may be.

    Returns:
        None if that takes too many parts.
    """
    measure = limit.measure
    note = measure(part_note(text, MOST_PARTS - 1, MOST_PARTS))
    most, last = limit.size - note, last - measure(part_note(text, MOST_PARTS, MOST_PARTS))
    if min(most, last) < USEFUL or measure(text) > MOST_PARTS * limit.size:
        return None
    parts: list[str] = []
    rest = text
    while (size := measure(rest)) > last:
        # Enough is left for the last part, which the answer begins with.
        part = _up_to_a_pause(head_of(rest, min(most, size - last // 2), limit))
        if not part or len(parts) == MOST_PARTS - 1:
            return None
        parts.append(part)
        rest = rest[len(part) :]
    parts.append(rest)
    return [part + part_note(text, number, len(parts)) for number, part in enumerate(parts, 1)]


def _json_line(instruction: str) -> str:
    """Asks for the JSON that an instruction asks for, in one line; "" if it asks for none."""
    wanted = _WANTS_JSON.search(instruction)
    if wanted is None:
        return ""
    example = _JSON_EXAMPLE.search(instruction, wanted.end()) or _JSON_EXAMPLE.search(instruction)
    like = f", in this form: {' '.join(example[0].split())}" if example else ""
    return f"\nAnswer with JSON and nothing else{like}"


def _cut(text: str, size: int, limit: PromptLimit) -> str:
    if limit.measure(text) <= size:
        return text
    room = max(0, size - limit.measure(ELLIPSIS))
    return head_of(text, room - room // 2, limit) + ELLIPSIS + tail_of(text, room // 2, limit)


def _up_to_a_pause(part: str) -> str:
    """A part up to the end of a paragraph, a line, a sentence or a word, if there is one in its last quarter."""
    for pause in _ENDS_OF_SENSE:
        end = part.rfind(pause, len(part) * 3 // 4)
        if end >= 0:
            end += len(pause)
            return part[:end] if boundary_before(part, end) == end else part
    return part
