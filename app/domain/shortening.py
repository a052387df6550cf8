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
# With less, neither the instruction nor the conversation would be understood.
_LEAST_TASK = 4 * USEFUL
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
        None if that is too little room.
    """
    if limit.measure(text) <= size:
        return text
    if size < _LEAST_TASK:
        return None
    begin, end = quotation(text)
    before, quoted, after = text[:begin], text[begin:end], text[end:]
    form = _json_form(before + after)
    around, cut = _cut_around(before, quoted, after, size, limit)
    if form is None or (form and form in around):
        return cut
    line = f"\nAnswer with JSON and nothing else{', in this form: ' if form else '.'}{' '.join(form.split())}"
    return _cut_around(before, quoted, after, size - limit.measure(line), limit)[1] + line


def _cut_around(before: str, quoted: str, after: str, size: int, limit: PromptLimit) -> tuple[str, str]:
    """What is left of the text around a quotation, and that with what is left of the quotation itself."""
    measure = limit.measure
    around = measure(before) + measure(after)
    for_quoted = min(measure(quoted), max(size // 2, size - around))
    share = evenly((measure(before), measure(after)), size - for_quoted)
    before, after = _cut(before, share, limit), _cut(after, share, limit)
    return before + after, before + _cut(quoted, for_quoted, limit) + after


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


def _json_form(instruction: str) -> str | None:
    """The example of the JSON that an instruction asks for, "" if it has none; None if it asks for no JSON."""
    wanted = _WANTS_JSON.search(instruction)
    if wanted is None:
        return None
    example = _JSON_EXAMPLE.search(instruction, wanted.end()) or _JSON_EXAMPLE.search(instruction)
    return example[0] if example else ""


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
