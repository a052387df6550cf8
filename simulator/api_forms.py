"""The forms of API that the simulated upstream speaks: OpenAI's, Anthropic's and Gemini's. Pure.

What is asked is understood in OpenAI's form, and the same answer is written in each.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulator.openai_answers import ApiAnswer, chunks, completion, event

_PIECE: Final = re.compile(r"\s*\S+\s*$|\s*\S+", re.DOTALL)
_SIGNATURE: Final = "c2lnbmVkIGJ5IHRoZSBzaW11bGF0b3I="
_GEMINI_ENDS: Final = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}
_EMPTY: Final[Mapping[str, Mapping[str, Any]]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
_ANTHROPIC_ENDS: Final = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}


@dataclass(frozen=True, slots=True)
class Form:
    """One form of API.

    Args:
        key_header: The header that the key comes in, in lower case.
        key_prefix: What stands before it there.
        understood: A request's body in OpenAI's form.
        whole: An answer in one piece.
        events: The events of a streamed answer. The flag says whether tokens are counted at its end.
        end: What comes after them.
    """

    key_header: str
    key_prefix: str
    understood: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    whole: Callable[[ApiAnswer], dict[str, Any]]
    events: Callable[[ApiAnswer, bool], Sequence[bytes]]
    end: bytes = b""


def _openai_events(answer: ApiAnswer, with_usage: bool) -> Sequence[bytes]:
    return [event(document) for document in chunks(answer, with_usage=with_usage)]


# ── Anthropic ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_anthropic(body: Mapping[str, Any]) -> Mapping[str, Any]:
    messages: list[dict[str, Any]] = []
    if body.get("system"):
        messages.append({"role": "system", "content": body["system"]})
    for message in body.get("messages") or ():
        blocks = message.get("content")
        blocks = blocks if isinstance(blocks, list) else [{"type": "text", "text": blocks}]
        results = [block for block in blocks if block.get("type") == "tool_result"]
        messages += [{"role": "tool", "content": _words(block.get("content"))} for block in results]
        if len(results) < len(blocks):
            messages.append({"role": message.get("role"), "content": [b for b in blocks if b not in results]})
    choice = body.get("tool_choice") or {}
    chosen = {"any": "required", "none": "none", "tool": {"function": {"name": choice.get("name")}}}
    return {
        **body,
        "messages": messages,
        "tools": [{"function": tool} for tool in body.get("tools") or ()],
        "tool_choice": chosen.get(str(choice.get("type"))),
    }


def _words(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _anthropic_blocks(answer: ApiAnswer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": _SIGNATURE})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    for index, call in enumerate(answer.calls):
        arguments = json.loads(call["arguments"])
        blocks.append({"type": "tool_use", "id": f"toolu_simulated_{index}", "name": call["name"], "input": arguments})
    return blocks


def _anthropic_message(answer: ApiAnswer) -> dict[str, Any]:
    usage = {"input_tokens": answer.usage["prompt_tokens"], "output_tokens": answer.usage["completion_tokens"]}
    return {
        "id": "msg_simulated",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": _anthropic_blocks(answer),
        "stop_reason": _ANTHROPIC_ENDS[answer.finish_reason],
        "stop_sequence": None,
        "usage": usage,
    }


def _anthropic_events(answer: ApiAnswer, with_usage: bool) -> Sequence[bytes]:
    return [
        f"event: {document['type']}\n".encode() + event(document)
        for document in _anthropic_documents(_anthropic_message(answer), with_usage=with_usage)
    ]


def _anthropic_documents(message: dict[str, Any], *, with_usage: bool) -> Iterator[dict[str, Any]]:
    usage = message["usage"] if with_usage else {}
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1} if usage else {}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **_EMPTY[block["type"]]}}
        for delta in _anthropic_deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage.get("output_tokens", 0)}}
    yield {"type": "message_stop"}


def _anthropic_deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in _PIECE.findall(block["text"]))
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": piece} for piece in _PIECE.findall(block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        pieces = re.findall(r".{1,8}", json.dumps(block["input"]), re.DOTALL)
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


# ── Gemini ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_gemini(body: Mapping[str, Any]) -> Mapping[str, Any]:
    messages: list[dict[str, Any]] = []
    if body.get("systemInstruction"):
        messages.append({"role": "system", "content": body["systemInstruction"].get("parts")})
    for content in body.get("contents") or ():
        parts = content.get("parts") or []
        results = [part for part in parts if "functionResponse" in part]
        messages += [{"role": "tool", "content": _words(part["functionResponse"])} for part in results]
        if len(results) < len(parts):
            role = "assistant" if content.get("role") == "model" else "user"
            messages.append({"role": role, "content": [part for part in parts if part not in results]})
    tools = [tool for group in body.get("tools") or () for tool in group.get("functionDeclarations") or ()]
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    return {
        "model": body.get("model"),
        "messages": messages,
        "tools": [{"function": tool} for tool in tools],
        "tool_choice": {"ANY": "required", "NONE": "none"}.get(str(calling.get("mode"))),
        "max_tokens": (body.get("generationConfig") or {}).get("maxOutputTokens"),
        "stream": body.get("stream"),
    }


def _gemini_parts(answer: ApiAnswer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    parts += [{"text": piece, "thought": True} for piece in _PIECE.findall(answer.reasoning)]
    parts += [{"text": piece} for piece in _PIECE.findall(answer.text)]
    for index, call in enumerate(answer.calls):
        signed = {"thoughtSignature": _SIGNATURE} if not index else {}
        parts.append({"functionCall": {"name": call["name"], "args": json.loads(call["arguments"])}, **signed})
    return parts


def _gemini_answer(answer: ApiAnswer, parts: list[dict[str, Any]], end: str | None, usage: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if end is not None:
        candidate["finishReason"] = end
    counted = {
        "promptTokenCount": answer.usage["prompt_tokens"],
        "candidatesTokenCount": answer.usage["completion_tokens"],
        "totalTokenCount": answer.usage["total_tokens"],
    }
    return {
        "candidates": [candidate],
        "modelVersion": answer.model,
        "responseId": "simulated",
        **({"usageMetadata": counted} if usage else {}),
    }


def _gemini_whole(answer: ApiAnswer) -> dict[str, Any]:
    joined: list[dict[str, Any]] = []
    for text, kind in ((answer.reasoning, {"thought": True}), (answer.text, {})):
        joined += [{"text": text, **kind}] if text else []
    joined += [part for part in _gemini_parts(answer) if "functionCall" in part]
    return _gemini_answer(answer, joined, _GEMINI_ENDS[answer.finish_reason], usage=True)


def _gemini_events(answer: ApiAnswer, with_usage: bool) -> Sequence[bytes]:
    documents = [_gemini_answer(answer, [part], None, usage=False) for part in _gemini_parts(answer)]
    documents.append(
        _gemini_answer(answer, [{"text": ""}], _GEMINI_ENDS[answer.finish_reason], usage=with_usage),
    )
    return [event(document) for document in documents]


OPENAI: Final = Form("authorization", "Bearer ", lambda body: body, completion, _openai_events, end=b"data: [DONE]\n\n")
ANTHROPIC: Final = Form("x-api-key", "", _from_anthropic, _anthropic_message, _anthropic_events)
GEMINI: Final = Form("x-goog-api-key", "", _from_gemini, _gemini_whole, _gemini_events)
