"""Pure functions on large inputs. Run in the gateway's own environment; prints JSON: milliseconds, medians.

python -m benchmarks.micro
"""

import json
import sys
import time
from collections.abc import Callable
from statistics import median

from app.api.openai.schemas import ChatCompletionRequest
from app.api.wire.body import parse_body
from app.domain.chat import Message
from app.domain.prompt import PromptLimit, compose

_WORDS = "the quick brown fox jumps over a lazy dog while small waves roll on to the shore and back again "


def milliseconds(function: Callable[[], object], times: int = 200) -> float:
    """What one call takes: the median of many."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return median(taken) * 1000


def history(messages: int, characters: int) -> list[Message]:
    """A conversation of so many messages of so many characters, its last one short enough for the limit."""
    text = (_WORDS * (characters // len(_WORDS) + 1))[:characters]
    turns = [Message("user" if index % 2 == 0 else "assistant", f"{index} {text}") for index in range(messages - 1)]
    return [*turns, Message("user", "And what do you make of all that?")]


def body(messages: int, characters: int) -> bytes:
    """The same as a request."""
    wire = [{"role": message.role, "content": message.text} for message in history(messages, characters)]
    return json.dumps({"model": "kimi-k2-instruct-0905", "messages": wire}).encode()


def run() -> dict[str, float]:
    """All of them."""
    long, small, large = history(200, 1000), PromptLimit(1000), PromptLimit(100_000)
    request = body(100, 1000)
    return {
        "compose_ms": milliseconds(lambda: compose(long, small)),
        "compose_100000_ms": milliseconds(lambda: compose(long, large)),
        "decode_ms": milliseconds(lambda: parse_body(ChatCompletionRequest, request)),
    }


if __name__ == "__main__":
    json.dump(run(), sys.stdout)
