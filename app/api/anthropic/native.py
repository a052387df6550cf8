"""A request for a message as it came, for an upstream of the same form. Pure."""

import re
from collections.abc import Mapping

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from app.api.anthropic.blocks import Conversation
from app.api.wire.body import check_model
from app.domain.chat import Message, NativeRequest, NativeTurn
from app.domain.errors import InvalidRequest

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# They say which form the body has, and which further fields it may have.
_HEADERS = ("anthropic-version", "anthropic-beta")
_SENDABLE = re.compile(r"[\w.,: -]{1,1000}", re.ASCII)
_read_fields = Decoder(dict[str, Raw]).decode
_read_list = Decoder(list[Raw]).decode


def native_request(
    body: bytes,
    headers: Mapping[bytes, bytes],
    conversation: Conversation,
    messages: tuple[Message, ...],
    refusal: InvalidRequest | None,
) -> NativeRequest:
    """The request, field by field.

    Args:
        body: Its body, which has been read before.
        headers: Its headers.
        conversation: What its messages mean.
        messages: The same, all together.
        refusal: Why an upstream of another form can't answer it, if so.

    Raises:
        InvalidRequest: A name in it is not valid Unicode, or could be taken for the model's.
    """
    try:
        fields = _read_fields(body.removeprefix(_BYTE_ORDER_MARK))
        turns = _read_list(fields["messages"])
    except (DecodeError, UnicodeDecodeError):
        raise InvalidRequest("The request body could not be parsed as JSON.") from None
    check_model(fields)
    given = {name: headers.get(name.encode(), b"").decode("latin-1").strip() for name in _HEADERS}
    return NativeRequest(
        kind="anthropic",
        fields=fields,
        messages=messages,
        system=conversation.system,
        turns=tuple(map(NativeTurn, turns, conversation.turns)),
        headers={name: value for name, value in given.items() if _SENDABLE.fullmatch(value)},
        refusal=None if refusal is None else (refusal.message, refusal.param),
    )
