"""What a model's vendor refuses, as rows of data, and what becomes of a request for it. Pure."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import OutputFormat, ToolUse
from app.providers.moonshot_schema import moonshot_schema

# any: as the client wrote them. moonshot: in the forms that Moonshot's API takes.
SchemaRules = Literal["any", "moonshot"]
# The least and the largest value of an option. If both are the same, the option is fixed: it is never sent.
OptionRange = tuple[float, float]
# Nobody misses them in an answer.
_INCONSEQUENTIAL = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
    | {"user", "session_id", "conversation", "previous_response_id"}
)


class ModelBounds(Struct, frozen=True):
    """What a model takes. Beyond that its vendor answers with an error.

    Args:
        max_tokens: The longest answer that may be asked for, in tokens; None if that isn't known.
        options: The ranges of options, by name.
        schemas: How schemas of tools and of JSON answers are written; None if nothing is said about it.
        known_options: The only options that it takes; None for any.
    """

    max_tokens: int | None = None
    options: Mapping[str, OptionRange] = {}
    schemas: SchemaRules | None = None
    known_options: frozenset[str] | None = None

    def __or__(self, other: "ModelBounds") -> "ModelBounds":
        """Both together; what `other` says wins."""
        return ModelBounds(
            max_tokens=self.max_tokens if other.max_tokens is None else other.max_tokens,
            options={**self.options, **other.options},
            schemas=other.schemas or self.schemas,
            known_options=self.known_options if other.known_options is None else other.known_options,
        )


class BoundsRow(Struct, frozen=True):
    """The bounds of all models of an upstream whose own names match a pattern, as in `kimi-k2.[5-9]*`."""

    pattern: str
    bounds: ModelBounds


class BoundedRequest(Struct, frozen=True):
    """What of a request its model takes.

    Args:
        changed: The names of what was left out or changed.
    """

    max_tokens: int | None
    options: Mapping[str, object]
    tools: ToolUse | None
    output_format: OutputFormat
    changed: tuple[str, ...]


def bounds_of(rows: Sequence[BoundsRow], model: str) -> ModelBounds | None:
    """The bounds of a model, by the upstream's name for it; of several rows that match, the later ones win."""
    found = None
    for row in rows:
        if fnmatchcase(model, row.pattern):
            found = row.bounds if found is None else found | row.bounds
    return found


def within_bounds(
    bounds: ModelBounds,
    max_tokens: int | None,
    options: Mapping[str, object],
    tools: ToolUse | None,
    output_format: OutputFormat,
) -> BoundedRequest:
    """Bring a request within the bounds of its model."""
    changed: list[str] = []
    if max_tokens is not None and bounds.max_tokens is not None and max_tokens > bounds.max_tokens:
        max_tokens = bounds.max_tokens
        changed.append("max_tokens")
    if options and bounds.known_options is not None and not bounds.known_options.issuperset(options):
        changed += sorted(options.keys() - bounds.known_options - _INCONSEQUENTIAL)
        options = {name: value for name, value in options.items() if name in bounds.known_options}
    if options and not bounds.options.keys().isdisjoint(options):
        options = _ranged(options, bounds.options, changed)
    if bounds.schemas == "moonshot":
        if tools is not None:
            tools = _with_moonshot_schemas(tools, changed)
        if output_format.schema is not None:
            schema = moonshot_schema(output_format.schema)
            if schema is not output_format.schema:
                output_format = replace(output_format, schema=schema)
                changed.append("response_format.schema")
    return BoundedRequest(max_tokens, options, tools, output_format, tuple(changed))


def _ranged(
    options: Mapping[str, object], ranges: Mapping[str, OptionRange], changed: list[str]
) -> Mapping[str, object]:
    kept = dict(options)
    for name, (least, largest) in ranges.items():
        value = options.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if least == largest:
            del kept[name]
        elif not least <= value <= largest:
            kept[name] = largest if value > largest else least
        if not least <= value <= largest:
            changed.append(name)
    return kept


def _with_moonshot_schemas(use: ToolUse, changed: list[str]) -> ToolUse:
    tools = []
    for tool in use.tools:
        parameters = moonshot_schema(tool.parameters)
        tools.append(tool if parameters is tool.parameters else replace(tool, parameters=parameters))
    if all(ours is theirs for ours, theirs in zip(tools, use.tools, strict=True)):
        return use
    changed.append("tools.parameters")
    return replace(use, tools=tuple(tools))
