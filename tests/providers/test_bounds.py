"""What a model's vendor refuses, and what becomes of a request for it."""

from collections.abc import Mapping

import pytest

from app.domain.chat import PLAIN_TEXT, OutputFormat, Tool, ToolUse
from app.providers.bounds import BoundsRow, ModelBounds, bounds_of, within_bounds
from app.providers.openai_compatible.presets import PRESETS

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}
TYPED = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x", "y"]}}}


@pytest.mark.parametrize(
    ("asked", "most", "sent"),
    [(32_000, 8192, 8192), (8192, 8192, 8192), (1, 8192, 1), (None, 8192, None), (32_000, None, 32_000)],
)
def test_no_longer_answer_is_asked_for_than_the_model_gives(
    asked: int | None, most: int | None, sent: int | None
) -> None:
    """What is too large becomes the largest, and is named; the rest is sent as it is."""
    taken = within_bounds(ModelBounds(max_tokens=most), asked, {}, None, PLAIN_TEXT)
    assert (taken.max_tokens, taken.changed) == (sent, ("max_tokens",) if sent != asked else ())


@pytest.mark.parametrize(
    ("bounds", "asked", "sent", "changed"),
    [
        ((1, 1), 0.7, {}, ("temperature",)),
        ((1, 1), 1, {}, ()),
        ((1, 1), 1.0, {}, ()),
        ((0, 1), 0.7, {"temperature": 0.7}, ()),
        ((0, 1), 1.5, {"temperature": 1}, ("temperature",)),
        ((0.1, 1), 0, {"temperature": 0.1}, ("temperature",)),
        ((0, 1), None, {"temperature": None}, ()),
        ((0, 1), "hot", {"temperature": "hot"}, ()),
        ((1, 1), True, {"temperature": True}, ()),
    ],
)
def test_an_option_is_kept_in_its_range(
    bounds: tuple[float, float], asked: object, sent: Mapping[str, object], changed: tuple[str, ...]
) -> None:
    """One that can't be chosen isn't sent at all; what is no number is the upstream's to judge."""
    options = {"temperature": asked, "seed": 5}
    taken = within_bounds(ModelBounds(options={"temperature": bounds}), None, options, None, PLAIN_TEXT)
    assert (taken.options, taken.changed) == ({**sent, "seed": 5}, changed)
    assert options == {"temperature": asked, "seed": 5}


def test_schemas_are_put_in_the_vendor_s_forms() -> None:
    """Those of tools and of answers alike, each named; and only for a vendor that wants it."""
    tools = ToolUse((Tool("a", parameters=SCHEMA), Tool("b", parameters=TYPED)), choice="required")
    output_format = OutputFormat("json_schema", SCHEMA)
    taken = within_bounds(ModelBounds(schemas="moonshot"), None, {}, tools, output_format)
    assert taken.tools is not None
    assert [tool.parameters for tool in taken.tools.tools] == [TYPED, TYPED]
    assert (taken.tools.choice, taken.output_format.schema) == ("required", TYPED)
    assert taken.changed == ("tools.parameters", "response_format.schema")
    for bounds in (ModelBounds(), ModelBounds(schemas="any")):
        taken = within_bounds(bounds, None, {}, tools, output_format)
        assert (taken.tools, taken.output_format, taken.changed) == (tools, output_format, ())


def test_rows_that_match_add_up() -> None:
    """Of several rows for a model the later ones win, field by field and option by option."""
    rows = (
        BoundsRow("*", ModelBounds(100, {"temperature": (0, 1), "top_p": (0, 1)}, "moonshot")),
        BoundsRow("k2.[5-9]*", ModelBounds(options={"temperature": (1, 1)})),
        BoundsRow("k2.6", ModelBounds(200)),
    )
    options = {"temperature": (1, 1), "top_p": (0, 1)}
    assert bounds_of(rows, "k2.6") == ModelBounds(200, options, "moonshot")
    assert bounds_of(rows, "k2.5-preview") == ModelBounds(100, options, "moonshot")
    assert bounds_of(rows, "other") == rows[0].bounds
    assert bounds_of(rows[1:], "other") is None


@pytest.mark.parametrize(
    ("preset", "model", "temperature"),
    [
        ("moonshot", "kimi-k2.5", (1, 1)),
        ("moonshot-cn", "kimi-k2.6", (1, 1)),
        ("moonshot", "kimi-k2-thinking-turbo", (1, 1)),
        ("moonshot", "kimi-thinking-preview", (1, 1)),
        ("moonshot", "kimi-k2-0905-preview", (0, 1)),
        ("moonshot", "moonshot-v1-8k", (0, 1)),
        ("openai", "gpt-5", (1, 1)),
        ("openai", "gpt-5-mini-2025-08-07", (1, 1)),
        ("openai", "o3", (1, 1)),
        ("openai", "o4-mini", (1, 1)),
        ("openai", "gpt-5-chat-latest", None),
        ("openai", "gpt-4o", None),
        ("deepseek", "deepseek-chat", None),
    ],
)
def test_the_presets_know_which_models_have_a_temperature_of_their_own(
    preset: str, model: str, temperature: tuple[float, float] | None
) -> None:
    """Listed or not, by their names."""
    bounds = bounds_of(PRESETS[preset].bounds, model) or ModelBounds()
    assert bounds.options.get("temperature") == temperature
