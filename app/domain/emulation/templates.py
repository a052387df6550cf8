"""Calls in the forms that other models' chat templates taught them.

- `<function=NAME><parameter=KEY>VALUE</parameter></function>`, or JSON in place of the parameters: Qwen3-Coder, Llama
- `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`, also prefixed: Claude, MiniMax, DeepSeek
- `<tool_call>NAME <arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`: GLM
- `<NAME><KEY>VALUE</KEY></NAME>`: what Cline and its like ask for
- NAME and JSON behind a token, a separator or `[ARGS]` between them: Mistral, DeepSeek, functionary
- `to=functions.NAME … <|message|>` and JSON: gpt-oss
- `Action: NAME`, then `Action Input:` and JSON: ReAct
- JSON behind a token: Llama, Mistral, Granite, Phi, Command
- `NAME(KEY=VALUE)` in Python: Llama 4, LFM2, Gemma

Tags and tokens around calls are passed over. Such calls count only if nothing but calls follows to the end of the
reply, if they are no quotation (in a code fence after words, in backticks, or within a line, but for tokens), and if
all are of tools that the request has. The prompt composer makes what they begin with harmless in all other text.

All patterns are bounded, and only so many places of a reply are tried.
"""

import ast
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

from app.domain.emulation.callable_tools import CallableTools, CallText
from app.domain.emulation.jsontext import Fault, decode, loads
from app.domain.emulation.quotation import Quotations
from app.domain.emulation.repair import repaired

_NAME = r"[\w.\-]{1,128}"
# The prefix of a tag: a namespace, or DeepSeek's own.
_NS = r"(?:[\w-]{1,20}:|[|｜]DSML[|｜])?"
_SPECIAL = r"<[|｜][\w▁/]{1,40}[|｜]>"
_SEPARATOR = r"<[|｜]tool[▁_]sep[|｜]>"
_WRAPPER = rf"</?{_NS}(?:tool_calls?|function_calls?|TOOLCALL|tools?)>|\[/?TOOL_CALLS\]"
_FENCE = r"`{3}[a-z_]{0,20}"
_HEADLINE = (
    rf"(?:<(?={_NS}(?:tool_calls?|function_calls?|TOOLCALL)>|{_NS}(?:function|invoke|tool_call|tool)(?:=|[ ]name[ ]?=))"
    r"|>>>(?=[\w.\-]{1,128}\n)|Action:[ ]|✿FUNCTION✿|\[(?=[\w.]{1,128}\()|<(?=[A-Za-z_][\w.\-]{0,127}>))"
)
# Where calls could begin: at a token anywhere, at anything else at the beginning of a line.
_HEAD = re.compile(
    rf"(?P<fence>^[ \t]{{0,3}}{_FENCE})|(?<!`)(?P<token>{_SPECIAL}|\[TOOL_CALLS\])|^[ \t]{{0,3}}(?P<line>{_HEADLINE})",
    re.MULTILINE,
)
_PASSED_OVER = re.compile(rf"(?:\s|[,;]|{_WRAPPER}|{_SPECIAL}|</s>|>>>|{_FENCE}(?=\s|<|\Z)|Observation:\s{{0,9}}\Z)*+")
_TAGGED = re.compile(
    rf"<{_NS}(function|invoke|tool_call|tool)(?:=|[ ]name[ ]?=[ ]?)[\"']?({_NAME})[\"']?[ ]?>\s{{0,99}}"
)
_PARAMETER = re.compile(
    rf"\s{{0,99}}<{_NS}(?:parameter|param|arg)(?:=|[ ]name[ ]?=[ ]?)[\"']?([^\"'<>\s]{{1,128}})[\"']?"
    r"(?P<typed>[ ]string[ ]?=[ ]?\"false\")?[^<>]{0,60}>"
)
_PARAMETER_END = re.compile(
    rf"</{_NS}(?:parameter|param|arg)>"
    rf"(?=\s{{0,99}}(?:<{_NS}(?:parameter|param|arg)[= ]|</{_NS}(?:function|invoke|tool)|\Z))"
)
_TAGGED_END = re.compile(rf"\s{{0,99}}(?:</{_NS}(?:function|invoke|tool)>|(?=</{_NS}tool_call>))")
_OLD_INVOKE = re.compile(
    rf"<{_NS}invoke>\s{{0,99}}<{_NS}tool_name>\s{{0,9}}({_NAME})\s{{0,9}}</{_NS}tool_name>\s{{0,99}}"
)
_ARGUMENT_KEYS = re.compile(rf"({_NAME})\s{{0,99}}(?=<arg_key>|</tool_call>)")
_ARGUMENT_KEY = re.compile(r"\s{0,99}<arg_key>([^<>]{1,128})</arg_key>\s{0,99}<arg_value>")
_ELEMENT = re.compile(r"<([A-Za-z_][\w.\-]{0,127})>")
_NAMED = re.compile(
    rf"(?:assistant(?:<[|]channel[|]>)?)?commentary to=({_NAME})[^{{}}]{{0,60}}<[|]message[|]>\s{{0,9}}(?=\{{)"
    rf"|(?:Action|✿FUNCTION✿)\s?:\s{{0,9}}({_NAME})\s{{1,9}}(?:Action Input|✿ARGS✿)\s?:"
    rf"\s{{0,9}}(?:{_FENCE}\s{{0,9}})?(?=\{{)"
    rf"|(?:function{_SEPARATOR})?({_NAME})(?:\[CALL_ID\]\w{{1,64}})?(?:{_SEPARATOR}|\[ARGS\]|\n)?"
    rf"\s{{0,9}}(?:{_FENCE}\s{{0,9}})?(?=\{{)"
)
_END_OF_JSON = re.compile(rf"{_WRAPPER}|{_SPECIAL}|</{_NS}function>|\n{_FENCE}")
_END_OF_PYTHON = re.compile(rf"{_SPECIAL}|\[/?TOOL_CALLS\]|^[ \t]{{0,3}}`{{3}}", re.MULTILINE)
_PYTHON_CALL = re.compile(rf"\[?\s{{0,9}}(?:print\()?{_NAME}\(")

_MOST_TRIES = 8
_MOST_CALLS = 64
_LONGEST_PYTHON = 10_000
_CUT_OFF = "it is cut off"

# A call as it was found: its tool, its arguments, and their exact text if it is to be kept.
_Found = tuple[object, object, str | None]
# Reads what begins at a place: the calls, and where they end. None if it is none of this form.
_Form = Callable[[str, int, CallableTools], tuple[list[_Found], int] | None]


def template_calls(reply: str, tools: CallableTools, quotations: Quotations) -> tuple[str, list[CallText]]:
    """The words of a reply and its calls. Without calls, the words are the whole reply.

    Args:
        reply: What the model answered, without its thinking.
        tools: The tools that may be called.
        quotations: What is no call.

    Raises:
        Fault: The reply calls a tool of the request, but the call can't be used.
    """
    in_fence = False
    tries = 0
    begin = len(reply) - len(reply.lstrip())
    if _PYTHON_CALL.match(reply, begin):
        found = _calls_from(reply, begin, tools, quotations)
        if found:
            return "", [tools.call(*call) for call in found]
    for head in _HEAD.finditer(reply):
        if head["fence"]:
            # A fence around the whole reply is a habit, and Gemma's is its own. Any other holds an example.
            is_example = head.start() > begin and not head["fence"].endswith("tool_code")
            in_fence = not in_fence
            if is_example or not in_fence:
                continue
        elif in_fence or (head["line"] == "<" and not _may_begin(reply, head.end(), tools)):
            continue
        if tries == _MOST_TRIES:
            break
        tries += 1
        found = _calls_from(reply, head.start(), tools, quotations)
        if found:
            return reply[: head.start()].strip(), [tools.call(*call) for call in found]
    return reply, []


def _may_begin(reply: str, place: int, tools: CallableTools) -> bool:
    """Whether the tag at a place is one of a template, or has a tool's name."""
    element = _ELEMENT.match(reply, place - 1)
    return element is None or _is_wrapper(element[0]) or tools.name(element[1]) is not None


def _is_wrapper(tag: str) -> bool:
    return _PASSED_OVER.fullmatch(tag) is not None


def _calls_from(reply: str, place: int, tools: CallableTools, quotations: Quotations) -> list[_Found]:
    """The calls from a place on; none if anything else stands there, or one of them is quoted."""
    found: list[_Found] = []
    while (place := _after(reply, place)) < len(reply):
        read = next((read for form in _FORMS if (read := form(reply, place, tools)) is not None), None)
        if read is None or len(found) > _MOST_CALLS or quotations.has(reply[place : read[1]]):
            return []
        found += read[0]
        place = read[1]
    return found


def _after(reply: str, place: int) -> int:
    passed = _PASSED_OVER.match(reply, place)
    return passed.end() if passed else place


def _tagged(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    head = _TAGGED.match(reply, place)
    name = tools.name(head[2]) if head else None
    if head is None or name is None:
        return None
    place = head.end()
    value: object
    if reply[place : place + 1] == "{":
        value, text, place = _json(reply, place)
    else:
        value, place = _parameters(reply, place)
        text = None
    end = _TAGGED_END.match(reply, place)
    if end is None:
        _refuse_cut_off(reply, place)
        return None
    return [(name, value, text)], end.end()


def _parameters(reply: str, place: int) -> tuple[dict[str, object], int]:
    values: dict[str, object] = {}
    while head := _PARAMETER.match(reply, place):
        end = _PARAMETER_END.search(reply, head.end()) or _TAGGED_END.search(reply, head.end())
        if end is None:
            raise Fault(_CUT_OFF)
        values[head[1]] = _value(reply[head.end() : end.start()], is_json=head["typed"] is not None)
        place = end.end() if end.re is _PARAMETER_END else end.start()
    return values, place


def _value(text: str, *, is_json: bool = False) -> object:
    """A value without the line breaks that stand between it and its tags. The schema tells what else it is."""
    text = text.removeprefix("\r").removeprefix("\n").removesuffix("\n").removesuffix("\r")
    if not is_json:
        return text
    try:
        return loads(text)
    except ValueError:
        return text


def _old_invoke(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    head = _OLD_INVOKE.match(reply, place)
    name = tools.name(head[1]) if head else None
    if head is None or name is None:
        return None
    place = _skip(reply, head.end(), "<parameters>")
    values, place = _children(reply, place)
    place = _skip(reply, place, "</parameters>")
    end = _TAGGED_END.match(reply, place)
    if end is None:
        _refuse_cut_off(reply, place)
        return None
    return [(name, values, None)], end.end()


def _element(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    head = _ELEMENT.match(reply, place)
    if head is None or tools.name(head[1]) != head[1]:
        return None
    values, place = _children(reply, head.end())
    end = _skip(reply, place, f"</{head[1]}>")
    if end == place:
        _refuse_cut_off(reply, place)
        return None
    return [(head[1], values, None)], end


def _children(reply: str, place: int) -> tuple[dict[str, object], int]:
    """The elements that follow each other, by their names."""
    values: dict[str, object] = {}
    while child := _ELEMENT.match(reply, start := _skip_space(reply, place)):
        closing = f"</{child[1]}>"
        end = reply.find(closing, child.end())
        if end < 0:
            raise Fault(_CUT_OFF)
        values[child[1]] = _value(reply[child.end() : end])
        place = end + len(closing)
    return values, start


def _argument_keys(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    head = _ARGUMENT_KEYS.match(reply, place)
    name = tools.name(head[1]) if head else None
    if head is None or name is None:
        return None
    place = head.end()
    values: dict[str, object] = {}
    while key := _ARGUMENT_KEY.match(reply, place):
        end = reply.find("</arg_value>", key.end())
        if end < 0:
            raise Fault(_CUT_OFF)
        values[key[1].strip()] = _value(reply[key.end() : end])
        place = end + len("</arg_value>")
    return [(name, values, None)], place


def _named(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    head = _NAMED.match(reply, place)
    name = tools.name(head[1] or head[2] or head[3]) if head else None
    if head is None or name is None:
        return None
    value, text, end = _json(reply, head.end())
    return [(name, value, text)], end


def _json_calls(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    if reply[place] not in "{[" or _PYTHON_CALL.match(reply, place):
        return None
    try:
        value, text, end = _json(reply, place)
    except Fault:
        return None
    return (tools.found(value, text), end) if tools.is_call(value) else None


def _json(reply: str, place: int) -> tuple[object, str | None, int]:
    try:
        value, end = decode(reply, place)
    except ValueError:
        closing = _END_OF_JSON.search(reply, place)
        end = closing.start() if closing else len(reply)
        try:
            return repaired(reply[place:end], may_close=closing is not None), None, end
        except ValueError as error:
            raise Fault(str(error) if closing else _CUT_OFF) from error
    return value, reply[place:end], end


def _python(reply: str, place: int, tools: CallableTools) -> tuple[list[_Found], int] | None:
    if not _PYTHON_CALL.match(reply, place):
        return None
    closing = _END_OF_PYTHON.search(reply, place)
    end = closing.start() if closing else len(reply)
    text = reply[place:end].strip()
    if len(text) > _LONGEST_PYTHON:
        return None
    if text.startswith("print(") and text.endswith(")"):
        text = text[len("print(") : -1]
    try:
        body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = [_python_call(node, tools) for node in (body.elts if isinstance(body, ast.List) else [body])]
    calls = [call for call in found if call is not None]
    return (calls, end) if calls and len(calls) == len(found) else None


def _python_call(node: ast.expr, tools: CallableTools) -> _Found | None:
    if not isinstance(node, ast.Call) or node.args:
        return None
    try:
        name = tools.name(ast.unparse(node.func).removesuffix(".call"))
        values = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords if keyword.arg}
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return (name, values, None) if name is not None and len(values) == len(node.keywords) else None


def _literal(node: ast.expr) -> object:
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    return _as_json(ast.literal_eval(node))


def _as_json(value: object) -> object:
    """A Python literal as JSON has it.

    Raises:
        TypeError: JSON has nothing like it.
    """
    if isinstance(value, Mapping):
        return {str(name): _as_json(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return Decimal(repr(value))
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refuse_cut_off(reply: str, place: int) -> None:
    """Refuse what has no end; anything else after the last argument makes it no call."""
    if _skip_space(reply, place) == len(reply):
        raise Fault(_CUT_OFF)


def _skip(reply: str, place: int, tag: str) -> int:
    """The place after a tag, if it stands there, white space or not."""
    start = _skip_space(reply, place)
    return start + len(tag) if reply.startswith(tag, start) else place


def _skip_space(reply: str, place: int) -> int:
    while place < len(reply) and reply[place].isspace():
        place += 1
    return place


_FORMS: tuple[_Form, ...] = (
    *(_tagged, _old_invoke, _element, _argument_keys),
    *(_named, _json_calls, _python),
)
