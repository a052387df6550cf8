"""Clients' JSON Schemas: refused early if they can't be used, and values checked against them at a bounded cost.

jsonschema-rs does the checking. Nothing is ever fetched: a reference must lead to a place within the schema itself.
It holds the event loop while it compiles or checks, so what that could cost is bounded beforehand: the size of all
schemas of a request together and the automata of their patterns, which take most to compile (`SchemaCompiler`), and for
each value how often it would be looked at, and by what (`SchemaGraph`).
"""

import hashlib
import importlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import msgspec
from msgspec import Struct

from app.domain.chat import PLAIN_TEXT, OutputFormat, Tool
from app.domain.emulation.pattern_cost import PatternCost, pattern_cost
from app.domain.emulation.schema_graph import REFERENCES, Schema, SchemaGraph, extent, patterns_of
from app.domain.errors import InvalidRequest

_DEEPEST_SCHEMA = 60
_MOST_NODES = 20_000
_MOST_ALTERNATIVES = 10_000
# Of all schemas of a request together.
_MOST_NODES_TOGETHER = 20_000
_MOST_BYTES_TOGETHER = 4_000_000
_MOST_PATTERN_CHARACTERS = 20_000
# To compile a state takes some 400 ns and 140 bytes.
_MOST_PATTERN_STATES = 80_000
# A look takes some ten nanoseconds.
_MOST_LOOKS = 3_000_000
_LOOKS_OF_STEP = 200  # when they are counted exactly
_MOST_STEPS_TOLD = 5_000
# The validator copies the value, and what is allowed, for every fault, and describes all faults at once.
_MOST_BYTES_TOLD = 10_000_000
_BYTES_OF_LOOK = 5
_MOST_FAULTS = 3
_LONGEST_REASON = 400
_DEEPEST_TO_ENCODE = 100
_DEEP, _PARTS_IN_DEPTH = 20, 1000
# What a compiled schema keeps in memory: for each value, and for each pattern with all its caches.
_NODE_BYTES, _PATTERN_BYTES = 1000, 300_000
_DIGEST_BYTES = 20


class _Extent(Struct, frozen=True):
    """What a schema takes of a request's budget."""

    nodes: int
    patterns: frozenset[str]
    has_references: bool


class Effort:
    """How many looks at the values in a reply are left, all of its calls together."""

    def __init__(self) -> None:
        self.left = _MOST_LOOKS

    def spend(self, looks: int) -> bool:
        """Take so many, if there are as many; whether there were."""
        if looks > self.left:
            return False
        self.left -= looks
        return True


class SchemaCheck:
    """Checks values against a schema.

    Attributes:
        schema: The schema.

    Raises:
        ValueError: The schema is one that `check_schema` refuses.
    """

    def __init__(
        self, schema: Schema, extent_: _Extent | None = None, costs: Mapping[str, PatternCost] | None = None
    ) -> None:
        self.schema = schema
        self.extent = extent_ or _extent_of(schema)
        known = costs or {}
        self._costs = {pattern: known.get(pattern) or pattern_cost(pattern) for pattern in self.extent.patterns}
        self._made: SchemaGraph | None = None
        # Without references, a schema has no more alternatives than values.
        if self.extent.has_references and self._graph.alternatives > _MOST_ALTERNATIVES:
            raise ValueError("a part of it refers to itself endlessly, or offers too many alternatives at once")
        # Imported at the first schema: it takes 3 MB, and many a worker never sees one.
        self._validator = importlib.import_module("app.domain.emulation.validator").Validator(schema)

    def faults(self, value: object, effort: Effort | None = None) -> list[str]:
        """What is wrong with a value, in a few short phrases; empty if it fits the schema.

        Args:
            effort: What may still be spent on it. A value that takes more counts as faulty.
        """
        effort = Effort() if effort is None else effort
        if not self._is_affordable(value, effort):
            is_deep = extent(value, _PARTS_IN_DEPTH)[0] > _DEEP
            return [f"it is {'nested too deeply' if is_deep else 'too large'} for this schema"]
        try:
            return [] if self._validator.is_valid(value) else self._told(value, effort)
        except UnicodeEncodeError:  # lone surrogates: valid JSON, which the validator can't take
            is_shallow = extent(value)[0] <= _DEEPEST_TO_ENCODE
            return self.faults(_encodable(value), effort) if is_shallow else ["it is nested too deeply"]
        except ValueError:
            return ["it is nested too deeply"]

    @property
    def _graph(self) -> SchemaGraph:
        if self._made is None:
            self._made = SchemaGraph(self.schema, self._costs)
        return self._made

    def _is_affordable(self, value: object, effort: Effort) -> bool:
        if effort.spend(self._graph.looks(value)):
            return True
        steps = effort.left // _LOOKS_OF_STEP // 2
        looks = self._graph.exact_looks(value, steps)
        return effort.spend(steps * _LOOKS_OF_STEP) and looks is not None and effort.spend(looks)

    def _told(self, value: object, effort: Effort) -> list[str]:
        told = self._graph.told(value, _MOST_STEPS_TOLD)
        if told is None or told > _MOST_BYTES_TOLD or not effort.spend(told // _BYTES_OF_LOOK):
            return ["it does not fit the schema"]
        return list(islice(self._validator.faults(value), _MOST_FAULTS))


class Checks(Struct, frozen=True):
    """What the values in a reply are checked with.

    Args:
        tools: For the arguments of each tool, by its name.
        answer: For an answer in JSON; None if it has no schema.
    """

    tools: Mapping[str, SchemaCheck]
    answer: SchemaCheck | None = None


class SchemaCompiler:
    """Compiles the schemas of requests, each once: agents send the same tools again and again.

    Args:
        memory: How much the compiled schemas may take that it remembers, in bytes, roughly.
    """

    def __init__(self, memory: int = 32_000_000) -> None:
        self._memory = memory
        self._used = 0
        self._checks: OrderedDict[bytes, SchemaCheck] = OrderedDict()

    def checks(self, tools: Sequence[Tool], output_format: OutputFormat) -> Checks:
        """Compile the schemas of a request.

        Raises:
            InvalidRequest: One is not a valid JSON Schema, refers to something outside itself, is too large or too
                deep, or is of no object, as a tool's arguments are; or all together are too large.
        """
        budget = _Budget()
        by_name: dict[str, SchemaCheck] = {}
        for index, tool in enumerate(tools):
            param = tool.place or f"tools[{index}]"
            by_name[tool.name] = self._check(tool.parameters, param, budget, of_object=True)
        schema = output_format.schema
        return Checks(by_name, None if schema is None else self._check(schema, output_format.place, budget))

    def _check(self, schema: Schema, param: str, budget: "_Budget", *, of_object: bool = False) -> SchemaCheck:
        budget.spend_nodes(_count(schema, param), param)
        key = budget.spend_bytes(schema, param)
        if of_object and schema.get("type", "object") != "object":
            raise InvalidRequest(f'{param}: the schema of a tool must have "type": "object".', param=param)
        known = self._checks.get(key)
        if known is not None:
            budget.spend_patterns(known.extent.patterns, param)
            self._checks.move_to_end(key)
            return known
        check = _compiled(schema, param, budget)
        self._remember(key, check)
        return check

    def _remember(self, key: bytes, check: SchemaCheck) -> None:
        self._checks[key] = check
        self._used += _memory(check)
        while self._used > self._memory:
            _, oldest = self._checks.popitem(last=False)
            self._used -= _memory(oldest)


def check_schema(schema: Schema, param: str, *, of_object: bool = False) -> None:
    """Refuse a schema that can't be used.

    Args:
        schema: As the client sent it.
        param: The field that contains it.
        of_object: Whether it must describe an object, as a tool's arguments do.

    Raises:
        InvalidRequest: See `SchemaCompiler.checks`.
    """
    if of_object:
        SchemaCompiler().checks((Tool("", parameters=schema, place=param),), PLAIN_TEXT)
    else:
        SchemaCompiler().checks((), OutputFormat("json_schema", schema, place=param))


class _Budget:
    """What the schemas of one request may take together."""

    def __init__(self) -> None:
        self._nodes = self._bytes = self._states = self._characters = 0
        self._patterns: dict[str, PatternCost] = {}

    def spend_nodes(self, nodes: int, param: str) -> None:
        self._nodes += nodes
        if self._nodes > _MOST_NODES_TOGETHER:
            raise _over("schemas", f"contain at most {_MOST_NODES_TOGETHER} values", param)

    def spend_bytes(self, schema: Schema, param: str) -> bytes:
        """A key for the schema, from its text."""
        try:
            text = msgspec.json.encode(schema)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"{param} is not a usable JSON Schema: it can't be encoded.", param=param) from error
        self._bytes += len(text)
        if self._bytes > _MOST_BYTES_TOGETHER:
            raise _over("schemas", f"have at most {_MOST_BYTES_TOGETHER} bytes", param)
        return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()

    def spend_patterns(self, patterns: Collection[str], param: str) -> Mapping[str, PatternCost]:
        """What each pattern costs. Those of the same text are estimated once, but compiled for each schema."""
        for pattern in patterns:
            if pattern not in self._patterns:
                self._characters += len(pattern)
                if self._characters > _MOST_PATTERN_CHARACTERS:
                    raise _over("regexes in the schemas", f"have at most {_MOST_PATTERN_CHARACTERS} characters", param)
                self._patterns[pattern] = pattern_cost(pattern)
            self._states += self._patterns[pattern].states
        if self._states > _MOST_PATTERN_STATES:
            raise _over("regexes in the schemas", f"have at most {_MOST_PATTERN_STATES} states", param)
        return self._patterns


def _over(what: str, most: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: all {what} of a request together may {most}.", param=param)


def _compiled(schema: Schema, param: str, budget: _Budget) -> SchemaCheck:
    try:
        extent_ = _extent_of(schema)
        return SchemaCheck(schema, extent_, budget.spend_patterns(extent_.patterns, param))
    except ValueError as error:
        why = str(error) if len(str(error)) <= _LONGEST_REASON else "it can't be read"
        raise InvalidRequest(f"{param} is not a usable JSON Schema: {why}.", param=param) from error


def _count(schema: Schema, param: str) -> int:
    """The number of values in a schema."""
    nodes = 1
    level: list[object] = [schema]
    for _ in range(_DEEPEST_SCHEMA):
        inner: list[object] = []
        for part in level:
            if isinstance(part, list | dict):
                nodes += len(part)
                if nodes > _MOST_NODES:
                    raise InvalidRequest(f"{param}: a schema may contain at most {_MOST_NODES} values.", param=param)
                inner.extend(part if isinstance(part, list) else part.values())
        if not inner:
            return nodes
        level = inner
    raise InvalidRequest(f"{param}: a schema may be nested at most {_DEEPEST_SCHEMA} levels deep.", param=param)


def _extent_of(schema: Schema) -> _Extent:
    nodes = 0
    patterns: set[str] = set()
    has_references = False
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        nodes += 1
        if isinstance(part, dict):
            has_references = has_references or not REFERENCES.isdisjoint(part)
            if "pattern" in part or "patternProperties" in part:
                patterns.update(patterns_of(part))
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return _Extent(nodes, frozenset(patterns), has_references)


def _memory(check: SchemaCheck) -> int:
    return check.extent.nodes * _NODE_BYTES + len(check.extent.patterns) * _PATTERN_BYTES


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_encodable(name): _encodable(member) for name, member in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
