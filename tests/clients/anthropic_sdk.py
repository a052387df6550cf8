"""Anthropic's SDK pointed at a running gateway, and a gateway with a model that follows a test's script."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from anthropic import Anthropic, DefaultHttpxClient
from anthropic.types import MessageParam, RawMessageStreamEvent
from pydantic import TypeAdapter

from app.assembly.app import create_app
from app.domain.chat import Completion, Delta, ToolCallDelta
from app.domain.prompt import PromptLimit
from app.observe import logging as logs
from app.providers.base import Ability, BaseProvider
from app.settings import load_settings
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS, LiveGateway, serving
from tests.scripted import ScriptedProvider, Step

_EVENT = TypeAdapter[Any](RawMessageStreamEvent)


def connect(gateway: LiveGateway, key: str = ALICE_KEY, *, max_retries: int = 0) -> Anthropic:
    """The SDK's client; close it. It tries nothing again unless asked to, so that each error comes through at once."""
    return Anthropic(
        base_url=gateway.base_url,
        api_key=key,
        max_retries=max_retries,
        timeout=WAIT_SECONDS,
        http_client=DefaultHttpxClient(verify=NO_TLS),
    )


def said(text: str) -> list[MessageParam]:
    """A conversation of one user turn."""
    return [{"role": "user", "content": text}]


def is_valid(event: Any) -> bool:
    """Is this event one of those that the SDK has types for, and right in all its fields?"""
    _EVENT.validate_python(event.to_dict(mode="json"), strict=True)
    return True


def able(answer: Completion | Iterable[Step]) -> ScriptedProvider:
    """A provider whose model, `able-model`, does everything by itself."""
    abilities: tuple[Ability, ...] = ("messages", "options", "tools", "json_schema", "images")
    return ScriptedProvider("able", answer, limit=PromptLimit(100_000, "tokens"), abilities=abilities)


def in_parts(answer: Completion) -> list[Delta]:
    """An answer letter by letter."""
    deltas = [Delta(reasoning=letter) for letter in answer.reasoning] + [Delta(letter) for letter in answer.text]
    for index, call in enumerate(answer.tool_calls):
        deltas.append(Delta(tool_call=ToolCallDelta(index, call.id, call.name)))
        deltas += [Delta(tool_call=ToolCallDelta(index, arguments=letter)) for letter in call.arguments]
    return [*deltas, Delta(finish_reason=answer.finish_reason, usage=answer.usage, stop=answer.stop)]


@contextmanager
def gateway_with(provider: BaseProvider, site: LiveSimulator, log: TextIO, **settings: object) -> Iterator[LiveGateway]:
    """A gateway that has this provider besides the site."""
    values: dict[str, object] = {
        "_env_file": None,
        "api_master_key": ALICE_KEY,
        "chat_page_url": site.page_url,
        "typing_delay_seconds": 0,
        **settings,
    }
    app = create_app(load_settings(**values), [provider])
    logs.configure("DEBUG", "json", log)
    with serving(app) as gateway:
        yield gateway
