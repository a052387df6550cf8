"""A request for a message as it came, for an upstream of the same form. Pure."""

import re
from collections.abc import Mapping

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from app.api.wire.body import check_model
from app.api.wire.conversation import Conversation
from app.api.wire.other_models import is_holder, other_models_refused, refuse_other_models
from app.domain.chat import Message, NativeRequest, NativeTurn
from app.domain.errors import InvalidRequest

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# They say which form the body has, and which further fields it may have.
_HEADERS = ("anthropic-version", "anthropic-beta")
_SENDABLE = re.compile(r"[\w.,: -]{1,1000}", re.ASCII)
_read_fields = Decoder(dict[str, Raw]).decode
_read_list = Decoder(list[Raw]).decode
_read_tools = Decoder(list[dict[str, Raw]]).decode
_read_any = Decoder().decode


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
        InvalidRequest: A name in it is not valid Unicode, could be taken for the model's, or names other models.
    """
    try:
        fields = _read_fields(body.removeprefix(_BYTE_ORDER_MARK))
        turns = _read_list(fields["messages"])
        holders = {name: _read_any(raw) if is_holder(name) else None for name, raw in fields.items()}
        tools = _tools_with_models(bytes(fields.get("tools", b"")))
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The request body could not be parsed as JSON.") from None
    check_model(fields)
    refuse_other_models(holders)
    for place in tools:
        raise other_models_refused(f"tools.{place}.model")
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


def _tools_with_models(tools: bytes) -> list[int]:
    """The places of tools that ask a model of their own, such as Anthropic's advisor."""
    if b'"model"' not in tools and b"\\u" not in tools:
        return []
    return [place for place, tool in enumerate(_read_tools(tools)) if "model" in tool]
