"""Whether what looks like a call is only repeated from what others have said.

A tool's result or a user's message may contain the text of a call, and a model that quotes it must not call the tool:
that would lend the client's tools to whoever wrote the text. Only a call in the request's own tag is certainly the
model's, because no earlier text can know the tag. Any other form counts only if its text stands in no message that
somebody else wrote. White space, quotes, escapes, entities, letter case and template tokens make no difference, so that
a quotation within a JSON string, in a code fence or in HTML is one as well.
"""

import html
import re
from collections.abc import Sequence

from app.domain.chat import Message

# What may be added or lost where a text is quoted: spaces, quotes, escapes, tokens and tags around calls.
_PASSED_OVER = re.compile(r"<[|｜][\w▁/]{1,40}[|｜]>|</?tool_calls?>|\[/?TOOL_CALLS\]|[\s\"'`\\]+")
_ESCAPE = re.compile(r"\\{1,8}u([0-9a-fA-F]{4})")
_NEW_LINE = re.compile(r"\\{1,8}[nrt]")
_OTHERS = ("user", "tool")


class Quotations:
    """What users and tools have said in a conversation, for looking calls up in it.

    Args:
        messages: The conversation, whether or not the model was sent all of it.
    """

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._messages = messages
        # Made at the first look: most replies have nothing that could be a quotation.
        self._said: str | None = None

    def has(self, call: str) -> bool:
        """Whether the text of a call stands in what others have said."""
        if self._said is None:
            texts = [_plain(message.text) for message in self._messages if message.role in _OTHERS]
            # Nothing that is searched for has a NUL in it: no match goes from one text to the next.
            self._said = "\0".join(texts)
        wanted = _plain(call).replace("\0", "")
        return bool(wanted) and wanted in self._said


def _plain(text: str) -> str:
    """A text without everything that a quotation may add or lose."""
    if "\\" in text:
        text = _NEW_LINE.sub(" ", _ESCAPE.sub(_character, text))
    if "&" in text:
        text = html.unescape(text)
    return _PASSED_OVER.sub("", text).casefold()


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
