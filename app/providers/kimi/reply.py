"""What the site answers to a message. Pure."""

import json
import re
from collections.abc import Iterator

from app.domain.errors import EmptyReply, NonceRejected, SiteChanged
from app.domain.json import is_overladen, read_json_object
from app.domain.surrogates import without_halves
from app.providers.cloudflare import is_challenge_page
from app.providers.http import HttpReply
from app.providers.kimi.failure import challenge, http_failure, is_stale_page, refusal

_MARK = b"\xef\xbb\xbf"
_JSON = json.JSONDecoder(strict=False)
# What plugins and PHP print around an answer may have braces, too: a comment, a script, the beginning of an object.
_ASIDE_OR_OBJECT = re.compile(
    r"(?P<comment><!--)|<(?P<tag>script|style|template|pre|textarea)\b|(?:^|(?<=[\s>]))(?P<note>/\*)|"
    r"(?P<object>\{)(?=\s*\")",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# The line that tells of a refused nonce is looked for here.
_LAST_PART = 4096
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# Before an object that is a part of something else.
_INSIDE = re.compile(r"""(?:[\['"=]|"\s*:|(?:[\]}"\d]|null|true|false)\s*,)\s*\Z""")
_LOOKED_BACK = 50
# A body with more beginnings of objects that are none isn't worth reading.
_MOST_OBJECTS = 20
# An answer begins within so many characters.
_LONGEST_LEAD = 128 * 1024
# Nor is a body worth reading with so many characters in objects that turn out to be none.
_MOST_IN_VAIN = 500_000


def read_reply(reply: HttpReply, *, nonce: str) -> str:
    """The assistant's text.

    Args:
        reply: The site's answer.
        nonce: The nonce that was sent; it is removed from anything that an error quotes.

    Raises:
        NonceRejected, CloudflareChallenge: Worth another try with a fresh page.
        GatewayError: Any other failure or refusal.
    """
    body = reply.body.strip()
    if body[:3] == _MARK:
        body = _unmarked(body)
    document = read_json_object(body, bad_utf8="strict") if body[:1] == b"{" else None
    if document is not None and reply.status == 200 and document.get("success") is True:
        return _text(document)  # most answers are: none of the failures below has to be looked for
    if document is None and body and not is_overladen(body):
        dirty = body.decode("utf-8", "surrogateescape")
        document = _answer_within(dirty)
        if document is None and reply.status in (200, 403) and _is_refused_nonce(dirty):
            raise NonceRejected("The Kimi site rejected the nonce.")
    failed = http_failure(reply)
    if document is not None and _is_refusal(document):
        raise refusal(reply, document, nonce)
    if is_stale_page(reply) or (document is not None and _refuses_nonce(document)):
        raise NonceRejected("The Kimi site rejected the nonce.")
    if failed is not None:
        raise failed
    if document is None and is_challenge_page(reply.body):
        raise challenge()
    if document is None:
        raise SiteChanged("The Kimi site's answer is not the expected JSON: the site may have changed.")
    return _text(document)


def _unmarked(body: bytes) -> bytes:
    """The body without byte order marks before it: each of several PHP files may have printed one."""
    while body.startswith(_MARK):
        body = body[len(_MARK) :].lstrip()
    return body


def _is_refused_nonce(body: str) -> bool:
    """Whether WordPress says -1, in a line of its own behind whatever was printed before."""
    return _COMMENT.sub("", body[-_LAST_PART:]).rstrip().rpartition("\n")[2].strip(" \t\ufeff") == "-1"


def _is_refusal(document: dict[str, object]) -> bool:
    return document.get("success") in (False, "false", "False", "0")


def _refuses_nonce(document: dict[str, object]) -> bool:
    """Whether WordPress says it in the form of its REST API."""
    code = document.get("code")
    return "success" not in document and isinstance(code, str) and "nonce" in code


def _answer_within(body: str) -> dict[str, object] | None:
    """The first object of the body's outermost level that says whether the site succeeded; None if there is none."""
    return next((document for document in _objects(body) if isinstance(document.get("success"), bool)), None)


def _objects(body: str) -> Iterator[dict[str, object]]:
    place, in_vain = 0, 0
    asides = _Asides(body)
    for _ in range(_MOST_OBJECTS):
        found = _ASIDE_OR_OBJECT.search(body, place, _LONGEST_LEAD)
        while found is not None and found["object"] is None:
            found = _ASIDE_OR_OBJECT.search(body, asides.end_of(found), _LONGEST_LEAD)
        if found is None or in_vain > _MOST_IN_VAIN:
            return
        start = found.start()
        place = found.end()
        if _INSIDE.search(body[max(0, start - _LOOKED_BACK) : start]):
            continue
        try:
            document, end = _JSON.raw_decode(body, start)
        except json.JSONDecodeError as error:
            in_vain += error.pos - start
            continue
        except (ValueError, RecursionError):
            in_vain += len(body) - start
            continue
        # Bytes that are no UTF-8 may stand around an answer, but not in it.
        if not _NOT_UTF8.search(body, start, end):
            yield document
        place = end


class _Asides:
    """Finds the ends of comments and elements. What has no end is looked for once: there may be a million of them."""

    def __init__(self, body: str) -> None:
        self._body = body
        self._endless: set[str] = set()

    def end_of(self, begun: re.Match[str]) -> int:
        """Where an aside ends; where its beginning ends, if it has no end."""
        end = "-->" if begun["comment"] else "*/" if begun["note"] else f"</{begun['tag'].lower()}"
        if end in self._endless:
            return begun.end()
        found = re.compile(re.escape(end) + (r"\s*>" if begun["tag"] else ""), re.IGNORECASE).search(
            self._body, begun.end()
        )
        if found is None:
            self._endless.add(end)
            return begun.end()
        return found.end()


def _text(document: dict[str, object]) -> str:
    data = document.get("data")
    message = data.get("message") if isinstance(data, dict) else None
    if document.get("success") is not True or not isinstance(message, str):
        raise SiteChanged("The Kimi site's answer does not have the expected fields: the site may have changed.")
    if not message.strip():
        raise EmptyReply("The Kimi site answered with an empty message.")
    if message.isascii():
        return message
    # An escape such as \\ud83d may have been cut off from its other half.
    return without_halves(message)
