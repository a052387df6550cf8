"""What users tell about themselves in plain sentences, English or Chinese, and how the simulator recalls it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Language = Literal["english", "chinese"]

# The end of a value: of an English one a sentence, a clause or a new thought; of a Chinese one any punctuation.
_STOP: Final = r"(?<!\bSt)[.!?](?:\s|$)|[,;:，。！？；：\n]|$"
_END: Final = rf"(?=\s*(?:{_STOP}|\s(?:and|but|so|who|which|because)\b))"
_ENGLISH_VALUE: Final = rf"(?P<value>[^\W_][^\n,;:!?，。！？；：]{{0,60}}?){_END}"
_ENGLISH_LIST: Final = rf"(?P<value>[^\W_][^\n;:!?，。！？；：]{{0,60}}?)(?=\s*(?:{_STOP}))"
_CLAUSE: Final = r"(?=[\s，。！,.!]|$)"
_CHINESE_VALUE: Final = (
    r"\s*(?P<value>(?!什么|哪|啥|谁|多少|几)[^\s，。！？、；：,.!?;:]{1,30}?)"
    r"(?=[\s，。！？、；：,.!?;:]|请|今年|很高兴|$)"
)
# A name goes on for as long as its words begin with capitals.
_NAME: Final = r"(?P<value>[^\W\d_][\w'’-]*(?:[ ][A-ZÀ-ÖØ-Þ][\w'’-]*)*)"
_NO_NAME: Final = r"(?!(?:I|OK|Ok|Not|A|An|The|American|German|French|Russian|Italian|Indian|\w+(?:ese|ish))\b)"
_PROPER_NAME: Final = rf"(?P<value>{_NO_NAME}[A-ZÀ-ÖØ-Þ][\w'’-]*(?:[ ][A-ZÀ-ÖØ-Þ][\w'’-]*)*)"
_I_AM: Final = r"\b(?i:i'm|i’m|im|i am)\s+"
_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")

# How facts are told, and which fact it is then; `{thing}` stands for what the sentence itself calls it.
_TOLD: Final = tuple(
    (fact, re.compile(pattern))
    for fact, pattern in (
        ("name", rf"\b(?i:my name is|my name's|my name’s|i am called|i'm called|i’m called|i go by)\s+{_NAME}"),
        ("name", rf"\b(?i:(?:you can |please |just |they |people )call me)\s+(?!(?i:back|later|when|if|at)\b){_NAME}"),
        ("name", rf"(?:^|[.!?,;]\s+)(?i:call me)\s+(?!(?i:back|later|when|if|at|a|an|the)\b){_NAME}"),
        ("name", rf"{_I_AM}{_PROPER_NAME}(?:(?=\s+from\s)|{_END})"),
        ("name", rf"(?i:\b(?:hi|hello|hey)\b[^.\n]{{0,20}}[,!.]?\s+i(?:'m|’m| am))\s+(?P<value>[^\W\d_]\w*){_END}"),
        ("name", rf"(?:我叫|叫我|我的名字是|我的名字叫|我名叫){_CHINESE_VALUE}"),
        (
            "name",
            rf"我是(?P<value>(?!谁|哪|什么|啥)[\u4e00-\u9fff]{{2,4}}|[A-Za-z][\w-]*)(?<![人员师生家者谁么里的]){_CLAUSE}",
        ),
        ("origin", rf"{_I_AM}(?:(?:(?!not\b)[^.!?\n]){{1,40}}[, ] ?)?(?i:(?:originally )?from)\s+{_ENGLISH_VALUE}"),
        ("origin", rf"\b(?i:i (?:originally )?(?:come|hail) from)\s+{_ENGLISH_VALUE}"),
        (
            "origin",
            rf"(?:我就?是?|[，,、。\s]是?)从\s*(?P<value>(?!哪|什么)[^，。！？,.!?]{{1,30}}?)\s*(?:过来|来)的?{_CLAUSE}",
        ),
        ("origin", rf"(?:我(?:是)?|[，,、。\s])来自{_CHINESE_VALUE}"),
        ("origin", rf"我是(?P<value>(?!哪|什么|一个|个)[\u4e00-\u9fff]{{1,8}})人{_CLAUSE}"),
        ("home", rf"(?i:\bi (?:now |currently )?live in|{_I_AM}living in)\s+{_ENGLISH_VALUE}"),
        ("home", rf"我(?:现在|目前)?住在{_CHINESE_VALUE}"),
        ("age", rf"{_I_AM}(?P<value>\d{{1,3}})(?:\s+years?\s+old)?{_END}"),
        ("age", r"我(?:今年|已经|现在)*\s*(?P<value>\d{1,3}|[一二三四五六七八九十]{1,3})岁"),
        ("job", rf"(?i:{_I_AM}|\bi work as )(?i:an?)\s+{_ENGLISH_VALUE}"),
        ("job", rf"我是一?(?:名|位|个)\s*(?P<value>(?!什么|谁)[^\s，。！？,.!?]{{1,20}}?){_CLAUSE}"),
        ("liking", rf"\b(?i:i (?:really )?(?:like|love))\s+{_ENGLISH_LIST}"),
        ("liking", rf"我(?:最|很|非常)?(?:喜欢|爱){_CHINESE_VALUE}"),
        ("my {thing}", rf"\b(?i:my (?P<thing>(?!name\b)\w[\w'’ -]{{0,40}}?) (?:is|are))\s+{_ENGLISH_VALUE}"),
        ("我的{thing}", rf"我的(?P<thing>(?!名字)[\u4e00-\u9fff]{{1,10}}?)(?:是|叫){_CHINESE_VALUE}"),
    )
)

# What has a row of its own.
_OTHER_FACTS: Final = r"(?:(?:own )?name|age|job|profession|occupation)\b"

# How they are asked for.
_ASKED: Final = tuple(
    (fact, re.compile(pattern, re.IGNORECASE))
    for fact, pattern in (
        ("name", r"\bwhat(?:'s|’s| is| was) my (?:own )?name\b|\bwhat my name is\b|\bwho am i\b|\bwhat am i called\b"),
        ("name", r"\b(?:remember|know|tell me) my name\b"),
        ("name", r"我叫什么|我叫啥|我是谁|我的名字(?:是什么|叫什么|吗)|我的名字$"),
        ("origin", r"\bwhere (?:do|did) i come from\b|\bwhere (?:am i|i am|i'm|i come) from\b"),
        ("origin", r"我(?:是)?(?:来自|从)(?:哪|什么地方|什么城市|什么国家)|我是(?:哪里|哪儿|哪国|什么地方)(?:的)?人?"),
        ("home", r"\bwhere (?:do i|i) live\b|我(?:现在|目前)?住(?:在)?(?:哪|什么地方)"),
        ("age", r"\bhow old (?:am i|i am)\b|\bwhat(?:'s|’s| is) my age\b|我(?:今年|现在)?(?:多大|几岁|多少岁)"),
        ("job", r"\bwhat do i do\b(?! with)|\bwhat(?:'s|’s| is) my (?:job|profession|occupation)\b"),
        ("job", r"我是做什么的|我做什么工作|我的(?:工作|职业)是什么"),
        ("liking", r"\bwhat do i (?:really )?(?:like|love)\b|我(?:最)?喜欢(?:什么|啥|吃什么)"),
        ("my {thing}", rf"\bwhat(?:'s|’s| is| are) my (?P<thing>(?!{_OTHER_FACTS})\w[\w'’ -]{{0,40}}?)\s*(?:[?.!]|$)"),
        ("我的{thing}", r"我的(?P<thing>(?!名字|工作|职业)[\u4e00-\u9fff]{1,10}?)(?:是|叫)(?:什么|啥|谁|哪)"),
        ("all", r"\b(?:do|can) you (?:still )?remember me\b|\bwhat do you (?:know|remember) about me\b"),
        ("all", r"(?:记得|认识|知道)我(?:吗|么|是谁)|(?:记得|知道)(?:关于)?我(?:的)?(?:什么|哪些)"),
    )
)

# How they are recalled.
_RECALLED: Final[Mapping[Language, Mapping[str, str]]] = MappingProxyType(
    {
        "english": {
            "name": "Your name is {value}.",
            "origin": "You come from {value}.",
            "home": "You live in {value}.",
            "age": "You are {value} years old.",
            "job": "You work as: {value}.",
            "liking": "You like {value}.",
        },
        "chinese": {
            "name": "你叫{value}。",
            "origin": "你来自{value}。",
            "home": "你住在{value}。",
            "age": "你{value}岁。",
            "job": "你的职业是{value}。",
            "liking": "你喜欢{value}。",
        },
    }
)
_UNTOLD: Final[Mapping[Language, Mapping[str, str]]] = MappingProxyType(
    {
        "english": {
            "name": "You have not told me your name.",
            "origin": "You have not told me where you come from.",
            "home": "You have not told me where you live.",
            "age": "You have not told me your age.",
            "job": "You have not told me what you do.",
            "liking": "You have not told me what you like.",
            "all": "You have not told me anything about yourself.",
        },
        "chinese": {
            "name": "你还没有告诉我你的名字。",
            "origin": "你还没有告诉我你来自哪里。",
            "home": "你还没有告诉我你住在哪里。",
            "age": "你还没有告诉我你的年龄。",
            "job": "你还没有告诉我你的职业。",
            "liking": "你还没有告诉我你喜欢什么。",
            "all": "你还没有告诉我任何关于你的事。",
        },
    }
)
_HONEST: Final[Mapping[Language, str]] = MappingProxyType(
    {
        "english": "This is the simulator of the Kimi site, and no model: it knows only what the prompt says.",
        "chinese": "这是 Kimi 网站的模拟器，背后没有模型：它只知道提示词里写了什么。",
    }
)


@dataclass(frozen=True, slots=True)
class _Telling:
    place: int
    fact: str
    value: str


def language_of(text: str) -> Language:
    """The language in which a text is to be answered."""
    return "chinese" if _CHINESE.search(text) else "english"


def recall(question: str, said: Sequence[str]) -> str | None:
    """The answer to a question about the user, in its language; None if it asks for no such thing.

    Args:
        said: All that the user said, the question included; of what is told twice, the last counts.
    """
    asked = dict.fromkeys(
        fact.format(**found.groupdict()).casefold() for fact, pattern in _ASKED if (found := pattern.search(question))
    )
    if not asked:
        return None
    told = {fact: value for text in said for fact, value in _told_in(text).items()}
    facts = list(told) if "all" in asked and told else list(asked)
    language = language_of(question)
    sentences = [_sentence(fact, told.get(fact), language) for fact in facts]
    if any(fact not in told for fact in facts):
        sentences.append(_HONEST[language])
    return ("" if language == "chinese" else " ").join(sentences)


def _told_in(text: str) -> dict[str, str]:
    """The facts that a text tells, in its order."""
    tellings = [
        _Telling(found.start(), fact.format(**found.groupdict()).casefold(), found["value"].strip())
        for fact, pattern in _TOLD
        for found in pattern.finditer(text)
    ]
    return {telling.fact: telling.value for telling in sorted(tellings, key=lambda telling: telling.place)}


def _sentence(fact: str, value: str | None, language: Language) -> str:
    if value is None:
        return _UNTOLD[language].get(fact) or _untold_thing(fact, language)
    pattern = _RECALLED[language].get(fact)
    if pattern is not None:
        return pattern.format(value=value)
    thing = fact.removeprefix("my ").removeprefix("我的")
    return f"你的{thing}：{value}。" if language == "chinese" else f"Your {thing}: {value}."


def _untold_thing(fact: str, language: Language) -> str:
    thing = fact.removeprefix("my ").removeprefix("我的")
    return f"你还没有告诉我你的{thing}。" if language == "chinese" else f"You have not told me about your {thing}."
