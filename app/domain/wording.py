"""What the gateway itself says within a chat, in the conversation's language: Chinese where it is, else English."""

import re

# Beyond this a text's language is known.
_LOOKED_AT = 2000
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_OTHER_LETTERS = re.compile(r"[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]")
# Japanese has Han characters as well, Korean may have.
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
# A Chinese word has about two characters, an English one five: as many words of each are no Chinese text.
_LETTERS_PER_HAN = 3
_CHINESE_UNITS = {"characters": "个字符", "UTF-16 units": "个 UTF-16 单元", "bytes": "字节", "tokens": "个 token"}


# How a notice begins: in a line of its own below the answer, as a quotation in Markdown.
_NOTICE_MARK = "\n\n> ⓘ "
_NOTICE = "Not everything fit: "
_CHINESE_NOTICE = "内容超出长度限制："
_OLD_NOTICE = re.compile(rf"> ⓘ (?:{_NOTICE}|{_CHINESE_NOTICE})[^\n]{{1,300}}\s*\Z")


def is_chinese(text: str) -> bool:
    """Whether a text is Chinese, as far as its characters tell."""
    if text.isascii():
        return False
    text = text[:_LOOKED_AT]
    han = len(_HAN.findall(text))
    return han > 0 and len(_OTHER_LETTERS.findall(text)) <= han * _LETTERS_PER_HAN and not _KANA_OR_HANGUL.search(text)


def message_too_long(text: str, size: int, most: int, *, unit: str, setting: str, are_results: bool) -> str:
    """Why a message is refused, and what can be done.

    Args:
        text: The message, for its language.
        size: Its size.
        most: The size that the model takes.
        unit: What is counted, in English.
        setting: The setting that bounds the size.
        are_results: It is no message but the results of tools.
    """
    if is_chinese(text):
        units = _CHINESE_UNITS[unit]
        subject = "工具返回的结果" if are_results else "您的消息"
        return (
            f"{subject}共有 {size} {units}，而该模型一次最多接受 {most} {units}。"
            f"请分成几段发送，或请管理员设置 LONG_MESSAGES=shorten（上限由 {setting} 决定）。"
        )
    subject = "The results of the tools have" if are_results else "Your message has"
    return (
        f"{subject} {size} {unit}; this model takes {most} at a time. Send it in smaller parts, or ask the operator to "
        f"set LONG_MESSAGES=shorten ({setting} is the limit)."
    )


def instructions_too_long(text: str, param: str, size: int, together: int, *, unit: str, setting: str) -> str:
    """Why tools or a form of the answer are refused, and what can be done.

    Args:
        text: The message, for its language.
        param: The field that asks for them.
        size: What it takes to tell the model about them.
        together: The same, together with the message.
        unit: What is counted, in English.
        setting: The setting that bounds the size.
    """
    if is_chinese(text):
        units = _CHINESE_UNITS[unit]
        return (
            f"向模型说明 {param} 需要 {size} {units}，加上您的消息共 {together} {units}（上限由 {setting} 决定）。"
            f"请减少或简化 {param}，或缩短消息。"
        )
    return (
        f"Telling the model about {param} takes {size} {unit}, {together} together with your message "
        f"({setting} is the limit). Send fewer or simpler {param}, or a shorter message."
    )


def left_out_mark(text: str, number: int) -> str:
    """Stands in a text for so many characters in its middle."""
    return f"\n［……此处省略 {number} 个字符……］\n" if is_chinese(text) else f"\n[… {number} characters left out …]\n"


def part_note(text: str, part: int, parts: int) -> str:
    """Stands below a part of a message that is sent in several."""
    if is_chinese(text):
        if part < parts:
            return f"\n\n（以上是这条消息的第 {part} 部分，共 {parts} 部分。请等最后一部分发完再回答，现在只回复好。）"
        return f"\n\n（以上是第 {part} 部分，共 {parts} 部分，已全部发完。现在请回答整条消息。）"
    if part < parts:
        return f"\n\n(That was part {part} of {parts} of my message. Answer only after the last part; now just say OK.)"
    return f"\n\n(That was part {part} of {parts}, the last. Now answer the whole message.)"


def notice(text: str, *, dropped: int, shortened: int, tools: int) -> str:
    """The line below an answer that tells what its model didn't get to read; "" if nothing is missing.

    Args:
        text: The message that was answered, for its language.
        dropped: Messages that were left out.
        shortened: Messages that were cut down to their head and tail.
        tools: Tools that were left out.
    """
    if is_chinese(text):
        told = [f"省略了 {dropped} 条较早的消息"] * bool(dropped)
        told += [f"缩短了 {shortened} 条消息"] * bool(shortened)
        told += [f"省略了 {tools} 个工具"] * bool(tools)
        return f"{_NOTICE_MARK}{_CHINESE_NOTICE}{'，'.join(told)}。" if told else ""
    told = [f"{_counted(dropped, 'earlier message')} left out"] * bool(dropped)
    told += [f"{_counted(shortened, 'message')} shortened"] * bool(shortened)
    told += [f"{_counted(tools, 'tool')} left out"] * bool(tools)
    return f"{_NOTICE_MARK}{_NOTICE}{', '.join(told)}." if told else ""


def without_notice(answer: str) -> str:
    """An earlier answer without the notice that stood below it."""
    # From its mark on: a pattern that begins with white space takes the square of a long text of it.
    place = answer.rfind("> ⓘ ")
    return answer[:place].rstrip() if place >= 0 and _OLD_NOTICE.match(answer, place) else answer


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
