"""A message's content: its parts in the forms that OpenAI's dialects have for them, and what they say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import WireModel, text_tag
from app.api.wire.faults import invalid_value, missing_parameter, wrong_type
from app.domain.chat import Image

Part = str | Image

_TEXTS = frozenset({"text", "input_text", "output_text", "summary_text", "reasoning_text"})
_IMAGES = frozenset({"image_url", "input_image", "image"})


class ImageUrl(WireModel):
    """Where an image is."""

    url: str = Field(min_length=1, description="its address, or the image itself as a `data:` URL")
    detail: str | None = None


def _url_tag(value: Any) -> str:
    return "<object>" if isinstance(value, dict | ImageUrl) else "<url>"


_Url = Annotated[Annotated[str, Tag("<url>")] | Annotated[ImageUrl, Tag("<object>")], Discriminator(_url_tag)]


class ContentPart(WireModel):
    """One part of a message. Only text can be sent to a text-only model."""

    # Infinities would go out again as no JSON: responses are kept.
    model_config = ConfigDict(allow_inf_nan=False)

    type: str = Field(
        description="`text`, `input_text`, `output_text`, `image_url` or `input_image`", examples=["text"]
    )
    text: str | None = Field(None, description="of a text")
    image_url: _Url | None = Field(None, description="of an image: an address, or a `data:` URL")
    detail: str | None = Field(None, description="of an image: how closely to look at it")
    refusal: str | None = None


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Tag("<array>")] | Annotated[None, Tag("<null>")],
    Discriminator(text_tag),
]


def text_and_parts(parts: Sequence[Part]) -> tuple[str, tuple[Part, ...]]:
    """The text of a message, and its parts if there are images among them; `[image]` stands where one is."""
    text = "\n".join(part if isinstance(part, str) else "[image]" for part in parts)
    return text, tuple(parts) if any(isinstance(part, Image) for part in parts) else ()


def read_parts(parts: Sequence[ContentPart], place: str) -> list[Part]:
    """What the parts say.

    Args:
        place: The field that they came in.

    Raises:
        InvalidRequest: One can't be read.
    """
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(parts)]


def _part(part: ContentPart, place: str) -> Part:
    if part.type in _TEXTS:
        if part.text is None:
            raise missing_parameter(f"{place}.text")
        return part.text
    if part.type in _IMAGES:
        return _image(part, place)
    if part.type == "refusal":
        return part.refusal or ""
    raise invalid_value(f"{place}.type", part.type, "'text', 'image_url', 'input_text', 'input_image' and 'refusal'")


def _image(part: ContentPart, place: str) -> Image:
    given = part.image_url
    if isinstance(given, ImageUrl):
        return Image(given.url, place, given.detail or part.detail)
    url = given or _url_of_others(part.model_extra or {}, place)
    if not url:
        raise missing_parameter(f"{place}.image_url", "Images can't be given by a file's id.")
    return Image(url, place, part.detail)


def _url_of_others(fields: Mapping[str, Any], place: str) -> str | None:
    """An image's address in the forms of other vendors' SDKs: `image`, or Anthropic's `source`."""
    source, image = fields.get("source"), fields.get("image")
    if image is not None and not isinstance(image, str):
        raise wrong_type(f"{place}.image", "a string", image)
    if not isinstance(source, dict):
        return image
    if source.get("type") == "base64":
        return f"data:{source.get('media_type') or 'image/png'};base64,{source.get('data') or ''}"
    url = source.get("url")
    return url if isinstance(url, str) else None
