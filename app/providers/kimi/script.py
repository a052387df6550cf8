"""The chat page's script: JavaScript that hands the page its nonce and its address for messages. Pure."""

import base64
import binascii
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from urllib.parse import unquote

from app.domain.surrogates import without_halves

_VARIABLE = re.compile(
    r"""\bkimi_ajax['"`]?\s*\]?\s*=(?![=>])\s*
        # `window.kimi_ajax || {…}`, `Object.assign({}, {…})`, `JSON.parse('{…}')` and the like
        (?P<lead>(?>/\*.*?\*/|//[^\n]*\n|[\w$.|&(\s]){0,200}?)(?=(?P<opening>[{'"`]))""",
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(
    r"""\bkimi_ajax\s*(?:\.\s*|\[\s*['"`])(?P<name>nonce|ajax_url)(?:['"`]\s*\])?\s*=(?!=)\s*(?=['"`])"""
)
# An element of the page that has the object in it or in an attribute: `id="kimi_ajax">{…}`, `data-kimi_ajax='{…}'`.
_ELEMENT = re.compile(r"""kimi_ajax(?:["'][^<>]{0,200}>|["']?=["'])\s*(?=\{)""")
_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<text>"[^"\\]*+(?:\\.[^"\\]*+)*+" | '[^'\\]*+(?:\\.[^'\\]*+)*+' | `[^`\\]*+(?:\\.[^`\\]*+)*+`)
      | (?P<torn>["'`]|/\*)
      | (?P<word>[\w$]+)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_NEXT_OBJECT = re.compile(r"\s*,\s*(?=\{)")
_ESCAPE = re.compile(r"\\(u\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|\r\n|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": "", "\r\n": ""}
# Plugins that speed pages up put inline scripts into the address of an outer one.
_ENCODED_SCRIPT = re.compile(
    r"""\bdata:(?:text|application)/(?:x-)?javascript(?:;charset=[\w-]+)?;base64,([\w+/=]{16,200000})"""
)
# A page with more of them isn't worth reading.
_MOST_VARIABLES = 20
_LONGEST_OBJECT = 100_000
# Of each mention so many characters are looked at up to its object; and so many before it for the comment it is in.
_LONGEST_LEAD = 4000
_LOOKED_BACK = 100_000
_MOST_MENTIONS = 200
# Quotes and comments without an end: each is looked for up to the end.
_MOST_TORN = 20
_NAME = "kimi_ajax"


def script_values(page: str) -> Iterator[Mapping[str, str]]:
    """What the page's script sets `kimi_ajax` to, one reading after the other: those values that are texts.

    The last one comes first, as it is the one that counts in a browser; what is commented out comes last.
    """
    pages = [page, *_encoded_scripts(page)]
    for text in pages:
        variables = list(_mentions(_VARIABLE, text))[::-1]
        members = list(_mentions(_MEMBER, text))
        if variables and members and members[-1].start() > variables[0].start():
            # A cached page may have its nonce put right by a script that isn't cached.
            yield _set_by_parts(text, [found for found in members if found.start() > variables[0].start()])
        for variable in sorted(variables, key=lambda found: _is_commented_out(text, found.start())):
            yield from _objects(text, variable)
    for text in pages:
        yield _set_by_parts(text, list(_mentions(_MEMBER, text)))
    yield from _quoted_objects(page)


def _set_by_parts(page: str, members: Sequence[re.Match[str]]) -> Mapping[str, str]:
    return {
        found["name"]: _text_at(page, found.end()) for found in members if not _is_commented_out(page, found.start())
    }


def _quoted_objects(page: str) -> Iterator[Mapping[str, str]]:
    """What the variable is set to in a quoted script (the address of an outer one, say), or in the page's elements."""
    for place in _places(page):
        quoted = page[place : place + _LONGEST_LEAD]
        if element := _ELEMENT.match(quoted):
            yield _object(html.unescape(quoted[element.end() :]), 0)[0]
        for plain in {html.unescape(quoted), unquote(quoted)} - {quoted}:
            if variable := _VARIABLE.match(plain):
                yield from _objects(plain, variable)


def _places(page: str) -> Iterator[int]:
    place = -1
    for _ in range(_MOST_VARIABLES):
        place = page.find(_NAME, place + 1)
        if place < 0:
            return
        yield place


def _mentions(form: re.Pattern[str], page: str) -> Iterator[re.Match[str]]:
    """Where the variable is mentioned in a form. A page that only looks as if it were can't make this take long."""
    place = found = 0
    for _ in range(_MOST_MENTIONS):
        place = page.find(_NAME, place)
        if place < 0 or found == _MOST_VARIABLES:
            return
        mention = form.match(page, place, place + _LONGEST_LEAD)
        if mention is not None:
            found += 1
            yield mention
        place += len(_NAME)


def _encoded_scripts(page: str) -> Iterator[str]:
    for found in islice(_ENCODED_SCRIPT.finditer(page), _MOST_VARIABLES):
        script = _from_base64(found[1])
        if _NAME in script:
            yield script


def _from_base64(text: str) -> str:
    """The text that is meant, or nothing if there is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def _is_commented_out(page: str, place: int) -> bool:
    page = page[max(0, place - _LOOKED_BACK) : place]
    line = page[page.rfind("\n") + 1 :]
    if line.lstrip().startswith("//"):
        return True
    marks = (("/*", "*/"), ("<!--", "-->"))
    return any(page.rfind(begin) > page.rfind(end) for begin, end in marks)


def _objects(page: str, variable: re.Match[str]) -> Iterator[Mapping[str, str]]:
    """The objects that a variable is set to: one; or those of which one is made, as `Object.assign` does."""
    place = variable.end()
    if variable["opening"] != "{":
        text = _text_at(page, place)
        if variable["lead"].rstrip(" (").endswith("atob"):
            text = _from_base64(text)
        if "JSON.parse" in variable["lead"]:
            yield _object(unquote(text) if "decodeURI" in variable["lead"] else text, 0)[0]
        return
    values: dict[str, str] = {}
    while True:
        more, place = _object(page, place)
        values |= more
        following = _NEXT_OBJECT.match(page, place)
        if not variable["lead"].rstrip().endswith("(") or following is None:
            break
        place = following.end()
    yield values


def _object(script: str, place: int) -> tuple[dict[str, str], int]:
    """The members of an object literal whose values are texts (the nonce may be a number), and where it ends.

    Whatever else there may be as a value is passed over. Nothing comes of an object that doesn't end.
    """
    values: dict[str, str] = {}
    # The tokens of a member: its name, a colon, its value. More of them are no plain value.
    member: list[str] = []
    depth = torn = 0
    for token in _TOKEN.finditer(script, place, place + _LONGEST_OBJECT):
        if token.lastgroup == "blank":
            continue
        if token.lastgroup == "torn":
            torn += 1
            if torn > _MOST_TORN:
                break
        text = token[0]
        is_mark = token.lastgroup in ("mark", "torn")
        if is_mark and text in ")]}":
            depth -= 1
        if depth == 0 and member:
            return {**values, **_member(member)}, token.end()
        if is_mark and depth == 1 and text == ",":
            values |= _member(member)
            member = [""]
        else:
            member.append(text)
        if is_mark and text in "([{":
            depth += 1
    return {}, len(script)


def _member(tokens: list[str]) -> Mapping[str, str]:
    """A member, by its tokens and the mark before them."""
    if len(tokens) != 4 or tokens[2] != ":":
        return {}
    name, value = _unquoted(tokens[1]), tokens[3]
    if value[0] in "'\"" or (value[0] == "`" and "${" not in value):
        return {name: _unquoted(value)}
    return {name: value} if name == "nonce" and value.isascii() and value.isdigit() else {}


def _text_at(script: str, place: int) -> str:
    token = _TOKEN.match(script, place, place + _LONGEST_OBJECT)
    return _unquoted(token[0]) if token is not None and token.lastgroup == "text" else ""


def _unquoted(token: str) -> str:
    if token[0] not in "'\"`":
        return token
    text = _ESCAPE.sub(_unescaped, token[1:-1]) if "\\" in token else token[1:-1]
    # Escapes may be half of a character, and two of them a whole one.
    return text if text.isascii() else without_halves(text)


def _unescaped(escape: re.Match[str]) -> str:
    what = escape[1]
    if what[0] in "ux" and len(what) > 1:
        code = int(what[1:].strip("{}"), 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    return _ESCAPED.get(what, what)
