"""Scripts for the simulated site: a stand-in for a model that is offered tools and uses them.

All facts come from the prompt, as they would for a model: the tag that a call has to be written with, and the fruit
that only a tool's result can hold. So an answer that names the fruit has been through the whole gateway twice.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulator.site import Script

_TAG = re.compile(r"<(tool_call_\w+)>")
_FRUIT = re.compile(r"kumquat-\d+")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the stand-in makes."""

    name: str
    arguments: Mapping[str, object]


def new_fruit() -> str:
    """A fruit that nobody can guess, for a tool to tell."""
    return f"kumquat-{secrets.randbelow(10**9)}"


def tool_user(call: Call, then: Callable[[str], str | Call] = "The fruit is {}.".format) -> Script:
    """A model that makes a call, and when a fruit is in the prompt does `then` with it: it says something or calls."""

    def reply(prompt: str) -> str:
        fruit = _FRUIT.search(prompt)
        step = then(fruit[0]) if fruit else call
        return _written(step, prompt) if isinstance(step, Call) else step

    return reply


def _written(call: Call, prompt: str) -> str:
    tags = _TAG.findall(prompt)
    if not tags:
        return "The prompt does not say how to call a tool."
    body = json.dumps({"name": call.name, "arguments": call.arguments})
    return f"<{tags[-1]}>{body}</{tags[-1]}>"
