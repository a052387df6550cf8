"""Clients that send one and the same `user` with all of their chats, as most chat apps do."""

import asyncio
from typing import Any

import pytest

from app.chat.service import ChatService
from app.chat.session import SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, SessionRef, ToolCall
from app.domain.conversation import Action, SessionKey
from app.domain.errors import SessionBusy
from app.providers.registry import ProviderRegistry
from app.sessions.memory import MemorySessionStore
from tests.domain.messages import assistant, system, tool, user
from tests.scripted import ScriptedProvider

ALICE = Caller("alice")
KEY = SessionKey("alice", "u")
WHOLE = (user("Hi"), assistant("Hello."), user("And?"))
TITLE = (user("Write a title for this chat.\n\nUser: Hi\nAssistant: Hello."),)
OTHER_STEP = (system("You are step two."), user("Go on."))


class _Chats:
    """A chat service whose model answers when it is let, and whose requests don't wait long for each other."""

    def __init__(self) -> None:
        self.model = ScriptedProvider("model", abilities=["messages", "tools"])
        registry = ProviderRegistry("model-model", {})
        registry.register(self.model)
        self.sessions = MemorySessionStore(max_sessions=10, time_to_live=60, lock_wait=0.05)
        self.service = ChatService(registry=registry, sessions=self.sessions, policy=SessionPolicy())

    async def send(self, *messages: Any, source: Any = "user", **fields: Any) -> Action:
        """Send a request, and report what it meant for the session."""
        call = ChatCall("model-model", messages, session=SessionRef("u", source), **fields)
        return (await self.service.complete(call, ALICE)).opening.action

    async def until_asked(self, times: int) -> None:
        """Wait until so many requests have reached the model."""
        async with asyncio.timeout(10):
            while len(self.model.requests) < times:  # noqa: ASYNC110 - every turn of the loop lets them come further
                await asyncio.sleep(0)

    async def remembered(self) -> list[str]:
        """The texts of the session."""
        session = await self.sessions.load(KEY)
        return [message.text for message in session.messages] if session else []


async def test_whole_conversations_are_answered_at_once() -> None:
    """However many come at a time, all reach the model; so does a lone first message of such a client's next chat."""
    chats = _Chats()
    await chats.send(*WHOLE)
    chats.model.hold.clear()
    requests = [asyncio.create_task(chats.send(*WHOLE[:-1], user(text))) for text in ("One", "Two", "Three")]
    requests += [asyncio.create_task(chats.send(user(text))) for text in ("Four", "Five")]
    await chats.until_asked(6)
    chats.model.hold.set()
    actions = await asyncio.gather(*requests)
    assert actions == [*["replaced"] * 3, *["new"] * 2]


async def test_a_whole_conversation_is_remembered_while_a_turn_is_under_way() -> None:
    """It replaces what is remembered when it ends, and takes no lock for that; the turn is kept when it ends."""
    chats = _Chats()
    await chats.send(user("One"))
    chats.model.hold.clear()
    turn = asyncio.create_task(chats.send(user("Two")))
    await chats.model.asked.wait()
    whole = asyncio.create_task(chats.send(*WHOLE))
    await chats.until_asked(3)
    chats.model.hold.set()
    assert list(await asyncio.gather(turn, whole)) == ["continued", "replaced"]


async def test_by_header_conversations_stay_in_order() -> None:
    """`X-Session-Id` names one conversation: its requests wait for each other, whole ones, too."""
    chats = _Chats()
    chats.model.hold.clear()
    first = asyncio.create_task(chats.send(*WHOLE, source="header"))
    await chats.model.asked.wait()
    with pytest.raises(SessionBusy):
        await chats.send(*WHOLE, source="header")
    chats.model.hold.set()
    assert await first == "new"


@pytest.mark.parametrize("aside", [TITLE, OTHER_STEP], ids=["a title", "another step"])
async def test_what_is_no_turn_of_the_chat_leaves_it_alone(aside: tuple[Any, ...]) -> None:
    """It sees nothing of the chat, adds nothing to it, and the chat goes on."""
    chats = _Chats()
    assert await chats.send(user("The word is quince.")) == "new"
    before = await chats.remembered()
    assert await chats.send(*aside) == "stateless"
    assert chats.model.requests[-1].messages == aside
    assert chats.model.requests[-1].conversation_id is None
    assert await chats.remembered() == before
    assert await chats.send(user("Which word?")) == "continued"
    assert [message.text for message in chats.model.requests[-1].messages] == [*before, "Which word?"]


async def test_it_does_not_wait_for_the_chat_either() -> None:
    """A title is told while the chat's next turn is being answered."""
    chats = _Chats()
    chats.model.hold.clear()
    turn = asyncio.create_task(chats.send(user("One")))
    await chats.model.asked.wait()
    title = asyncio.create_task(chats.send(*TITLE))
    await chats.until_asked(2)
    chats.model.hold.set()
    assert list(await asyncio.gather(turn, title)) == ["new", "stateless"]


@pytest.mark.parametrize("source", ["user", "header"])
async def test_a_tools_result_alone_goes_up_with_its_call(source: str) -> None:
    """The model sees question, call and result, and all of it is remembered."""
    chats = _Chats()
    chats.model.answer = Completion("", "tool_calls", tool_calls=(ToolCall("c1", "look", "{}"),))
    await chats.send(user("How warm is it?"), source=source)
    chats.model.answer = Completion("Warm.")
    assert await chats.send(tool("31 degrees", "c1"), source=source) == "continued"
    assert [message.role for message in chats.model.requests[-1].messages] == ["user", "assistant", "tool"]
    assert await chats.remembered() == ["How warm is it?", "", "31 degrees", "Warm."]
