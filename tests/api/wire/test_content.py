"""Parts of a message mean the same in every form that clients have for them."""

from typing import Any

import pytest

from app.api.dialects import Dialect
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.api.responses.dialect import RESPONSES
from app.domain.chat import Image, Message
from app.domain.errors import InvalidRequest
from tests.api.reading import read

URL = "data:image/png;base64,AA=="
PLACES = {CHAT_COMPLETIONS.path: "messages", RESPONSES.path: "input"}
DIALECTS = (CHAT_COMPLETIONS, RESPONSES)


def _message(dialect: Dialect, part: dict[str, Any]) -> Message:
    return read(dialect, {PLACES[dialect.path]: [{"role": "user", "content": [part]}]}).calls[0].messages[0]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_text_is_text_under_every_name(dialect: Dialect, kind: str) -> None:
    """What responses call `input_text` is understood in chat completions, and the other way round."""
    assert _message(dialect, {"type": kind, "text": "Hi"}) == Message("user", "Hi")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("part", "detail"),
    [
        ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, "low"),
        ({"type": "image_url", "image_url": URL}, None),
        ({"type": "image_url", "image_url": URL, "detail": "high"}, "high"),
        ({"type": "input_image", "image_url": URL, "detail": "auto"}, "auto"),
        ({"type": "input_image", "image_url": {"url": URL}}, None),
        ({"type": "image", "image": URL}, None),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}, None),
        ({"type": "image", "source": {"type": "url", "url": URL}}, None),
    ],
)
def test_an_image_is_taken_in_the_forms_that_sdks_send(
    dialect: Dialect, part: dict[str, Any], detail: str | None
) -> None:
    """As a text, as an object, and as other vendors have it."""
    image = Image(URL, f"{PLACES[dialect.path]}[0].content[0]", detail)
    assert _message(dialect, part) == Message("user", "[image]", parts=(image,))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("part", "step", "code"),
    [
        ({"type": "text"}, ".text", "missing_required_parameter"),
        ({"type": "image_url"}, ".image_url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": 5}, ".image_url", "invalid_type"),
        ({"type": "image_url", "image_url": {}}, ".image_url.url", "missing_required_parameter"),
        ({"type": "image", "image": 5}, ".image", "invalid_type"),
        ({"type": "input_image", "file_id": "f"}, ".image_url", "missing_required_parameter"),
        ({"type": "input_audio", "input_audio": {}}, ".type", "invalid_value"),
    ],
)
def test_a_part_that_says_nothing_is_refused_by_its_place(
    dialect: Dialect, part: dict[str, Any], step: str, code: str
) -> None:
    """The field at fault is named, whichever dialect."""
    with pytest.raises(InvalidRequest) as caught:
        _message(dialect, part)
    assert (caught.value.param, caught.value.code) == (f"{PLACES[dialect.path]}[0].content[0]{step}", code)
