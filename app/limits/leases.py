"""Gets for this worker what it may use, from the store that all workers share."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

import structlog

from app.domain.granting import LAPSE_SECONDS, Claim, Exchanged, Quota
from app.domain.limits import Limit
from app.limits.allowance import Allowance
from app.limits.store import LimitStore, StoreAway

_log = structlog.get_logger("kimi.limits")

_HEARTBEAT_SECONDS = 1.0
# While nothing is limited.
_IDLE_HEARTBEAT_SECONDS = 5.0
# So that a burst of calls is one message, and what nobody waits for goes with others.
_SHORTEST_PAUSE, _UNHURRIED_PAUSE = 0.005, 0.03
_AWAY_PAUSE = 0.5
# Earlier than the store gives what this worker holds to others.
_VALID_SECONDS = LAPSE_SECONDS * 0.75
_MOST_CLAIMS = 500
_FORGETTING_SECONDS = 60.0
# What the store's time of day may differ from this machine's without being taken for another one: that much is the
# way of the answer.
_LARGEST_DELAY = 2.5


class Leases:
    """All allowances of this worker, and the task that talks to the store.

    It begins with the first allowance; or before, where the store is to know which workers there are.

    Args:
        store: Divides limits among workers.
        workers: How many there are, as long as the store hasn't said.
        written: How far the ledger is: the last line of this worker's journal that it has.

    Attributes:
        valid_until: Until then, in the loop's time, what is held is this worker's.
        workers: How many the store has last seen.
        is_away: Whether the store didn't answer the last message.
        version: Another one each time that allowances were forgotten, or the time of day was set anew; whoever keeps
            some has to ask for them again.
        clock_offset: What has to be added to this machine's time of day, in seconds, for the store's.
    """

    def __init__(self, store: LimitStore, *, workers: int = 1, written: Callable[[], int] = lambda: 1 << 62) -> None:
        self._store = store
        self._written = written
        self._allowances: dict[str, Allowance] = {}
        # Those that somebody still keeps, too: of a limit there must never be two.
        self._kept: WeakValueDictionary[str, Allowance] = WeakValueDictionary()
        self._due: dict[str, Allowance] = {}
        self._wake = asyncio.Event()
        self._unhurried: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._looked = self._forgot = 0.0
        self._away_since = 0.0
        self._asking: list[Allowance] = []
        self._wanted: frozenset[str] = frozenset()
        self._day_began = 0.0
        self.valid_until = 0.0
        self.version = 0
        self.workers = workers
        self.is_away = False
        self.clock_offset = 0.0

    def start(self) -> None:
        """Tell the store that this worker lives, from now on."""
        self._send()

    async def aclose(self) -> None:
        """Give everything back."""
        if self._unhurried is not None:
            self._unhurried.cancel()
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        now = asyncio.get_running_loop().time()
        self.expire(now)
        was_away, self.is_away = self.is_away, True
        claims = [self._claim(allowance, now, parting=True) for allowance in self._allowances.values()]
        # Whoever still waits gets no answer any more.
        for allowance in self._allowances.values():
            allowance.failed()
        if was_away:
            return
        with suppress(StoreAway):
            for begin in range(0, len(claims), _MOST_CLAIMS):
                await self._store.exchange(claims[begin : begin + _MOST_CLAIMS])

    def allowance(self, limit_id: str, limit: Limit, quota: Quota | None = None, ends_at: float = 0.0) -> Allowance:
        """This worker's allowance of a limit."""
        known = self._kept.get(limit_id)
        if known is None:
            now = asyncio.get_running_loop().time()
            known = self._kept[limit_id] = Allowance(limit_id, limit, quota, ends_at, now=now)
        elif known.limit.amount != limit.amount:
            known.change(limit)
            self.note(known)
        self._allowances[limit_id] = known
        return known

    def known(self, limit_id: str) -> Allowance | None:
        """This worker's allowance of a limit, if it has used any of it lately."""
        allowance = self._allowances.get(limit_id)
        if allowance is not None:
            allowance.written(self._written())
        return allowance

    def note(self, allowance: Allowance) -> None:
        """Mention an allowance in a message soon."""
        self._due[allowance.limit_id] = self._allowances[allowance.limit_id] = allowance
        if self._unhurried is None:
            self._unhurried = asyncio.get_running_loop().call_later(_UNHURRIED_PAUSE, self._send)

    def ask(self, allowance: Allowance, amount: int, least: int | None = None) -> asyncio.Future[None]:
        """Ask for so much, or at least for so much. The result says that there is an answer, or none to be had."""
        allowance.need(amount, asyncio.get_running_loop().time(), least)
        answered = allowance.answered()
        self._due[allowance.limit_id] = self._allowances[allowance.limit_id] = allowance
        self._send()
        return answered

    def expire(self, now: float) -> None:
        """Let go of what was held for too long without a word from the store: it may be others' now."""
        if self.valid_until and now >= self.valid_until:
            self._void(is_back=False)

    def stand_alone(self, allowance: Allowance, now: float) -> None:
        """While the store is away: free this worker's fair share of the limit."""
        self._allowances[allowance.limit_id] = allowance
        allowance.stand_alone(now, self._away_since, self.workers)

    def _send(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_SECONDS if self._allowances else _IDLE_HEARTBEAT_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            sent = loop.time()
            try:
                await self._talk(sent)
            except StoreAway as error:
                self._go_away(str(error), sent)
            except Exception:  # noqa: BLE001 - calls wait for this task; without it they would for ever
                if not self.is_away:
                    _log.exception("limits_failed")
                self._go_away("an error of the gateway", sent)
            await asyncio.sleep(_AWAY_PAUSE if self.is_away else _SHORTEST_PAUSE)

    async def _talk(self, sent: float) -> None:
        """Send one message, and take in the answer.

        Raises:
            StoreAway: There was none.
        """
        if self._unhurried is not None:
            self._unhurried.cancel()
            self._unhurried = None
        self.expire(sent)
        if sent - self._looked >= _HEARTBEAT_SECONDS:
            self._look_around(sent)
        # Away, one only looks whether the store is back: nobody knows then what it believes.
        asking = [] if self.is_away else [self._due.pop(limit_id) for limit_id in [*self._due][:_MOST_CLAIMS]]
        self._asking = asking
        claims = [self._claim(allowance, sent) for allowance in asking]
        self._take_in(await self._store.exchange(claims), claims, sent)
        if self._due:
            self._wake.set()

    def _claim(self, allowance: Allowance, now: float, *, parting: bool = False) -> Claim:
        allowance.written(self._written())
        return allowance.claim(now, self.workers, parting=parting)

    def _take_in(self, exchanged: Exchanged, claims: list[Claim], sent: float) -> None:
        self.workers = max(exchanged.workers, 1)
        self._look_at_clock(exchanged.epoch / 1000)
        if exchanged.is_new or self.is_away:
            # It has given to others what was held, or what was free was only a share.
            self._void(is_back=True)
        if self.is_away:
            _log.info("limits_store_back")
            self.is_away = False
        self.valid_until = sent + _VALID_SECONDS
        # Not when it was sent: what has refilled since the store looked must not be told too early.
        now = asyncio.get_running_loop().time()
        for asking, claim in zip(self._asking, claims, strict=True):
            asking.granted(exchanged.grants[claim.limit_id], claim.need, now)
        # Of those that weren't asked about: somebody else has to go without.
        for limit_id in self._wanted | exchanged.wanted:
            allowance = self._allowances.get(limit_id)
            if allowance is not None and limit_id not in exchanged.grants:
                allowance.wanted = limit_id in exchanged.wanted
                if allowance.is_due(sent):
                    self._due[limit_id] = allowance
        self._wanted = exchanged.wanted

    def _look_at_clock(self, epoch: float) -> None:
        """Note the time of day; if it was set anew, another day may be today."""
        offset = epoch - time.time()
        self.clock_offset = offset if abs(offset) > _LARGEST_DELAY else 0.0
        # Another one after a sleep of the machine, too.
        day_began = time.time() + self.clock_offset - asyncio.get_running_loop().time()
        if abs(day_began - self._day_began) > _LARGEST_DELAY:
            self._day_began = day_began
            self.version += 1

    def _look_around(self, now: float) -> None:
        """Find what the store should be told of, and forget what nobody uses."""
        self._looked = now
        line = self._written()
        is_time_to_forget = now >= self._forgot + _FORGETTING_SECONDS
        if is_time_to_forget:
            self._forgot = now
        for limit_id, allowance in [*self._allowances.items()]:
            allowance.written(line)
            allowance.look(now)
            if allowance.is_due(now):
                self._due[limit_id] = allowance
            elif is_time_to_forget and allowance.is_forgettable(now):
                del self._allowances[limit_id]
                self.version += 1

    def _void(self, *, is_back: bool) -> None:
        for limit_id, allowance in self._allowances.items():
            if allowance.void(is_back=is_back):
                self._due[limit_id] = allowance
        self.valid_until = 0.0

    def _go_away(self, reason: str, now: float) -> None:
        if not self.is_away:
            _log.warning("limits_store_away", reason=reason, meaning="each worker keeps to its share")
            self.is_away, self._away_since = True, now
        # What was due without being asked for is found again when the store is back.
        for allowance in (*self._asking, *self._due.values()):
            allowance.failed()
        self._asking = []
        self._due.clear()
