"""Composes what the simulated OpenAI API says: whole completions and chunks. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulator.answers import call_asked_for, compose_answer
from simulator.behaviour import Behaviour

API_MODELS: Final = ("kimi-k2-0905-preview", "kimi-latest", "simulated-small")
_ID: Final = "chatcmpl-simulated"
_CREATED: Final = 1_700_000_000
_PIECE: Final = re.compile(r"\s*\S+\s*$|\s*\S+", re.DOTALL)
_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """One answer: what is thought, said and called, and the tokens that it takes."""

    model: str
    text: str
    reasoning: str
    calls: tuple[Mapping[str, str], ...]
    finish_reason: str
    usage: Mapping[str, int]


def answer_to(body: Mapping[str, Any], behaviour: Behaviour) -> ApiAnswer:
    """The answer to a request that is in order."""
    prompt = prompt_of(body)
    calls = () if _answers_a_call(body) else _calls(body, behaviour)
    text = "" if calls else (compose_answer(prompt) if behaviour.reply is None else behaviour.reply)
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    cut = text[: limit * _CHARACTERS_PER_TOKEN] if isinstance(limit, int) else text
    written = sum(map(len, (cut, behaviour.api_reasoning or "", *(call["arguments"] for call in calls))))
    read, wrote = tokens(len(prompt)), tokens(written)
    return ApiAnswer(
        model=str(body.get("model")),
        text=cut,
        reasoning=behaviour.api_reasoning or "",
        calls=calls,
        finish_reason="tool_calls" if calls else "stop" if cut == text else "length",
        usage={"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote},
    )


def tokens(characters: int) -> int:
    """As many as a tokenizer might make of them."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


def prompt_of(body: Mapping[str, Any]) -> str:
    """The conversation as the simulated site would be sent it."""
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    return "\n".join(f"[{str(message.get('role')).capitalize()}]: {_text(message)}" for message in messages)


def completion(answer: ApiAnswer) -> dict[str, Any]:
    """The answer in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(index, call) for index, call in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return {**_head(answer, "chat.completion"), "choices": [choice], "usage": answer.usage}


def chunks(answer: ApiAnswer, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    """The answer in chunks, a word or a few letters of arguments each."""
    yield _chunk(answer, {"role": "assistant", "content": ""})
    for piece in _PIECE.findall(answer.reasoning):
        yield _chunk(answer, {"reasoning_content": piece})
    for piece in _PIECE.findall(answer.text):
        yield _chunk(answer, {"content": piece})
    for index, call in enumerate(answer.calls):
        whole = _call(index, call)
        yield _chunk(answer, {"tool_calls": [{**whole, "function": {"name": call["name"], "arguments": ""}}]})
        for piece in re.findall(r".{1,8}", call["arguments"], re.DOTALL):
            yield _chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield _chunk(answer, {}, answer.finish_reason)
    if with_usage:
        yield {**_head(answer, "chat.completion.chunk"), "choices": [], "usage": answer.usage}


def event(document: object) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _head(answer: ApiAnswer, kind: str) -> dict[str, Any]:
    return {"id": _ID, "object": kind, "created": _CREATED, "model": answer.model}


def _chunk(answer: ApiAnswer, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {**_head(answer, "chat.completion.chunk"), "choices": [choice]}


def _call(index: int, call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"index": index, "id": f"call_simulated_{index}", "type": "function", "function": function}


def _answers_a_call(body: Mapping[str, Any]) -> bool:
    messages: Sequence[Any] = body.get("messages") or ()
    return bool(messages) and isinstance(messages[-1], dict) and messages[-1].get("role") == "tool"


def _calls(body: Mapping[str, Any], behaviour: Behaviour) -> tuple[Mapping[str, str], ...]:
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return ()
    if behaviour.api_tool_calls is not None:
        return tuple(_scripted(call) for call in behaviour.api_tool_calls)
    last = body["messages"][-1]
    asked = call_asked_for(_text(last)) if isinstance(last, dict) else None
    if asked is not None and any(tool.get("function", {}).get("name") == asked[0] for tool in tools):
        return ({"name": asked[0], "arguments": asked[1]},)
    if isinstance(choice, dict):
        return ({"name": str(choice.get("function", {}).get("name")), "arguments": "{}"},)
    return ({"name": str(tools[0].get("function", {}).get("name")), "arguments": "{}"},) if choice == "required" else ()


def _scripted(call: Mapping[str, Any]) -> Mapping[str, str]:
    arguments = call.get("arguments", {})
    return {"name": call["name"], "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "(an image)")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
