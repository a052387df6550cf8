"""JSON Schemas of clients: refused early if they can't work, and values checked against them at a bounded cost.

The work is jsonschema-rs's. Nothing is ever fetched: a reference must lead to a place within the schema itself.
Patterns run in an engine that can't be made to backtrack for long. What remains is a schema that offers the same value
many alternatives at each level of nesting; `SchemaCheck` reckons beforehand how often it could look at a value.
"""

from collections.abc import Callable, Mapping

import jsonschema_rs

from app.domain.emulation.coercion import coerced
from app.domain.emulation.references import resolve
from app.domain.errors import InvalidRequest

_DEEPEST_SCHEMA = 60
_MOST_NODES = 20_000
_MOST_ALTERNATIVES = 10_000
# A look takes some ten nanoseconds, telling what is wrong up to a hundred times that. Nearly all values need far fewer
# looks than could be needed: these bounds are for those that were made to hold the process up.
_MOST_LOOKS = 100_000_000
_MOST_LOOKS_TOLD = 1_000_000
_BACKTRACKING = jsonschema_rs.FancyRegexOptions(backtrack_limit=50_000, size_limit=2_000_000)
_MOST_FAULTS = 3
_LONGEST_FAULT = 160

# Where a schema holds further schemas: for the same value, and for what is inside it.
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_INSIDE = (
    *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
)
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ENDLESS = 10**9

_Inner = Callable[[object, Mapping[str, object]], list[object]]


def check_schema(schema: Mapping[str, object], param: str, *, of_object: bool = False) -> None:
    """Refuse a schema that can't be used.

    Args:
        schema: As the client sent it.
        param: The field that holds it.
        of_object: It describes an object and nothing else, as a tool's arguments.

    Raises:
        InvalidRequest: It is no valid JSON Schema, refers to something outside itself, or is too large or too deep.
    """
    try:
        _refuse_outsized(schema, param)
        if of_object and schema.get("type", "object") != "object":
            raise InvalidRequest(f'{param}: the schema of a tool must have "type": "object".', param=param)
        SchemaCheck(schema)
    except jsonschema_rs.ValidationError as error:
        raise InvalidRequest(f"{param} is not a usable JSON Schema: {_told(error)}.", param=param) from error
    except RecursionError as error:
        raise InvalidRequest(f"{param}: its references lead too far from one to the next.", param=param) from error
    except ValueError as error:
        why = str(error) if len(str(error)) <= _LONGEST_FAULT else "it can't be read"
        raise InvalidRequest(f"{param} is not a usable JSON Schema: {why}.", param=param) from error


class SchemaCheck:
    """Whether values fit a schema.

    Raises:
        ValueError: `check_schema` would not have let it pass.
    """

    def __init__(self, schema: Mapping[str, object]) -> None:
        self.schema = schema
        self._graph = _Graph(schema)
        if self._graph.alternatives > _MOST_ALTERNATIVES:
            raise ValueError("a part of it refers to itself without end, or offers too many alternatives at once")
        self._validator = jsonschema_rs.validator_for(
            dict(schema), offline=True, validate_formats=False, pattern_options=_BACKTRACKING
        )

    def faults(self, value: object) -> list[str]:
        """What is wrong with a value, in a few short phrases; empty if it fits."""
        looks = self._graph.looks(value)
        if looks > _MOST_LOOKS:
            return ["it is nested too deeply for this schema"]
        try:
            if self._validator.is_valid(value):
                return []
            return self._told(value) if looks <= _MOST_LOOKS_TOLD else ["it does not fit the schema"]
        except UnicodeEncodeError:  # halves of surrogate pairs: valid JSON, unknown to the validator
            return self.faults(_encodable(value))
        except ValueError:
            return ["it is nested too deeply"]

    def coerced(self, value: object) -> object:
        """The value with strings turned to what the schema asks for, where they say just that."""
        return value if self._graph.looks(value) > _MOST_LOOKS_TOLD else coerced(value, self.schema, self.schema)

    def _told(self, value: object) -> list[str]:
        faults: list[str] = []
        for error in self._validator.iter_errors(value):
            faults.append(_told(error))
            if len(faults) == _MOST_FAULTS:
                break
        return faults


def _told(error: jsonschema_rs.ValidationError) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path).lstrip(".")
    message = error.message if len(error.message) <= _LONGEST_FAULT else f"…{error.message[1 - _LONGEST_FAULT :]}"
    return f"{place}: {message}" if place else message


def _refuse_outsized(schema: Mapping[str, object], param: str) -> None:
    nodes = 0
    level: list[object] = [schema]
    for _ in range(_DEEPEST_SCHEMA):
        nodes += len(level)
        if nodes > _MOST_NODES:
            raise InvalidRequest(f"{param}: a schema may have at most {_MOST_NODES} values in it.", param=param)
        level = [inner for outer in level for inner in _contents(outer)]
        if not level:
            return
    raise InvalidRequest(f"{param}: a schema may be nested at most {_DEEPEST_SCHEMA} levels deep.", param=param)


def _contents(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def _extent(value: object) -> tuple[int, int]:
    """How deeply a value is nested, and how many values are in it."""
    depth, parts, level = 0, 0, [value]
    while level:
        depth += 1
        parts += len(level)
        level = [inner for outer in level for inner in _contents(outer)]
    return depth, parts


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_encodable(name): _encodable(member) for name, member in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value


class _Graph:
    """How the parts of a schema lead to each other, to reckon how often a value could be looked at."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._whole = self._ways(root, _all_schemas, _one, {})
        self._descents = self._most(_looks_inside)
        self.alternatives = self._most(_one)

    def looks(self, value: object) -> int:
        """An upper bound of how often anything in the value could be looked at."""
        depth, parts = _extent(value)
        ways: int = max(self._descents, 1) ** min(depth, 64) * self.alternatives
        return min(self._whole, ways) * parts

    def _most(self, weight: Callable[[object], int]) -> int:
        """The weight of all schemas that apply at once to the same value, where it is greatest."""
        known: dict[int, int] = {}
        seen: set[int] = set()
        waiting: list[object] = [self._root]
        most = 0
        while waiting:
            schema = waiting.pop()
            if id(schema) not in seen:
                seen.add(id(schema))
                most = max(most, self._ways(schema, _same_value_schemas, weight, known))
                waiting.extend(_all_schemas(schema, self._root))
        return most

    def _ways(self, schema: object, inner: _Inner, weight: Callable[[object], int], known: dict[int, int]) -> int:
        """The sum of the weights of all parts, each counted once for every way that leads to it."""
        if id(schema) not in known:
            known[id(schema)] = _ENDLESS  # what is found again on the way leads round in a circle
            ways = sum(self._ways(part, inner, weight, known) for part in inner(schema, self._root))
            known[id(schema)] = min(weight(schema) + ways, _ENDLESS)
        return known[id(schema)]


def _one(_schema: object) -> int:
    return 1


def _looks_inside(schema: object) -> int:
    return int(isinstance(schema, Mapping) and any(keyword in schema for keyword in _INSIDE))


def _same_value_schemas(schema: object, root: Mapping[str, object]) -> list[object]:
    if not isinstance(schema, Mapping):
        return []
    targets = [resolve(root, schema[name]) for name in _REFERENCES if name in schema]
    return [*_inner(schema, _SAME_VALUE), *(target for target in targets if target is not None)]


def _all_schemas(schema: object, root: Mapping[str, object]) -> list[object]:
    if not isinstance(schema, Mapping):
        return []
    return [*_same_value_schemas(schema, root), *_inner(schema, _INSIDE)]


def _inner(schema: Mapping[str, object], keywords: tuple[str, ...]) -> list[object]:
    found: list[object] = []
    for keyword in keywords:
        held = schema.get(keyword)
        if keyword in _BY_NAME and isinstance(held, Mapping):
            found.extend(held.values())
        elif isinstance(held, list | tuple):
            found.extend(held)
        elif isinstance(held, Mapping):
            found.append(held)
    return [part for part in found if isinstance(part, Mapping)]
