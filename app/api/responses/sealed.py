"""What a vendor adds to a thought, as the `encrypted_content` of a reasoning item. Pure.

Clients send items back as they came. So the vendor gets the thought back with its signature, which it insists on.
"""

import base64
import binascii
from collections.abc import Sequence

from app.domain.json import json_bytes, read_json_list

# Tells what was sealed here from what other gateways and vendors have sealed.
_MARK = "details1."


def sealed(details: Sequence[object]) -> str:
    """The details as one opaque text."""
    return _MARK + base64.urlsafe_b64encode(json_bytes(details)).decode()


def unsealed(text: object) -> list[object]:
    """The details in such a text; none if it is another's."""
    if not isinstance(text, str) or not text.startswith(_MARK):
        return []
    try:
        return read_json_list(base64.urlsafe_b64decode(text.removeprefix(_MARK))) or []
    except (binascii.Error, ValueError):
        return []
