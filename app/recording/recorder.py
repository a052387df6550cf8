"""Records what is said in the calls of some keys.

Unlike what was used, which the ledger never loses, texts may be lost: they wait in memory, in a bounded queue, and a
database that stays away, or a worker that is killed, takes them along. How many were lost is counted.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from app.domain.chat import ChatCall
from app.domain.json import strict_json_bytes
from app.domain.prompt import ELLIPSIS, PromptLimit, head_of, tail_of
from app.domain.repeating import repeatable
from app.domain.texts import CallTexts, answer_in_words, messages_in_words, prompt_in_words
from app.domain.tokens import utf8_size
from app.storage.clock import now
from app.storage.database import Connection, Database, DatabaseAway
from app.storage.recordings import CHANGED, RecordedText, Recording, running_recordings, write_texts

_log = structlog.get_logger("kimi.recording")

# Of each text, in bytes.
MOST_OF_A_TEXT = 256 * 1024
_HALF = PromptLimit((MOST_OF_A_TEXT - len(ELLIPSIS.encode())) // 2, unit="bytes")
# What may wait for the database, in characters; and what is written at once.
_MOST_WAITING = 8 * 1024 * 1024
_BATCH = 1024 * 1024
_RETRY_SECONDS = 1.0
# As JSON has it: no database can look for it.
_NUL = "\\u0000"


class Recorder:
    """Takes the texts of calls whose keys are recorded, and carries them into the database.

    It is a `TextTaker`, and a `Follower` of which keys are recorded.

    Args:
        database: Where to.
        clock: The time in milliseconds since the epoch.

    Attributes:
        callers: Whose texts are recorded, and by which recordings, of which some may have ended.
        lost: Texts that could not be kept.
    """

    def __init__(self, database: Database, clock: Callable[[], int] = now) -> None:
        self._database = database
        self._clock = clock
        # With their sizes in characters, and the sum of these.
        self._waiting: deque[tuple[RecordedText, int]] = deque()
        self._characters = 0
        self._has_come = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self.callers: Mapping[str, Recording] = {}
        self.lost = 0

    def start(self) -> None:
        """Begin to write."""
        self._writing = asyncio.create_task(self._write())

    async def aclose(self, seconds: float) -> None:
        """Write what waits, for so long at most; the rest is lost."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._write_waiting()
        self.lost += len(self._waiting)
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """Texts that are still to be written."""
        return len(self._waiting)

    def until(self, caller_id: str) -> int | None:
        """Until when a caller is recorded, in milliseconds since the epoch; None if it isn't."""
        recording = self.callers.get(caller_id)
        return recording.until if recording is not None and recording.until > self._clock() else None

    def take_texts(self, texts: CallTexts) -> None:
        """See `TextTaker`."""
        caller_id = texts.record.caller_id
        if self.until(caller_id) is None:
            return
        text = _recorded(texts, self._clock(), self.callers[caller_id].started_at)
        characters = len(text.asked) + len(text.request) + len(text.sent or "") + len(text.answered)
        if self._characters + characters > _MOST_WAITING:
            self.lost += 1
            return
        self._waiting.append((text, characters))
        self._characters += characters
        self._has_come.set()

    def read(self, connection: Connection, changed: frozenset[str] | None) -> Mapping[str, Recording] | None:
        """See `Follower`."""
        if changed is not None and CHANGED not in changed:
            return None
        return {recording.key_id: recording for recording in running_recordings(connection)}

    def take(
        self,
        changed: frozenset[str] | None,  # noqa: ARG002 - a Follower's
        found: Mapping[str, Recording] | None,
    ) -> None:
        """See `Follower`."""
        if found is not None:
            self.callers = found

    def away(self, seconds: float) -> None:
        """See `Follower`: recordings end when they were to end."""

    async def _write(self) -> None:
        while True:
            await self._has_come.wait()
            self._has_come.clear()
            await self._write_waiting()

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                left_out = await self._database.run(partial(write_texts, self._database, texts=batch))
            except DatabaseAway:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - what no database takes must not keep out all that comes later
                # Without the error's own words, which may be those of the call.
                _log.error("recording_failed", count=len(batch), error=type(error).__name__)
                left_out = len(batch)
            self.lost += left_out
            for _ in batch:
                self._characters -= self._waiting.popleft()[1]

    def _next_batch(self) -> list[RecordedText]:
        batch, characters = [], 0
        for text, size in self._waiting:
            batch.append(text)
            characters += size
            if characters >= _BATCH:
                break
        return batch


def _recorded(texts: CallTexts, ended_at: int, recording: int) -> RecordedText:
    record = texts.record
    told = {
        "asked": messages_in_words(texts.asked),
        "sent": "" if texts.prompt is None else prompt_in_words(texts.prompt),
        "answered": answer_in_words(texts.answer),
    }
    return RecordedText(
        id=random.getrandbits(63),
        # As the ledger has it.
        at=int((record.began or time.time() - record.seconds) * 1000),
        ended_at=ended_at,
        key_id=record.caller_id,
        request_id=record.origin.request_id,
        asked=_storable(told["asked"]),
        sent=None if texts.prompt is None else _storable(told["sent"]),
        answered=_storable(told["answered"]),
        cut=tuple([name for name, text in told.items() if _is_too_long(text)]),
        recording=recording,
        request=_request(texts.call),
    )


def _request(call: ChatCall | None) -> str:
    """A call so that it can be asked again; empty if it can't be kept so."""
    if call is None:
        return ""
    try:
        document = strict_json_bytes(repeatable(call))
        msgspec.json.decode(document)  # as it will be read
    except (ValueError, RecursionError):
        return ""
    text = document.decode()
    return "" if _is_too_long(text) or _NUL in text else text


def _is_too_long(text: str) -> bool:
    return len(text) > MOST_OF_A_TEXT or utf8_size(text) > MOST_OF_A_TEXT


def _storable(text: str) -> str:
    """A text as every database takes it: its head and its tail if it is too long, without NUL and lone surrogates."""
    if _is_too_long(text):
        text = head_of(text, _HALF.size, _HALF) + ELLIPSIS + tail_of(text, _HALF.size, _HALF)
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
