"""The hostile inputs that `benchmarks.hostile` measures. To add one, add a row to a list below, or a list to `rows`.

`_asked` is a whole request to the app, in this process. `_request_with` is one whose schema is hostile: what the same
schema costs in a field that nobody reads is subtracted.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from app.assembly.app import create_app
from app.domain.chat import PLAIN_TEXT, Completion, Delta, Message, OutputFormat, Tool, ToolUse
from app.domain.emulation.coercion import coerced
from app.domain.emulation.emulator import Emulator, Unreadable
from app.domain.emulation.repair import repaired
from app.domain.emulation.schema import Effort, SchemaCheck
from app.domain.errors import ContextTooLong
from app.domain.output_limiter import OutputLimiter
from app.domain.prompt import PromptLimit, compose
from app.domain.wording import without_notice
from app.providers.api_upstream.failure import quotable
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec
from app.settings import load_settings
from benchmarks.hostile import Case, Row, Work

_KEY = "sk-hostile-4f9a1c77d2e0"
_TAG = "k3f9x2"
_SMALL = (2_000, 4_000, 8_000)
# What a megabyte of markup may take, in a prompt or in a reply, where it is looked at character by character: there it
# matters that the cost grows no faster than the text.
_MEGABYTE_MS = 250.0
_LARGE = (250_000, 500_000, 1_000_000)
_PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}
_HEADERS = [(b"authorization", f"Bearer {_KEY}".encode()), (b"content-type", b"application/json")]


class _Model(BaseProvider):
    """Serves the model `m`, which only writes text, always the same, and takes prompts of any size."""

    name = "model"
    models = (ModelSpec("m", "m", PromptLimit(40_000_000), "benchmarks", frozenset()),)

    async def create_completion(self, request: CompletionRequest) -> Completion:  # noqa: ARG002
        return Completion("Hello.")

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:  # noqa: ARG002
        yield Delta("Hello.", whole=True)


def rows() -> list[Row]:
    """All rows."""
    _work(_body({}))()  # whatever is imported late or filled once
    return [*_schemas(), *_checks(), *_bodies(), *_replies(), *_repairs(), *_prompts(), *_limits(), *_words()]


def _work(body: bytes, path: str = _PATHS["chat"]) -> Work:
    """A request to a new app, which has an answer: any but a 500."""
    settings = load_settings(
        _env_file=None, api_master_key=_KEY, typing_delay_seconds=0, log_level="ERROR", max_loop_lag_seconds=300
    )
    app = create_app(settings, [_Model()])

    async def ask() -> None:
        messages = [{"type": "http.request", "body": body}]
        statuses: list[int] = []

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "asgi": {"version": "3.0"},
            "state": {},
        }
        await app(scope, receive, send)
        if statuses[0] == 500:
            raise SystemExit(f"a 500 at {path}: {body[:200]!r}")

    return lambda: asyncio.run(ask())


def _body(fields: Mapping[str, object]) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}).encode()


def _request_with(schema: Callable[[int], Mapping[str, object]], n: int) -> Case:
    tool = {"type": "function", "function": {"name": "t", "parameters": schema(n)}}
    body = _body({"tools": [tool]})
    return Case(len(body), _work(body), _work(_body({"metadata": None, "unread": [tool]})))


def _asked(**fields: object) -> Case:
    body = _body(fields)
    return Case(len(body), _work(body), _work(_body({"unread": fields})))


def _schemas() -> list[Row]:
    def repeated(part: Callable[[int], object], size: int) -> dict[str, object]:
        """An object with as many members as make up a size."""
        each = len(json.dumps(part(1000))) + 10
        return {"type": "object", "properties": {f"p{i}": part(i) for i in range(max(1, size // each))}}

    def listed(part: Callable[[int], object], size: int) -> list[object]:
        return [part(i) for i in range(size // (len(json.dumps(part(1000))) + 2))]

    def doubling(size: int, anchored: bool) -> dict[str, object]:
        parts: dict[str, object] = {"d0": {"$anchor": "d0"}}
        for level in range(1, size // 90):
            to = {"$ref": f"#d{level - 1}" if anchored else f"#/$defs/d{level - 1}"}
            parts[f"d{level}"] = {"$anchor": f"d{level}", "anyOf": [to, to]}
        return {"type": "object", "$defs": parts, "properties": {"a": parts[f"d{level}"]}}

    def chained(size: int) -> dict[str, object]:
        count = size // 50
        parts: dict[str, object] = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)}
        return {"type": "object", "$defs": {**parts, f"d{count}": {}}, "properties": {"a": {"$ref": "#/$defs/d0"}}}

    def addressed(size: int) -> dict[str, object]:
        parts: dict[str, object] = {
            str(i): {"$id": f"http://a/{i}", "items": {"$ref": f"#/x{i}"}} for i in range(size // 70)
        }
        return {"type": "object", "$defs": parts, "properties": {"a": {"$ref": "#/$defs/1"}}}

    anything: dict[str, Callable[[int], dict[str, object]]] = {
        "repeated patterns": lambda n: repeated(lambda i: {"pattern": f"a{{9000}}{i}"}, n),
        "Unicode patterns": lambda n: repeated(lambda i: {"pattern": f"\\p{{L}}{i}"}, n),
        "short patterns": lambda n: repeated(lambda i: {"pattern": f"[^a]{i}"}, n),
        "one long pattern": lambda n: repeated(lambda _: {"pattern": "(?:a|b{9})" * (n // 10)}, 1),
        "unclosed pattern": lambda n: repeated(lambda _: {"pattern": "[\\p{" * (n // 4)}, 1),
        "patternProperties": lambda n: {"patternProperties": {f"^.a.{i}": {} for i in range(n // 15)}},
        "properties": lambda n: repeated(lambda _: {"type": "string"}, n),
        "minLength": lambda n: repeated(lambda _: {"minLength": 1, "maxLength": 9}, n),
        "required": lambda n: {**repeated(lambda _: {}, n // 2), "required": listed(lambda i: f"q{i}", n // 2)},
        "enum of texts": lambda n: {"properties": {"a": {"enum": listed(lambda i: f"text {i}", n)}}},
        "enum of objects": lambda n: {"properties": {"a": {"enum": listed(lambda i: {"a": i}, n)}}},
        "anyOf": lambda n: {"properties": {"a": {"anyOf": listed(lambda _: {"type": "string"}, n)}}},
        "references": lambda n: {**repeated(lambda i: {"$ref": f"#/$defs/{i % 9}"}, n), "$defs": {"1": {}}},
        "references, chained": chained,
        "references, doubling": lambda n: doubling(n, anchored=False),
        "anchors, doubling": lambda n: doubling(n, anchored=True),
        "addresses": addressed,
        "description": lambda n: {"description": "x" * n},
        "const": lambda n: {"const": "x" * n},
        "numbers": lambda n: repeated(lambda i: {"multipleOf": 10**300 + i, "maximum": -(10**200)}, n),
    }
    found = [
        Row(f"schema: {name}", partial(_request_with, make), (*_SMALL, 100_000, 500_000, 8_000_000))
        for name, make in anything.items()
    ]
    for dialect, path in _PATHS.items():
        found.append(Row(f"schema: many tools, {dialect}", partial(_tools, path), (*_SMALL, 128_000)))
    return found


def _tools(path: str, size: int) -> Case:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,9}$"}}, "required": ["a"]}
    tools = []
    for index in range(min(size // 250, 512)):
        named = {"name": f"t{index}", "description": "Does something.", "parameters": schema, "input_schema": schema}
        tools.append({**named, "type": "function", "function": named} if "messages" not in path else named)
    fields: dict[str, object] = {"model": "m", "max_tokens": 100, "input": "Hello"}
    fields["messages"] = [{"role": "user", "content": "Hello"}]
    body = json.dumps({**fields, "tools": tools}).encode()
    return Case(len(body), _work(body, path), _work(json.dumps({**fields, "unread": tools}).encode(), path))


def _checks() -> list[Row]:
    def checked(schema: Mapping[str, object], made: Callable[[int], object], n: int) -> Case:
        check, value = SchemaCheck(schema), made(n)

        def work() -> None:
            effort = Effort()
            if check.faults(value, effort):
                check.faults(coerced(value, check, effort), effort)

        return Case(len(json.dumps(value)), work)

    again = {"properties": {"a": {"$ref": "#/$defs/d"}}}
    doubling = {"$defs": {"d": {"anyOf": [again, again, {"type": "integer"}]}}, "$ref": "#/$defs/d"}
    objects = [{"a": index} for index in range(1000)]
    wide = {"anyOf": [{"properties": {f"a{i}": {}}} for i in range(3000)], "unevaluatedProperties": False}
    items = {"anyOf": [{"type": "object", "required": [f"a{i}"], "properties": {f"a{i}": {}}} for i in range(300)]}
    made: dict[str, tuple[Mapping[str, object], Callable[[int], object]]] = {
        "large automaton": ({"pattern": "[ab]*a[ab]{300}[cd]"}, lambda n: "ab" * (n // 2)),
        "look around": ({"pattern": "(?!.*z)y"}, lambda n: "a" * n),
        "back reference": ({"pattern": "^(?:(?!.*z)a|(?!.*y)a)*c\\1$|(a)"}, lambda n: "a" * n),
        "plain pattern": ({"pattern": "^[^@]+@[a-z.]+$"}, lambda n: "a" * n),
        "patternProperties": (
            {"patternProperties": {f"a.*{i}": {} for i in range(1000)}},
            lambda n: {f"aa{i}": 1 for i in range(n // 10)},
        ),
        "contains": ({"contains": {"enum": objects}}, lambda n: [{"a": -1}] * (n // 10)),
        "unevaluatedProperties": (wide, lambda n: {f"b{i}": 1 for i in range(n // 10)}),
        "uniqueItems": ({"uniqueItems": True}, lambda n: [[i] for i in range(n // 10)]),
        "alternatives, nested": (doubling, lambda n: _nested(min(n // 8, 300), "x")),
        "alternatives, wide": ({"items": items}, lambda n: [{"b": 1}] * (n // 10)),
        "faults of a long text": ({"anyOf": [{"type": "integer"}] * 1000}, lambda n: "x" * n),
        "faults of many items": ({"items": {"type": "integer"}}, lambda n: ["x"] * (n // 5)),
        "faults, required": (
            {"required": [f"a{i}" for i in range(10_000)]},
            lambda n: {f"b{i}": 1 for i in range(n // 10)},
        ),
        "faults, enum": ({"items": {"enum": ["y" * 90 + str(i) for i in range(9000)]}}, lambda n: ["x"] * (n // 5)),
        "coercion of items": ({"items": {"type": "integer"}}, lambda n: ["1"] * (n // 5)),
        "coercion of a text": ({"type": "array", "items": {"type": "integer"}}, lambda n: str(["1"] * (n // 5))),
        "coercion, deep": ({"type": "array", "items": {"$ref": "#"}}, lambda n: "[" * min(n, 900) + "]" * min(n, 900)),
    }
    return [
        Row(f"check: {name}", partial(checked, schema, value), (*_SMALL, *_LARGE))
        for name, (schema, value) in made.items()
    ]


def _nested(levels: int, inner: object) -> object:
    for _ in range(levels):
        inner = {"a": inner}
    return inner


def _bodies() -> list[Row]:
    # To read so many bytes of JSON has its price whatever they say; the bound here is growth.
    def text(fields: Mapping[str, str]) -> Case:
        raw = ",".join(f'"{name}":{value}' for name, value in fields.items())
        body = f'{{"model":"m","messages":[{{"role":"user","content":"Hello"}}],{raw}}}'.encode()
        return Case(len(body), _work(body))

    made: dict[str, Callable[[int], Case]] = {
        "arrays in an unknown field": lambda n: text({"x": "[" * (n // 2) + "]" * (n // 2)}),
        "objects in a schema": lambda n: text({"response_format": '{"a":' * (n // 6) + "1" + "}" * (n // 6)}),
        "unclosed arrays": lambda n: text({"x": "[" * n}),
        "messages": lambda n: _asked(messages=[{"role": "user", "content": "a"}] * min(n // 35, 5000)),
        "content parts": lambda n: _asked(
            messages=[{"role": "user", "content": [{"type": "text", "text": "a"}] * (n // 30)}]
        ),
        "stop": lambda n: _asked(stop=["a" * 50] * (n // 54)),
        "logit_bias": lambda n: _asked(logit_bias={str(i): 1 for i in range(n // 12)}),
        "metadata": lambda n: _asked(metadata={str(i): "a" for i in range(n // 13)}),
        "tool calls": lambda n: _asked(
            messages=[
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                        for i in range(n // 80)
                    ],
                },
                *[{"role": "tool", "tool_call_id": f"c{i}", "content": "a"} for i in range(min(n // 80, 4000))],
            ]
        ),
    }
    return [
        # Twice as many objects also need more memory from the system, which is not quite linear.
        Row(f"body: {name}", make, (*_SMALL, *_LARGE), most_ms=None, most_mb=None, most_growth=2.5)
        for name, make in made.items()
    ]


def _replies() -> list[Row]:
    tools = ToolUse((Tool("f", "", {"type": "object", "properties": {"a": {"type": "string"}}}),))
    answer = OutputFormat("json_schema", {"type": "object"})

    def read(part: str) -> Callable[[int], Case]:
        def case(n: int) -> Case:
            reply = part * (n // len(part))
            emulators = [Emulator(tools=use, output_format=form, tag=_TAG) for use, form in _uses(tools, answer)]
            return Case(len(reply), lambda: _read(reply, *emulators))

        return case

    made = {
        "opening tags": f"<tool_call_{_TAG}>",
        "opening tags and brackets": f'<tool_call_{_TAG}>{{"',
        "others' tags": "<tool_call>{",
        "Kimi's tokens": "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>",
        "closing tags": f"</tool_call_{_TAG}>",
        "thinking": "<think>",
        "thinking that ends": "<think></think>",
        "fences": "```json\n{\n",
        "fences, bare": "\n```\n",
        "brackets": "{",
        "brackets of lists": "[",
        "brackets, closed": "{}",
        "names": "functions.f:0{",
        "names, long": "a" * 100,
        "parameters": "<function=f><parameter=a>",
        "ReAct": "Action: f\nAction Input: {",
        "Python": "f(a=",
        "Python, attributes": "f(a=1).b",
        "quotes": '{"',
        "apostrophes": "{'a': '",
        "spaces": " ",
        "line ends": "\n",
        "backslashes": '{"a":"\\',
        "comments": "{/*",
        "holders": '{"function":',
    }
    return [
        # Each reply is read in four ways.
        *[
            Row(f"reply: {name}", read(part), (*_SMALL, *_LARGE), most_ms=4 * _MEGABYTE_MS)
            for name, part in made.items()
        ],
        Row("reply: holders, closed", _held, (500, 1000, 2000, 4000)),
    ]


def _uses(tools: ToolUse, answer: OutputFormat) -> list[tuple[ToolUse | None, OutputFormat]]:
    return [(tools, PLAIN_TEXT), (ToolUse(tools.tools, "required"), PLAIN_TEXT), (None, answer), (tools, answer)]


def _held(n: int) -> Case:
    depth = n // 14
    reply = '{"function":' * depth + '{"name":"f","arguments":{}}' + "}" * depth
    emulator = Emulator(tools=ToolUse((Tool("f", "", {"type": "object"}),)), output_format=PLAIN_TEXT, tag=_TAG)
    return Case(len(reply), lambda: _read(reply, emulator))


def _read(reply: str, *emulators: Emulator) -> None:
    for emulator in emulators:
        with suppress(Unreadable):
            emulator.read(reply)


def _repairs() -> list[Row]:
    made = {
        "quotes": ("{'a': '", "\"'", "'}"),
        "backslashes": ('{"a": "', "\\", '"}'),
        "escapes": ('{"a": "', "\\u00e9", "',}"),
        "comments": ("{", "/**/", "}"),
        "open comments": ("[", "/*", "]"),
        "spaces": ("{", " ", "'a':1}"),
        "members": ("{", "a:1,", "}"),
        "items": ("[", "1,", "]"),
        "brackets": ("", "[", ""),
        "apostrophes and spaces": ("{'a': '", "'      ", "'}"),
        "digits": ("[1,", "9", ",]"),
    }

    def repair(text: str) -> None:
        with suppress(ValueError):
            repaired(text, may_close=True)

    def case(begin: str, part: str, end: str, n: int) -> Case:
        text = begin + part * (n // len(part)) + end
        return Case(len(text), lambda: repair(text))

    return [Row(f"repair: {name}", partial(case, *parts), (*_SMALL, *_LARGE)) for name, parts in made.items()]


def _prompts() -> list[Row]:
    made = {
        "combining marks": "\u0301",
        "families": "\U0001f468\u200d",
        "flags": "\U0001f1e9\U0001f1ea",
        "half pairs": "\ud83d",
        "Hangul": "\u1100",
        "others' calls": "<tool_call>",
        "Kimi's tokens": "<|tool_call_begin|>",
        "role tags": "\nuser: ",
        "names": "functions.f:0{",
        "line ends": "\r\n",
        "letters": "a",
    }

    def case(part: str, limit: int, n: int) -> Case:
        text = part * (n // len(part))
        messages = (Message("user", f"a{text}"), Message("assistant", text), Message("user", f"b{text[: n // 2]}"))
        return Case(len(text), lambda: _composed(messages, limit))

    return [
        Row(f"prompt: {name}, {what}", partial(case, part, limit), (*_SMALL, *_LARGE), most_ms=_MEGABYTE_MS)
        for name, part in made.items()
        for what, limit in (("cut", 3000), ("whole", 10_000_000))
    ]


def _composed(messages: tuple[Message, ...], limit: int) -> None:
    with suppress(ContextTooLong):
        compose(messages, PromptLimit(limit))


def _limits() -> list[Row]:
    def stopped(stops: tuple[str, ...], text: str) -> Case:
        def work() -> None:
            limiter = OutputLimiter(stops)
            for start in range(0, len(text), 20):
                limiter.feed(text[start : start + 20])
            limiter.finish()

        return Case(len(text), work)

    return [
        # Of the 50,000 pieces of a stream, each takes its share.
        Row(
            "stop: long, nearly found",
            lambda n: stopped(("a" * 2000 + "b",) * 4, "a" * n),
            (*_SMALL, *_LARGE),
            most_ms=4 * _MEGABYTE_MS,
        ),
        Row(
            "stop: short",
            lambda n: stopped(("b", "c", "d", "e"), "a" * n),
            (*_SMALL, *_LARGE),
            most_ms=_MEGABYTE_MS,
        ),
    ]


def _words() -> list[Row]:
    """What is searched in upstreams' errors, and in earlier answers."""
    errors = {"one word": "a", "two stars": "**a", "tags": "<", "entities": "&amp;lt;", "keys": "sk-"}
    # So many characters of an error are looked at.
    sizes = (2_500, 5_000, 10_000)
    return [
        *[Row(f"error: {name}", partial(_quoted, part), sizes) for name, part in errors.items()],
        Row("notice: spaces before a mark", _answered, (*_SMALL, *_LARGE)),
    ]


def _quoted(part: str, n: int) -> Case:
    text = part * (n // len(part))
    return Case(len(text), lambda: quotable(text, ()))


def _answered(n: int) -> Case:
    text = " \n" * (n // 2) + "> ⓘ x"
    return Case(len(text), lambda: without_notice(text))
