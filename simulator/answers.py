"""Composes what the simulated site says: readable, honest about being no model, and able to recall. Pure."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from simulator.facts import language_of, recall

MOST_NUMBERS: Final = 5000
MOST_WORDS: Final = 100_000
ECHOED_CHARACTERS: Final = 200

# Family, flags, a letter with a combining accent, a skin tone and Chinese: what naive chunking cuts apart.
EMOJI_TEXT: Final = (
    "Family: \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466. "
    "Flags: \U0001f1e8\U0001f1f3\U0001f1e9\U0001f1ea. "
    "Accents: cafe\u0301, a\u0302\u0323. Thumb: \U0001f44d\U0001f3fd. 中文：你好，世界！"
)
_FILLER: Final = ("lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit")

_TAG: Final = r"\[(System|User|Assistant|Tool)(?:[ :(][^\]\n]{0,60})?\]:[ ]?"
_TAG_ON_ITS_LINE: Final = re.compile(rf"^[ \t]*{_TAG}", re.IGNORECASE | re.MULTILINE)
_TAG_ANYWHERE: Final = re.compile(_TAG, re.IGNORECASE)

_CALL_ASKED: Final = re.compile(r"\bcall ([\w.-]{1,64}) with\s*[:：]?\s*(\{.*\})", re.IGNORECASE | re.DOTALL)
# How a prompt shows the form of a call: marks around a pattern with a place for the name and one for the arguments.
_CALL_FORM: Final = re.compile(r'(<\w+>)\{"name":"NAME","arguments":\{\.\.\.\}\}(</\w+>)')
# How chat apps ask for a title, tags or what to ask next: the JSON that they want, then the conversation, quoted.
_ABOUT_CHAT: Final = re.compile(r'\{ ?"(title|tags|follow_ups)": ?["\[]')
_FIRST_QUOTED: Final = re.compile(r"^(?:USER|User|user|Human): ?(.+)$", re.MULTILINE)
_TITLE_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_TITLE_WORDS: Final = 3
_TO_REMEMBER: Final = re.compile(
    r"(?:\bremember(?:\s*[:：]|\s+that\b)|记住\s*[:：，,])\s*(.+?)(?=[.!?](?:\s|$)|[。！？\n]|$)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class TaggedTurn:
    """One turn of the conversation that a prompt holds. `role` is in lower case."""

    role: str
    text: str


def split_turns(prompt: str) -> tuple[TaggedTurn, ...]:
    """The turns of a prompt, in order; a prompt without role tags is one user turn.

    Text before the first tag belongs to no turn.
    """
    tags = list(_tag_pattern(prompt).finditer(prompt))
    if not tags:
        return (TaggedTurn("user", prompt.strip()),)
    ends = [tag.start() for tag in tags[1:]] + [len(prompt)]
    return tuple(
        TaggedTurn(tag[1].lower(), prompt[tag.end() : end].strip()) for tag, end in zip(tags, ends, strict=True)
    )


def _tag_pattern(prompt: str) -> re.Pattern[str]:
    # A tag counts at the start of a line, so that text which mentions one is not cut up. Only where the
    # newlines were stripped on the way, and the prompt still opens with a tag, one counts anywhere.
    text = prompt.strip()
    one_line = "\n" not in text and _TAG_ANYWHERE.match(text) is not None
    return _TAG_ANYWHERE if one_line else _TAG_ON_ITS_LINE


def compose_answer(prompt: str) -> str:
    """The answer to a prompt: what the last user turn asks for if that is a known skill, else an echo."""
    turns = split_turns(prompt)
    said = [turn.text for turn in turns if turn.role == "user"] or [""]
    form = _CALL_FORM.search(prompt)
    asked_call = call_asked_for(said[-1])
    if form is not None and asked_call is not None and turns[-1].role == "user":
        name, arguments = asked_call
        return f'{form[1]}{{"name":"{name}","arguments":{arguments}}}{form[2]}'
    for pattern, skill in _SKILLS:
        asked = pattern.search(said[-1])
        if asked:
            return skill(asked, said)
    return recall(said[-1], said) or _echo(prompt, said[-1])


def _tell_about_chat(asked: re.Match[str], said: Sequence[str]) -> str:
    first = _FIRST_QUOTED.search(said[-1])
    told = first[1] if first else ""
    if asked[1] == "title":
        words = _TITLE_WORD.findall(told)[:_TITLE_WORDS]
        about = told[:8] if language_of(told) == "chinese" else " ".join(words).title()
        return json.dumps({"title": about or "A Chat"}, ensure_ascii=False)
    if asked[1] == "tags":
        return '{"tags": ["General"]}'
    return '{"follow_ups": ["What is my name?", "Count to 20", "Emoji test"]}'


def call_asked_for(text: str) -> tuple[str, str] | None:
    """Name and arguments of the call that a text such as `Call get_weather with {"city": "Paris"}` asks for."""
    asked = _CALL_ASKED.search(text)
    return (asked[1], asked[2]) if asked else None


def characters(number: int) -> str:
    """So many characters, in words."""
    return "1 character" if number == 1 else f"{number} characters"


def _echo(prompt: str, last: str) -> str:
    shown = last if len(last) <= ECHOED_CHARACTERS else last[:ECHOED_CHARACTERS] + "…"
    if language_of(last) == "chinese":
        return f"这是 Kimi 网站的模拟器，背后没有模型。你写的是：{shown}\n\n提示词共 {len(prompt)} 个字符。"
    return (
        "This is the simulator of the Kimi site; no model is behind it. "
        f"You wrote: {shown}\n\nThe prompt has {characters(len(prompt))}."
    )


def _tell_remembered(_: re.Match[str], said: Sequence[str]) -> str:
    told = [match[1] for text in said for match in _TO_REMEMBER.finditer(text)]
    if language_of(said[-1]) == "chinese":
        return f"你让我记住：{told[-1]}。" if told else "你还没有让我记住什么。"
    return f"You asked me to remember: {told[-1]}." if told else "You have not asked me to remember anything."


def _repeat(asked: re.Match[str], _: Sequence[str]) -> str:
    return asked[1]


def _count(asked: re.Match[str], _: Sequence[str]) -> str:
    last = int(asked[1])
    if not 1 <= last <= MOST_NUMBERS:
        return f"The simulator counts from 1 to {MOST_NUMBERS} at most."
    return " ".join(str(number) for number in range(1, last + 1))


def _lorem(asked: re.Match[str], _: Sequence[str]) -> str:
    words = int(asked[1])
    if not 1 <= words <= MOST_WORDS:
        return f"The simulator writes 1 to {MOST_WORDS} words."
    return " ".join(islice(cycle(_FILLER), words))


def _emoji(_: re.Match[str], __: Sequence[str]) -> str:
    return EMOJI_TEXT


_Skill = Callable[[re.Match[str], Sequence[str]], str]
# In this order: what is to be repeated may itself hold any of the other requests.
_SKILLS: Final[tuple[tuple[re.Pattern[str], _Skill], ...]] = (
    (_ABOUT_CHAT, _tell_about_chat),
    (re.compile(r"\brepeat after me\s*[:：]\s*(.+)", re.IGNORECASE | re.DOTALL), _repeat),
    (re.compile(r"\bemoji test\b", re.IGNORECASE), _emoji),
    (re.compile(r"\bcount to ([0-9]{1,9})\b", re.IGNORECASE), _count),
    (re.compile(r"\blorem ([0-9]{1,9})\b", re.IGNORECASE), _lorem),
    (re.compile(r"\bwhat did i ask you to remember\b|我[让请叫]你记住了?什么", re.IGNORECASE), _tell_remembered),
)
