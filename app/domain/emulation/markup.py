"""The forms in which models write tool calls.

A *marked* call stands in this request's own tag, which no earlier text can know, or between Kimi-K2's own tokens, which
the prompt composer removes from all text that isn't the model's. It counts anywhere outside of thinking; Kimi's tokens
don't count within a code fence either, where they are an example. (Our tag has no use except calling, so a fence around
it is mere habit.)

A *loose* call is one that a quotation might look like: `<tool_call>` without our tag, `functions.NAME:0{…}` without
tokens, and plain JSON. It counts only if nothing but calls follows it up to the end of the reply; plain JSON only if
nothing precedes it either. The composer removes the first two from the prompt as well.

All patterns are bounded: a search looks at each character a bounded number of times.
"""

import re

_NAME = r"[\w.\-]{1,128}"
_TAG = r"[A-Za-z0-9]{1,64}"
_INDEX = r":\d{1,6}"
_ARGUMENTS = r"<\|tool_call_arguments?_begin\|>"

THINK, END_OF_THINKING = "<think>", "</think>"
# After Kimi's <|tool_call_begin|>. The name may end in an index, which no tool's name contains.
KIMI_HEAD = re.compile(rf"\s{{0,9}}({_NAME})(?:{_INDEX})?\s{{0,9}}(?:{_ARGUMENTS}\s{{0,9}})?(?=[{{\[\"'<])")
KIMI_LEFTOVER = re.compile(r"<\|tool_calls?_(?:section_)?(?:begin|end)\|>")
LOOSE_HEAD = re.compile(
    rf"^[ \t]{{0,3}}(?:<tool_calls?>\s{{0,9}}(?=[{{\[])|functions\.{_NAME}{_INDEX}\s{{0,9}}(?=\{{))", re.MULTILINE
)
AROUND_JSON = re.compile(r"\A`{3}\w{0,20}\s{0,9}|\s{0,9}`{3}\Z")
ANY_TAG = re.compile(r"</?tool_calls?>|<\|tool_calls?_(?:section_)?(?:begin|end)\|>")
FENCE = re.compile(r"^[ \t]{0,3}`{3}", re.MULTILINE)
FENCED_JSON = re.compile(
    r"^`{3}(?:json\w{0,2}|tool_calls?|tool_code)?[ \t]{0,9}\n\s{0,9}(?=[{\[])", re.MULTILINE | re.IGNORECASE
)
# Between loose calls. The name belongs to the arguments that follow.
LOOSE_SEPARATOR = re.compile(
    rf"(?:\s|`{{3}}[a-z_]{{0,20}}|</?tool_calls?>|,)*+(?:functions\.({_NAME}){_INDEX}\s{{0,9}})?"
)
LOOSE_ENDING = re.compile(r"(?<![\s`])\s{0,9}(?:</tool_calls?>|`{3})\s{0,9}\Z")
# What may stand between the end of a call's JSON and its closing tag.
AFTER_JSON = re.compile(r"[\s}\]`;]{0,40}")
FENCE_BEFORE = re.compile(r"(?:\A|\n)[ \t]{0,3}`{3}[\w-]{0,20}\s{0,9}\Z")
_FENCE_AFTER = re.compile(r"\s{0,9}`{3}[ \t]{0,9}(?=\n|\Z)")
_THINK_NEXT = re.compile(rf"\s*+{THINK}")
_SHORTEST_PARTIAL = len("<tool_")


# The group that matched says what was found. Whether a tag is the request's own remains to be checked.
MARK = re.compile(
    rf"(?P<think>{THINK})|<tool_call_(?P<tag>{_TAG})\s{{0,9}}>\s{{0,9}}(?:`{{3}}\w{{0,20}}\s{{0,9}})?"
    rf"|(?P<kimi><\|tool_call_begin\|>)|functions\.(?P<name>{_NAME}){_INDEX}\s{{0,9}}{_ARGUMENTS}\s{{0,9}}"
    r"|(?P<fence>^[ \t]{0,3}`{3})",
    re.MULTILINE,
)
END = re.compile(rf"</tool_call(?:_{_TAG})?\s{{0,9}}>|<\|tool_calls?_(?:section_)?end\|>")


class Markup:
    """The markup of one request, whose tag is `tag`."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.opening, self.closing = f"<tool_call_{tag}>", f"</tool_call_{tag}>"

    def is_cut_off(self, reply: str) -> bool:
        """Whether the reply ends within our opening tag."""
        begin = reply.rfind("<")
        tail = reply[begin:] if begin >= 0 else ""
        return len(tail) >= _SHORTEST_PARTIAL and tail != self.opening and self.opening.startswith(tail)

    def unmarked(self, reply: str) -> str:
        """The reply without tags that stand around a call."""
        return ANY_TAG.sub("", reply.replace(self.opening, "").replace(self.closing, ""))

    def between_calls(self, pieces: list[str]) -> str:
        """Join the texts around calls, without leftover markup and without fences that contained only a call."""
        kept: list[str] = []
        for piece in pieces:
            text = KIMI_LEFTOVER.sub("", piece.replace(self.opening, "").replace(self.closing, ""))
            after = _FENCE_AFTER.match(text) if kept else None
            before = FENCE_BEFORE.search(kept[-1]) if after else None
            if after and before:
                kept[-1] = kept[-1][: before.start()]
                text = text[after.end() :]
            kept.append(text)
        return "\n".join(text for piece in kept if (text := piece.strip()))


def without_thinking(reply: str) -> str:
    """The reply without the thinking before the answer; empty if the thinking never ends."""
    place = 0
    while opening := _THINK_NEXT.match(reply, place):
        end = reply.find(END_OF_THINKING, opening.end())
        if end < 0:
            return ""
        place = end + len(END_OF_THINKING)
    return reply[place:]
