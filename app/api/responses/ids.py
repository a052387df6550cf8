"""Ids of responses and of the items in them. An item's id tells the response that it belongs to."""

import re
import secrets

_ITEM_ID = re.compile(r"[a-z]{2,4}_([0-9a-f]{32})[io]\d{1,6}")


def new_response_id() -> str:
    """An id that nobody can guess."""
    return f"resp_{secrets.token_hex(16)}"


def output_item_id(prefix: str, response_id: str, index: int) -> str:
    """The id of a response's item."""
    return f"{prefix}_{response_id.removeprefix('resp_')}o{index}"


def input_item_id(prefix: str, response_id: str, index: int) -> str:
    """The id of an item that a response answers, and that came without one."""
    return f"{prefix}_{response_id.removeprefix('resp_')}i{index}"


def response_of_item(item_id: str) -> str | None:
    """The response that an item belongs to; None if the id isn't of this gateway's making."""
    found = _ITEM_ID.fullmatch(item_id)
    return f"resp_{found[1]}" if found else None
