"""Responses that are kept: how much of a conversation, and what comes of bytes that can't be read."""

import zlib
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.api.responses.kept import KeptResponses
from app.domain.documents import pack
from app.domain.errors import InvalidRequest, ResponseNotFound
from app.sessions.base import SnapshotKey
from app.sessions.memory import MemorySnapshotStore

RESPONSE_ID = "resp_" + "b" * 32
OUTPUT = {"id": f"msg_{'b' * 32}o0", "type": "message", "role": "assistant", "content": [], "status": "completed"}


def _message(number: int, role: str = "user", text: str = "") -> dict[str, Any]:
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return {"id": f"msg_{number}", "type": "message", "role": role, "content": [part], "status": "completed"}


def _response() -> dict[str, Any]:
    return {"id": RESPONSE_ID, "output": [OUTPUT]}


@pytest.fixture
def store() -> MemorySnapshotStore:
    """Room for some responses."""
    return MemorySnapshotStore(max_snapshots=100, time_to_live=60)


@pytest.mark.parametrize("text", ["short", "\ud83d\ude00 \ud83d lone", "long 月 " * 10_000])
async def test_what_was_kept_is_read_as_it_was(store: MemorySnapshotStore, text: str) -> None:
    """Whatever its size, and whatever characters are in it."""
    kept = KeptResponses(store, max_characters=1_000_000)
    items = [_message(0, text=text)]
    assert await kept.keep("alice", _response(), items)
    found = await kept.load("alice", RESPONSE_ID)
    assert (found.response, found.items) == (_response(), items)


async def test_a_long_conversation_is_kept_from_a_turn_of_the_user_on(store: MemorySnapshotStore) -> None:
    """The oldest turns go first, each whole, so that no result is left without its call; instructions stay."""
    kept = KeptResponses(store, max_characters=1200)
    items = [
        _message(0, "developer", "Rules."),
        _message(1, text="x" * 500),
        _message(2, "assistant", "y" * 500),
        _message(3, text="z" * 500),
        _message(4, "assistant", "a" * 100),
    ]
    await kept.keep("alice", _response(), items)
    assert [item["id"] for item in (await kept.load("alice", RESPONSE_ID)).items] == ["msg_0", "msg_3", "msg_4"]


async def test_the_last_turn_is_kept_however_long_it_is(store: MemorySnapshotStore) -> None:
    """Without it there would be nothing to go on from."""
    kept = KeptResponses(store, max_characters=10)
    await kept.keep("alice", _response(), [_message(0, text="x"), _message(1, text="y" * 50)])
    assert [item["id"] for item in (await kept.load("alice", RESPONSE_ID)).items] == ["msg_1"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02of another version",
        b"\x01not compressed",
        pack(None),
        pack({}),
        pack([1, 2]),
        pack([{}, []]),
        pack([{"output": 5}, []]),
        pack([{"output": [5]}, []]),
        pack([{"output": []}, [{}]]),
        pack([{"output": []}, [{"id": 5}]]),
        pack([{"output": [{"id": None}]}, []]),
        pack([{"output": []}, [], 5][::-1]),
        b"\x01j" + b"[" * 100_000,
        b"\x01z" + zlib.compress(b" " * 200 * 1024 * 1024),
    ],
)
async def test_what_cant_be_read_is_as_good_as_missing(store: MemorySnapshotStore, data: bytes) -> None:
    """After an update was taken back, a response of the newer version is not found instead of misread."""
    kept = KeptResponses(store, max_characters=1000)
    await store.save(SnapshotKey("alice", RESPONSE_ID), data)
    with pytest.raises(ResponseNotFound):
        await kept.load("alice", RESPONSE_ID)
    with pytest.raises(InvalidRequest) as refusal:
        await kept.conversation("alice", RESPONSE_ID, [])
    assert refusal.value.code == "previous_response_not_found"


async def test_items_of_an_unknown_form_are_as_good_as_missing(store: MemorySnapshotStore) -> None:
    """A response can be shown that can't be continued; the log says so once."""
    kept = KeptResponses(store, max_characters=1000)
    await store.save(SnapshotKey("alice", RESPONSE_ID), pack([_response(), [{"id": "msg_0", "type": "message"}]]))
    assert (await kept.load("alice", RESPONSE_ID)).response == _response()
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(InvalidRequest) as refusal:
                await kept.conversation("alice", RESPONSE_ID, [])
            assert refusal.value.code == "previous_response_not_found"
    assert [line["event"] for line in lines] == ["response.unreadable"]
