"""What answers that are passed on tell of besides tokens, however they come in pieces."""

import json
from typing import Any

import pytest

from app.domain.chat import Usage
from app.domain.relay import RelayHead
from app.domain.units import Unit
from app.providers.openai_compatible.relay import UsageFinder

IMAGE = "A" * 20_000
PARTIAL = {"type": "image_generation.partial_image", "b64_json": IMAGE}
DONE = {"type": "image_generation.completed", "b64_json": IMAGE}


def events(*documents: Any) -> str:
    """A stream of events."""
    return "".join([f"data: {json.dumps(one)}\n\n" for one in documents])


def images(*data: dict[str, Any], **more: Any) -> str:
    """An answer with images."""
    return json.dumps({"created": 1, "data": data, **more}, separators=(",", ":") if len(data) == 2 else (", ", ": "))


CASES: list[tuple[Unit, str, int]] = [
    ("images", images({"b64_json": IMAGE}, {"b64_json": IMAGE}), 2),
    (
        "images",
        images({"url": "https://a.test/1", "b64_json": None, "revised_prompt": 'the "url": "x" of "data": ['}),
        1,
    ),
    ("images", images({"url": "https://a.test/1", "b64_json": "AAAA"}), 1),
    ("images", json.dumps({"images": [{"url": "a"}, {"url": "b"}], "data": [{"url": "a"}, {"url": "b"}]}), 2),
    ("images", events(PARTIAL, PARTIAL, DONE), 1),
    ("images", "{}", 0),
    ("audio_seconds", '{"text": "Hi", "usage": {"type": "duration", "seconds": 9}}', 9),
    ("audio_seconds", '{"task": "transcribe", "duration": 8.470000267028809, "text": "Hi"}', 9),
    ("audio_seconds", json.dumps({"duration": "8.47", "text": IMAGE}), 9),
    ("audio_seconds", events({"type": "transcript.text.done", "usage": {"type": "duration", "seconds": 3}}), 3),
    ("audio_seconds", '{"text": "\\"duration\\": 7", "usage": {"type": "tokens", "input_tokens": 0}}', 0),
    ("audio_seconds", '{"duration": 1e99}', 0),
    ("searches", '{"results": [], "meta": {"billed_units": {"search_units": 2}}}', 2),
    ("searches", '{"results": []}', 0),
]


@pytest.mark.parametrize("size", [1, 7, 65, 1_000_000])
@pytest.mark.parametrize(("unit", "text", "amount"), CASES)
def test_units_are_found(unit: Unit, text: str, amount: int, size: int) -> None:
    """Cut anywhere, in one form or two, and never from within a text."""
    finder = UsageFinder(RelayHead("text/event-stream" if text.startswith("data:") else "application/json"), unit)
    data = text.encode()
    for place in range(0, len(data), size):
        finder.feed(data[place : place + size])
    assert finder.usage == (Usage(0, 0, unit=unit, amount=amount) if amount else None)


def test_tokens_are_told_beside_them() -> None:
    """Of an image that has both."""
    finder = UsageFinder(RelayHead("application/json"), "images")
    finder.feed(images({"b64_json": IMAGE}, usage={"input_tokens": 3, "output_tokens": 4}).encode())
    assert finder.usage == Usage(3, 4, unit="images", amount=1)


CAPTIONS = [
    ("text/plain; charset=utf-8", "1\n00:00:00,000 --> 00:00:03,200\nHi\n\n2\n00:00:03,200 --> 00:00:04,100\nyou\n", 5),
    ("text/vtt", "WEBVTT\r\n\r\n00:00.000 --> 01:02.000 align:start\r\nHi\r\n", 62),
    ("text/plain", "WEBVTT\n\n01:00:00.000\t-->\t01:00:00.001\nHi\n", 3601),
    ("", f"1\n00:00:00,000 --> 00:00:07,000\n{'x' * 9000}\n", 7),
    ("text/plain", "At 00:00:00,000 --> 99:00:00,000 they said.\n", 0),
    ("text/plain", "1\n00:00:00,000 --> 999999:00:00,000\nHi\n", 0),
    ("text/plain", "1\n00:00:00,000 --> 00:99:00,000\nHi\n", 0),
    ("text/plain", "Hi\n", 0),
    ("application/json", '{"text": "\\n00:00:00,000 --> 00:00:07,000"}', 0),
    ("application/octet-stream", "1\n00:00:00,000 --> 00:00:07,000\nHi\n", 0),
]


@pytest.mark.parametrize("size", [1, 65, 1_000_000])
@pytest.mark.parametrize(("kind", "text", "seconds"), CAPTIONS)
def test_captions_tell_how_long_was_spoken_at_least(kind: str, text: str, seconds: int, size: int) -> None:
    """By the end of the last one, which is an estimate; and never more than a time can say."""
    finder = UsageFinder(RelayHead(kind), "audio_seconds")
    data = text.encode()
    for place in range(0, len(data), size):
        finder.feed(data[place : place + size])
    expected = Usage(0, 0, estimated=True, unit="audio_seconds", amount=seconds) if seconds else None
    assert finder.usage == expected
