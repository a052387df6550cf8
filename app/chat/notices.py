"""A line below an answer that tells people in chat apps, which show no headers, what the model didn't get to read."""

from collections.abc import Sequence

from msgspec.structs import replace

from app.chat.events import Opening
from app.chat.fitting import tools_among
from app.domain.chat import ChatCall, Completion, Message
from app.domain.conversation import SHORT_TEXT, asks_for_task, mentions_task
from app.domain.wording import notice, without_notice


def notice_below(completion: Completion, opening: Opening, call: ChatCall, messages: Sequence[Message]) -> str:
    """The notice for an answer; "" if it needs none, or if a program is going to read it.

    Args:
        completion: The answer.
        opening: How it came about.
        call: What was asked.
        messages: The conversation.
    """
    prompt, left_out = opening.prompt, opening.ignored
    if not (prompt.dropped or prompt.shortened or left_out) or not _is_for_people(completion, call):
        return ""
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    instructions = [message.text for message in messages if message.role == "system"]
    if asks_for_task(question) or any(len(text) <= SHORT_TEXT and mentions_task(text) for text in instructions):
        return ""
    # That tools are left out is the same with every answer: the first one tells.
    is_first = not any(message.role == "assistant" for message in messages)
    return notice(
        question,
        dropped=prompt.dropped,
        shortened=prompt.shortened,
        tools=tools_among(left_out) if is_first else 0,
    )


def without_notices(call: ChatCall) -> ChatCall:
    """A call as if its earlier answers had been told without notices."""
    for message in call.messages:
        if message.role == "assistant" and "> ⓘ " in message.text:
            break
    else:
        return call
    return replace(call, messages=tuple([_without_notice(message) for message in call.messages]))


def _without_notice(message: Message) -> Message:
    text = without_notice(message.text) if message.role == "assistant" else message.text
    return message if text == message.text else replace(message, text=text)


def _is_for_people(completion: Completion, call: ChatCall) -> bool:
    """Whether the answer is words, and complete, and nothing says that a program takes them apart."""
    if completion.finish_reason != "stop" or completion.tool_calls or completion.refusal or completion.others:
        return False
    text = completion.text.strip()
    return bool(text) and text[0] not in "{[<" and call.output_format.kind == "text" and not call.stop
