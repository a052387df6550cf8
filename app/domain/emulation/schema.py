"""Clients' JSON Schemas: refused early if they can't be used, and values checked against them at a bounded cost.

jsonschema-rs does the checking. Nothing is ever fetched: a reference must lead to a place within the schema itself.
Patterns run in an engine with a limit on backtracking. What remains is a schema that offers a value many alternatives
at each level of nesting; `SchemaCheck` estimates beforehand how often it could look at a value.
"""

from collections.abc import Callable, Mapping
from urllib.parse import unquote

import jsonschema_rs

from app.domain.errors import InvalidRequest

_DEEPEST_SCHEMA = 60
_MOST_NODES = 20_000
_MOST_ALTERNATIVES = 10_000
# A look takes some ten nanoseconds, describing a fault up to a hundred times that. Nearly all values need far fewer
# looks than the estimate says: these bounds are against schemas that are made to stall the process.
_MOST_LOOKS = 100_000_000
_MOST_LOOKS_TOLD = 1_000_000
_BACKTRACKING = jsonschema_rs.FancyRegexOptions(backtrack_limit=50_000, size_limit=2_000_000)
_MOST_FAULTS = 3
_LONGEST_FAULT = 160

# Where a schema contains further schemas: for the same value, and for what is inside it.
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
        param: The field that contains it.
        of_object: Whether it must describe an object, as a tool's arguments do.

    Raises:
        InvalidRequest: It is not a valid JSON Schema, refers to something outside itself, or is too large or too deep.
    """
    try:
        _refuse_outsized(schema, param)
        if of_object and schema.get("type", "object") != "object":
            raise InvalidRequest(f'{param}: the schema of a tool must have "type": "object".', param=param)
        SchemaCheck(schema)
    except jsonschema_rs.ValidationError as error:
        raise InvalidRequest(f"{param} is not a usable JSON Schema: {_told(error)}.", param=param) from error
    except RecursionError as error:
        raise InvalidRequest(f"{param}: the chain of references is too long.", param=param) from error
    except ValueError as error:
        why = str(error) if len(str(error)) <= _LONGEST_FAULT else "it can't be read"
        raise InvalidRequest(f"{param} is not a usable JSON Schema: {why}.", param=param) from error


def resolve(root: Mapping[str, object], reference: object) -> object:
    """The part of a schema that a reference such as `#/$defs/City` leads to; None for any other reference."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: object = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping):
            place = place.get(key)
        elif isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        else:
            return None
    return place if reference == "#" or reference.startswith("#/") else None


class SchemaCheck:
    """Checks values against a schema.

    Raises:
        ValueError: The schema is one that `check_schema` refuses.
    """

    def __init__(self, schema: Mapping[str, object]) -> None:
        self.schema = schema
        self._graph = _Graph(schema)
        if self._graph.alternatives > _MOST_ALTERNATIVES:
            raise ValueError("a part of it refers to itself endlessly, or offers too many alternatives at once")
        self._validator = jsonschema_rs.validator_for(
            dict(schema), offline=True, validate_formats=False, pattern_options=_BACKTRACKING
        )

    def faults(self, value: object) -> list[str]:
        """What is wrong with a value, in a few short phrases; empty if it fits the schema."""
        looks = self._graph.looks(value)
        if looks > _MOST_LOOKS:
            return ["it is nested too deeply for this schema"]
        try:
            if self._validator.is_valid(value):
                return []
            return self._told(value) if looks <= _MOST_LOOKS_TOLD else ["it does not fit the schema"]
        except UnicodeEncodeError:  # lone surrogates: valid JSON, which the validator can't take
            return self.faults(_encodable(value))
        except ValueError:
            return ["it is nested too deeply"]

    def is_costly(self, value: object) -> bool:
        """Whether going through a value part by part could take too long."""
        return self._graph.looks(value) > _MOST_LOOKS_TOLD

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
            raise InvalidRequest(f"{param}: a schema may contain at most {_MOST_NODES} values.", param=param)
        level = [inner for outer in level for inner in _contents(outer)]
        if not level:
            return
    raise InvalidRequest(f"{param}: a schema may be nested at most {_DEEPEST_SCHEMA} levels deep.", param=param)


def _contents(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def _extent(value: object) -> tuple[int, int]:
    """The depth of a value, and the number of values in it."""
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
    """How the parts of a schema lead to each other, for estimating how often a value could be looked at."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._whole = self._ways(root, _all_schemas, _one, {})
        self._descents = self._most(_looks_inside)
        self.alternatives = self._most(_one)

    def looks(self, value: object) -> int:
        """An upper bound on the looks at the value and everything in it."""
        depth, parts = _extent(value)
        ways: int = max(self._descents, 1) ** min(depth, 64) * self.alternatives
        return min(self._whole, ways) * parts

    def _most(self, weight: Callable[[object], int]) -> int:
        """The greatest total weight of all schemas that apply to one value at once."""
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
        """The total weight of all parts, each counted once for every path that leads to it."""
        if id(schema) not in known:
            known[id(schema)] = _ENDLESS  # found again on its own path: a cycle
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
