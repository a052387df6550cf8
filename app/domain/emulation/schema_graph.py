"""How the parts of a client's schema lead to each other, for estimating what checking a value could cost.

Costs are counted in looks: a look at a value by a part of a schema takes some ten nanoseconds.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from app.domain.emulation.pattern_cost import PatternCost

# Where a schema contains further schemas: for the same value, and for what is inside it.
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_OF_NAMES = "propertyNames"
_OF_MEMBERS = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", _OF_NAMES)
_OF_ITEMS = ("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains")
_INSIDE = frozenset((*_OF_MEMBERS, *_OF_ITEMS))
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_LEADING = REFERENCES.union(_SAME_VALUE, _INSIDE)
_ANCHORS = ("$anchor", "$dynamicAnchor")
_IDS = ("$id", "id")
_NAMING = frozenset((*_ANCHORS, *_IDS))
_WITH_VALUES = frozenset({"enum", "const"})
_WITH_NAMES = frozenset({"required", "dependentRequired", "dependencies"})
_ENDLESS = 10**9
_MOST_PARTS = 50_000
_NAMES_OF_STEP = 50
_LONGEST_PATH = 2000
_MOST_TARGETS = 50_000
# What a pattern costs however short the text is, and a comparison with a value that has parts, for each of its values.
_PATTERN_COST = 20
_COMPARISON_COST = 10
# To know what is left over for these keywords, the schemas for the same value are gone through again, for each member.
_UNEVALUATED = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_UNEVALUATED_COST, _TIMES_UNEVALUATED = 15, 3
# For so many characters, a pattern that backtracks costs as much again for each of them.
_SLOWER_EVERY = 5000

Schema = Mapping[str, object]


class _Patterns(Struct, frozen=True):
    """Patterns that are applied to the same texts: how many, and what they cost for each character."""

    number: int = 0
    per_character: int = 0
    per_character_backtracking: int = 0

    @property
    def looks(self) -> int:
        return self.number * _PATTERN_COST + self.per_character + self.per_character_backtracking

    def looks_at(self, value: object) -> int:
        looks = 0
        for text in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
            slower = self.per_character_backtracking * (1 + len(text) // _SLOWER_EVERY)
            looks += self.number * _PATTERN_COST + len(text) * (self.per_character + slower)
        return looks


class _Node(Struct, eq=False):
    """A schema and those that it leads to.

    Args:
        looks: At one value, patterns not counted.
        patterns: Those that are applied to a string, or to each name of an object; None if there are none.
        faults: How many a value can have here.
        options: Bytes of the values that are allowed, of which each fault has a copy.
        times: How often the schemas for the same value are gone through.
        same: The schemas for the same value.
        inside: The schemas for what is inside it.
    """

    schema: Schema
    looks: int
    patterns: _Patterns | None
    faults: int
    options: int
    times: int
    same: "list[_Node]"
    inside: "list[_Node]"


class SchemaGraph:
    """How the parts of a schema lead to each other.

    Args:
        root: The whole schema.
        patterns: What each of its patterns costs.

    Raises:
        ValueError: A chain of references is too long, or they could lead to too many places.

    Attributes:
        alternatives: How many parts apply to one value at once, at most.
    """

    def __init__(self, root: Schema, patterns: Mapping[str, PatternCost]) -> None:
        self._targets = _Targets(root)
        self._patterns = patterns
        self._nodes: dict[int, _Node] = {}
        self._breadths: dict[int, int] = {}
        self._root = self._node(root)
        self._build()
        self.alternatives = self._most_at_once(_one)

    @cached_property
    def _has_patterns(self) -> bool:
        return any(node.patterns is not None for node in self._nodes.values())

    @cached_property
    def _has_unevaluated(self) -> bool:
        return any(node.times > 1 for node in self._nodes.values())

    @cached_property
    def _whole(self) -> int:
        """The looks of all parts, each counted once for every path that leads to it."""
        return _total(self._root, _all, _weight, {})

    @cached_property
    def _most(self) -> int:
        """The looks of all parts that apply to one value at once, at most."""
        return self._most_at_once(_weight)

    @cached_property
    def _descents(self) -> int:
        """How many parts that look inside a value apply to it at once, at most."""
        return max(1, self._most_at_once(_looks_inside))

    def looks(self, value: object) -> int:
        """An upper bound on the looks at a value and everything in it: quickly found, often far too high."""
        depth, parts, characters, longest = extent(value, _MOST_PARTS)
        if parts > _MOST_PARTS:
            return _ENDLESS
        ways: int = min(self._whole, self._descents ** min(depth, 64) * self._most)
        if self._has_patterns:
            parts += characters * (1 + longest // _SLOWER_EVERY)
        return ways * parts * (_UNEVALUATED_COST if self._has_unevaluated else 1)

    def exact_looks(self, value: object, most_steps: int) -> int | None:
        """Like `looks`, but close to the truth; None if it takes more steps than are allowed to find out."""
        looks = 0
        for part, node in self._visits(value, most_steps):
            if node is None:
                return None
            looks += node.looks
            if node.patterns is not None:
                looks += node.patterns.looks_at(part)
            if node.times > 1 and isinstance(part, dict | list):
                looks += len(part) * _UNEVALUATED_COST * _total(node, _same, _one, self._breadths)
        return looks

    def told(self, value: object, most_steps: int) -> int | None:
        """Bytes that are copied if each fault of a value is described; None likewise."""
        if extent(value, most_steps)[1] > most_steps:
            return None
        sizes = _sizes(value)
        told = 0
        for part, node in self._visits(value, most_steps):
            if node is None:
                return None
            told += node.faults * (sizes.get(id(part)) or _size(part)) + node.options
        return told

    def _visits(self, value: object, most_steps: int) -> Iterator[tuple[object, _Node | None]]:
        """All parts of a value, with each schema that they are checked against; None in place of it ends them early."""
        waiting: list[tuple[object, _Node]] = [(value, self._root)]
        while waiting:
            part, node = waiting.pop()
            most_steps -= 1 + len(node.same) * node.times
            if node.inside and isinstance(part, dict):
                most_steps -= len(part) // _NAMES_OF_STEP
            if most_steps >= 0:
                yield part, node
                waiting.extend([(part, same) for same in node.same] * node.times)
                for inner in self._inside(part, node):
                    most_steps -= 1
                    if most_steps < 0:
                        break
                    waiting.append(inner)
            if most_steps < 0:
                yield part, None
                return

    def _inside(self, value: object, node: _Node) -> Iterator[tuple[object, _Node]]:
        """What is inside a value, each with a schema that it is checked against."""
        if not node.inside:
            return
        if isinstance(value, dict):
            yield from self._members(value, node.schema)
        elif isinstance(value, list):
            for keyword in _OF_ITEMS:
                held = node.schema.get(keyword)
                if isinstance(held, list):
                    yield from ((item, self._node(part)) for item, part in zip(value, held, strict=False) if _is(part))
                elif isinstance(held, dict):
                    yield from ((item, self._node(held)) for item in value)

    def _members(self, value: dict[str, object], schema: Schema) -> Iterator[tuple[object, _Node]]:
        for keyword in _OF_MEMBERS:
            held = schema.get(keyword)
            if not isinstance(held, dict):
                continue
            if keyword == "properties":
                named = held.keys() & value.keys()
                yield from ((value[name], self._node(held[name])) for name in named if _is(held[name]))
            elif keyword == "patternProperties":
                parts = [self._node(part) for part in held.values() if _is(part)]
                yield from ((member, part) for member in value.values() for part in parts)
            else:
                yield from (
                    (member, self._node(held)) for member in (value if keyword == _OF_NAMES else value.values())
                )

    def _node(self, schema: Schema) -> _Node:
        node = self._nodes.get(id(schema))
        if node is None:
            node = self._nodes[id(schema)] = _new_node(schema, self._patterns)
        return node

    def _build(self) -> None:
        waiting = [self._root]
        done: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) in done:
                continue
            done.add(id(node))
            schema = node.schema
            for keyword in schema.keys() & _LEADING:
                parts = self._targets.of(schema[keyword]) if keyword in REFERENCES else _held(schema, keyword)
                nodes = [self._node(part) for part in parts]
                waiting += nodes
                if keyword in _INSIDE:
                    node.inside += nodes
                else:
                    node.same += nodes

    def _most_at_once(self, weight: Callable[[_Node], int]) -> int:
        """The greatest total weight of all schemas that apply to one value at once."""
        known: dict[int, int] = {}
        totals = [_total(node, _same, weight, known) if node.same else weight(node) for node in self._nodes.values()]
        return max(totals)


def resolve(root: Schema, reference: object) -> object:
    """The part of a schema that a reference such as `#/$defs/City` leads to; None for any other reference."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: object = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict):
            place = place.get(key)
        elif isinstance(place, list) and key.isdecimal() and len(key) < 9 and int(key) < len(place):
            place = place[int(key)]
        else:
            return None
    return place if reference == "#" or reference.startswith("#/") else None


def extent(value: object, most: int = sys.maxsize) -> tuple[int, int, int, int]:
    """The depth of a value, the number of values in it, of characters, and of those in its longest string.

    Args:
        most: With more values than this, nothing further is counted.
    """
    depth = parts = characters = longest = 0
    level = [value]
    while level:
        depth += 1
        parts += len(level)
        if parts > most:
            break
        inner: list[object] = []
        for part in level:
            if isinstance(part, dict | list) and parts + len(part) > most:
                return depth + 1, parts + len(part), characters, longest
            if isinstance(part, str):
                characters += len(part)
                longest = max(longest, len(part))
            elif isinstance(part, dict):
                for name in part:
                    characters += len(name)
                    longest = max(longest, len(name))
                inner.extend(part.values())
            elif isinstance(part, list | tuple):
                inner.extend(part)
        level = inner
    return depth, parts, characters, longest


class _Targets:
    """Where references lead: to all places that one could lead to, depending on bases and scopes."""

    def __init__(self, root: Schema) -> None:
        self._known: dict[str, list[Schema]] = {}
        self._anchors: dict[str, list[Schema]] = {}
        # By the last step of their address; "" where that can't be told.
        self._resources: dict[str, list[Schema]] = {}
        self._root = root
        self._tries = 0
        waiting: list[object] = [root]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                if not _NAMING.isdisjoint(part):
                    self._note(part)
                waiting.extend(part.values())
            elif isinstance(part, list):
                waiting.extend(part)

    def of(self, reference: object) -> list[Schema]:
        if not isinstance(reference, str):
            return []
        if reference not in self._known:
            self._known[reference] = list({id(part): part for part in self._found(reference)}.values())
        targets = self._known[reference]
        self._tries += len(targets)
        if self._tries > _MOST_TARGETS:
            raise ValueError("its references could lead to too many places")
        return targets

    def _note(self, part: Schema) -> None:
        for name in _ANCHORS:
            if name in part:
                self._anchors.setdefault(str(part[name]), []).append(part)
        for name in _IDS:
            given = part.get(name)
            if isinstance(given, str) and given.startswith("#"):
                self._anchors.setdefault(given[1:], []).append(part)
            elif isinstance(given, str):
                self._resources.setdefault(_last_step(given), []).append(part)

    def _found(self, reference: str) -> Iterator[Schema]:
        address, _, fragment = reference.partition("#")
        wanted = _last_step(address)
        named = [wanted, ""] if wanted else list(self._resources)
        found = [resource for name in named for resource in self._resources.get(name, ())]
        for resource in found if wanted else [self._root, *found]:
            self._tries += 1
            if self._tries > _MOST_TARGETS:
                raise ValueError("its references could lead to too many places")
            place = resolve(resource, f"#{fragment}")
            if isinstance(place, Mapping):
                yield place
        yield from self._anchors.get(unquote(fragment), ())


def _last_step(address: str) -> str:
    """What two addresses of the same place have in common, however they are written; "" if that can't be told."""
    try:
        step = unquote(urlsplit(address).path).rsplit("/", 1)[-1].casefold()
    except ValueError:
        return ""
    return "" if step in (".", "..") else step


def patterns_of(schema: Schema) -> Iterator[str]:
    """The patterns that a schema applies to a string, or to the names in an object."""
    pattern, by_pattern = schema.get("pattern"), schema.get("patternProperties")
    if isinstance(pattern, str):
        yield pattern
    if isinstance(by_pattern, Mapping):
        yield from by_pattern


def _new_node(schema: Schema, costs: Mapping[str, PatternCost]) -> _Node:
    times = 1 if _UNEVALUATED.isdisjoint(schema) else _TIMES_UNEVALUATED
    looks, options, faults = 1, 0, 1
    for keyword in schema.keys() & _WITH_VALUES:
        allowed = schema[keyword]
        _, parts, characters, _ = extent(allowed)
        options += _bytes(parts, characters)
        choices = allowed if isinstance(allowed, list) else [allowed]
        if any(isinstance(choice, dict | list) for choice in choices):
            looks += _COMPARISON_COST * parts
    for keyword in schema.keys() & _WITH_NAMES:
        named = schema[keyword]
        groups = named.values() if isinstance(named, dict) else (named,)
        faults += sum(len(group) for group in groups if isinstance(group, list))
    return _Node(schema, looks, _patterns(schema, costs) if costs else None, faults, options, times, [], [])


def _patterns(schema: Schema, costs: Mapping[str, PatternCost]) -> _Patterns | None:
    found = [costs[pattern] for pattern in patterns_of(schema)]
    if not found:
        return None
    return _Patterns(
        len(found),
        sum(cost.per_character for cost in found if not cost.backtracks),
        sum(cost.per_character for cost in found if cost.backtracks),
    )


def _weight(node: _Node) -> int:
    return node.looks if node.patterns is None else node.looks + node.patterns.looks


def _total(
    start: _Node, inner: Callable[[_Node], list[_Node]], weight: Callable[[_Node], int], known: dict[int, int]
) -> int:
    """The total weight of all nodes that one leads to, each counted once for every path to it."""
    path: list[tuple[_Node, Iterator[_Node], int]] = []
    if id(start) in known:
        return known[id(start)]
    node, rest, total = start, iter(inner(start)), weight(start)
    known[id(start)] = _ENDLESS  # found again on its own path: a cycle
    while True:
        following = next(rest, None)
        if following is None:
            known[id(node)] = total = min(total * node.times, _ENDLESS)
            if not path:
                return total
            node, rest, outer = path.pop()
            total += outer
        elif id(following) in known:
            total += known[id(following)]
        elif not inner(following):
            known[id(following)] = weight(following)
            total += weight(following)
        else:
            if len(path) > _LONGEST_PATH:
                raise ValueError("the chain of references is too long")
            path.append((node, rest, total))
            node, rest, total = following, iter(inner(following)), weight(following)
            known[id(node)] = _ENDLESS


def _one(_node: _Node) -> int:
    return 1


def _looks_inside(node: _Node) -> int:
    return int(bool(node.inside))


def _same(node: _Node) -> list[_Node]:
    return node.same


def _all(node: _Node) -> list[_Node]:
    return node.same + node.inside


def _is(part: object) -> bool:
    return isinstance(part, dict)


def _bytes(parts: int, characters: int) -> int:
    """What a copy of a value takes, roughly."""
    return parts * 150 + characters * 4


def _size(value: object) -> int:
    return _bytes(1, len(value) if isinstance(value, str) else 0)


def _sizes(value: object) -> dict[int, int]:
    """What a copy takes of each list and each object in a value."""
    order: list[object] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            order.append(part)
            waiting.extend(part.values() if isinstance(part, dict) else part)
    sizes: dict[int, int] = {}
    for part in reversed(order):
        if isinstance(part, dict):
            names = sum(map(len, part))
            sizes[id(part)] = _bytes(1, names) + sum(sizes.get(id(inner)) or _size(inner) for inner in part.values())
        elif isinstance(part, list):
            sizes[id(part)] = _bytes(1, 0) + sum(sizes.get(id(inner)) or _size(inner) for inner in part)
    return sizes


def _held(schema: Schema, keyword: str) -> list[Schema]:
    """The schemas that a keyword holds."""
    held = schema[keyword]
    if isinstance(held, list):
        return [part for part in held if isinstance(part, dict)]
    if not isinstance(held, dict):
        return []
    return [part for part in held.values() if isinstance(part, dict)] if keyword in _BY_NAME else [held]
