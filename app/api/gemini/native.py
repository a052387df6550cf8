"""A request for content as it came, for an upstream of the same form. Pure."""

import re

from msgspec import DecodeError, Raw
from msgspec.json import Decoder
from pydantic.alias_generators import to_camel

from app.api.wire.conversation import Conversation
from app.api.wire.other_models import is_holder, refuse_other_models
from app.domain.chat import Message, NativeRequest, NativeTurn
from app.domain.errors import InvalidRequest

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SNAKE = re.compile("[a-z]+(?:_[a-z]+)+")
_read_fields = Decoder(dict[str, Raw]).decode
_read_list = Decoder(list[Raw]).decode
_read_any = Decoder().decode


def native_request(
    body: bytes,
    conversation: Conversation,
    messages: tuple[Message, ...],
    refusal: InvalidRequest | None,
    *,
    stream: bool,
) -> NativeRequest:
    """The request, field by field, each under the first of its two names.

    Args:
        body: Its body, which has been read before.
        conversation: What its contents mean.
        messages: The same, all together.
        refusal: Why an upstream of another form can't answer it, if so.
        stream: Whether its address asks for a stream: a field here, by which kept answers are told apart.

    Raises:
        InvalidRequest: A name in it is not valid Unicode, or names other models.
    """
    try:
        given = _read_fields(body.removeprefix(_BYTE_ORDER_MARK))
        # Where both are there the first counts, as it did when they were read.
        fields = {**{to_camel(name): value for name, value in given.items() if _SNAKE.fullmatch(name)}, **given}
        fields = {name: value for name, value in fields.items() if not _SNAKE.fullmatch(name)}
        turns = _turns(fields["contents"])
        holders = {name: _read_any(raw) if is_holder(name) else None for name, raw in given.items()}
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The request body could not be parsed as JSON.") from None
    refuse_other_models(holders)
    return NativeRequest(
        kind="gemini",
        fields={**fields, "stream": Raw(b"true" if stream else b"false")},
        messages=messages,
        system=conversation.system,
        turns=tuple(map(NativeTurn, turns, conversation.turns)),
        refusal=None if refusal is None else (refusal.message, refusal.param),
    )


def _turns(contents: Raw) -> list[Raw]:
    """The contents; a single one need not be in a list."""
    return _read_list(contents) if bytes(contents).lstrip().startswith(b"[") else [contents]
