"""What a row of the ledger tells of one request beyond its columns: its time line, and the headers of its answer."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from app.api.answering import opening_headers
from app.chat.events import Opening
from app.domain.prompt import Prompt, PromptLimit
from app.domain.waits import unpacked


class Step(Struct, frozen=True):
    """A stretch of a request's time.

    Args:
        step: What it went to: one of `app.domain.waits.STEPS`, then `upstream` until the first word, and `answer` from
            there on; `rest` if nothing was sent to an upstream.
        begins: Milliseconds after the request began. Waits of several attempts are one step each, as if they had come
            first.
        milliseconds: How long it took.
    """

    step: str
    begins: int
    milliseconds: int


def time_line(row: Mapping[str, Any]) -> list[Step]:
    """What a request's time went to, as far as it went to anything."""
    whole, first = row["milliseconds"], row["first_milliseconds"]
    waits = unpacked(row["waits"])
    until_answer = whole if first is None else first
    asked = "rest" if first is None and row["outcome"] in ("refused", "replayed") else "upstream"
    parts = [*waits.items(), (asked, until_answer - sum(waits.values())), ("answer", whole - until_answer)]
    steps, begins = [], 0
    for name, milliseconds in parts:
        taken = min(milliseconds, whole - begins)  # each was rounded, and measured apart
        if taken > 0:
            steps.append(Step(name, begins, taken))
            begins += taken
    return steps


def known_headers(row: Mapping[str, Any]) -> dict[str, str]:
    """The headers of the answer that follow from what is kept.

    Not among them: those of limits, of the time that was taken, the session's id, and the parameters that were ignored.
    An answer that never began has the request's id only.
    """
    headers = {"x-request-id": row["request_id"]}
    began = row["outcome"] in ("completed", "replayed") or (row["streamed"] and row["first_milliseconds"] is not None)
    if not began or row["action"] is None or row["prompt_limit"] is None:
        return headers
    limit = PromptLimit(row["prompt_limit"], "tokens" if row["prompt_in_tokens"] else "codepoints")
    opening = Opening(
        model=row["model"],
        provider=row["provider"],
        session_id=None,
        action=row["action"],
        prompt=Prompt(
            size=row["prompt_size"] or 0,
            limit=limit,
            tokens=0,
            dropped=row["dropped"],
            shortened=row["shortened"] or 0,
        ),
        fallback=tuple(row["passed_over"].split(",")) if row["passed_over"] else (),
    )
    told = opening_headers(opening, None)
    return headers | {name.decode("latin-1"): value.decode("latin-1") for name, value in told}
