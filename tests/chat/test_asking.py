"""Whom a call asks, and for how long."""

import asyncio

import pytest
from app.chat.asking import Asking

from app.domain.chat import ChatCall, Message
from app.providers.registry import Target
from tests.loops import in_leaping_time
from tests.scripted import ScriptedProvider


@pytest.mark.parametrize(("others", "share"), [(0, 100.0), (1, 50.0)], ids=["alone", "with another behind it"])
def test_who_is_asked_twice_has_the_time_of_once(others: int, share: float) -> None:
    """Asking a target once more, for a reply of the right form, takes nothing from those behind it."""

    async def work() -> None:
        providers = [ScriptedProvider(name) for name in "ab"[: 1 + others]]
        for provider in providers:
            provider.timeout = 100.0
        messages = (Message("user", "Hello"),)
        targets = tuple(Target(provider, provider.models[0]) for provider in providers)
        asking = Asking(ChatCall("r", messages), "alice", targets)
        began = asyncio.get_running_loop().time()
        candidate = next(asking.candidates(messages, None))
        first = asking.request(candidate)
        await asyncio.sleep(20)
        again = asking.request(candidate)
        assert first.deadline == again.deadline == began + share

    in_leaping_time(work())
