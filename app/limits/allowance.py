"""What this worker may use of one limit: a lease from the store, counted in memory."""

import asyncio
import math
from collections import deque

from app.domain.granting import Claim, Grant, Quota
from app.domain.limits import Limit

# A lease is for so much steady use, at least for so many calls like the last one, and at most for this part of the
# limit, divided by the workers.
_LEASE_SECONDS = 2.0
_LEAST_CALLS = 2
_BUCKET_PART, _QUOTA_PART = 2, 4
# What nobody has used for so long is given back.
_IDLE_SECONDS = 10.0
# Longer than any call: what it has used beyond its reservation still has to be taken.
_FORGOTTEN_SECONDS = 1800.0
# After a refusal the store isn't asked again for so long at least, and at most.
_SHORTEST_DRY, _LONGEST_DRY = 0.1, 1.0
# What a call takes: a permit for as long as it runs; a request, which is used up as it is taken; or what its size says.
PERMIT, REQUEST, SIZED = 0, 1, 2


class Allowance:
    """A worker's part of one limit. Only the event loop's thread uses it.

    Args:
        limit_id: The limit's id in the store; of a quota together with its period.
        limit: The limit.
        quota: Of a quota: what the ledger is asked.
        ends_at: Of a quota: when its period ends, in seconds since the epoch.
        now: The loop's time: it may be used soon, and isn't to be forgotten.

    Attributes:
        free: What is held and not in use. Negative if calls have used more than was reserved for them.
        in_use: Permits of running calls; of a quota their reservations, and what is used and not in the ledger yet.
        is_given_back: Whether what a call takes is in use until its end; of a bucket it is gone.
        low: When less than this is free, the store is asked for more before anybody has to wait.
        unit: What a call takes of it.
        seconds_each: In which a bucket gets one more.
        taken: What was taken until now, all together.
        used: Of a quota: what the ledger knows of.
        waiting: How many calls wait for more.
        wanted: Whether another worker had to go without a short while ago.
        answer: Done when the store has answered; None if it isn't being asked.
        freed: Done when something has become free; None if nobody waits for that.
        dry_until: The store isn't asked before, in the loop's time, for as much as it lacked.
        lacked: So much it didn't have when it was asked last.
    """

    __slots__ = (
        "__weakref__",
        "_alone",
        "_answered_at",
        "_aside",
        "_asked_at",
        "_asked_least",
        "_debt",
        "_divided",
        "_is_asking",
        "_is_unsure",
        "_last_amount",
        "_later",
        "_least",
        "_left",
        "_lost",
        "_needs",
        "_pending",
        "_rate",
        "_reported",
        "_returned",
        "_share",
        "_share_left",
        "_taken_before",
        "_taken_seen",
        "_unwritten",
        "_used_at",
        "answer",
        "dry_until",
        "ends_at",
        "free",
        "freed",
        "in_use",
        "is_given_back",
        "kind",
        "lacked",
        "limit",
        "limit_id",
        "low",
        "quota",
        "seconds_each",
        "taken",
        "unit",
        "used",
        "waiting",
        "wanted",
    )

    def __init__(
        self, limit_id: str, limit: Limit, quota: Quota | None = None, ends_at: float = 0.0, *, now: float = 0.0
    ) -> None:
        self.limit_id = limit_id
        self.limit = limit
        self.kind = limit.kind
        self.is_given_back = limit.kind != "bucket"
        self.unit = _unit_of(limit)
        self.seconds_each = limit.seconds / limit.amount if limit.kind == "bucket" else 0.0
        self.quota = quota
        self.ends_at = ends_at
        self.free = 0
        self.in_use = 0
        self.low = 0.0
        self.used = 0
        self.waiting = 0
        self.answer: asyncio.Future[None] | None = None
        # Whether a message is on its way; and who has asked since then, and waits for the next one.
        self._is_asking = False
        self._later: asyncio.Future[None] | None = None
        self.freed: asyncio.Future[None] | None = None
        self.dry_until = 0.0
        self.lacked = 0
        self._left = float(limit.amount)
        self._answered_at = 0.0
        self.wanted = False
        self._needs = self._least = self._asked_least = 0
        self._debt = 0
        # What the store counts as held here, at least; and whether it may be something else, or more.
        self._reported = 0
        self._is_unsure = False
        # Of a bucket: what calls have given back beyond that; the store knows whether there is still room for it.
        self._returned = 0
        # What was free when the limit was lowered: nobody may use it any more, and the store has yet to hear of it.
        self._aside = 0
        # Of permits and quotas: so much of what is in use has been given to others, and doesn't come back.
        self._lost = 0
        # While the store is away: what was freed of this worker's share, the share, and among how many it is divided.
        self._alone = self._share = 0
        # Of a quota: what was left of the share when the store came back.
        self._share_left = 0
        self._divided = 1
        self._rate = 0.0
        self.taken = 0
        self._taken_before = self._taken_seen = 0
        self._last_amount = 1
        self._asked_at = 0.0
        self._used_at = now
        # Of a quota: what was used, and which line of the journal tells the ledger; and how much that is.
        self._pending: deque[tuple[int, int]] = deque()
        self._unwritten = 0

    @property
    def held(self) -> int:
        """What the store has to count as this worker's."""
        return max(self.free, 0) + self.in_use

    @property
    def used_by_now(self) -> int:
        """Of a quota: what was used, also what the ledger doesn't know of yet, as far as this worker knows."""
        # The ledger may know of it already: of that, nothing is told that would be more than the limit.
        return max(self.used, min(self.used + self._unwritten, self.limit.amount))

    def release(self) -> None:
        """Give a permit back."""
        self.in_use -= 1
        if self._lost:
            self._lost -= 1
            return
        self.free += 1
        if self.freed is not None:
            self._tell_freed(self.freed)

    def settle_bucket(self, reserved: int, used: int) -> None:
        """Tell what became of something that was taken of a bucket, if it wasn't used up as it was taken.

        Args:
            used: What was used in the end.
        """
        after = self.free + reserved - used
        if used < reserved:
            # More than the store counts as held here may have been refilled in the meantime.
            reported = self._reported - self._aside
            if after > reported:
                kept = max(reported, self.free)
                self._returned += after - kept
                after = kept
            self.dry_until = 0.0
        self.free = after
        if self.freed is not None:
            self._tell_freed(self.freed)

    def settle_quota(self, reserved: int, used: int, line: int) -> None:
        """Tell what became of something that was taken of a quota.

        Args:
            used: What was used in the end.
            line: The line of the journal that tells the ledger.
        """
        back = reserved - used
        self.in_use -= back
        if used:
            self._pending.append((line, used))
            self._unwritten += used
        if back <= 0:
            # What was used beyond its reservation comes out of what is free, as far as it goes.
            self.free = max(self.free + back, min(self.free, 0))
            return
        if self._lost:
            lost = min(back, self._lost)
            self._lost -= lost
            back -= lost
        self.free += back
        if self.freed is not None:
            self._tell_freed(self.freed)

    def written(self, line: int) -> None:
        """The ledger knows of all lines up to this one."""
        while self._pending and self._pending[0][0] <= line:
            _, used = self._pending.popleft()
            self._unwritten -= used
            self.in_use -= used

    def need(self, amount: int, now: float, least: int | None = None) -> None:
        """Somebody waits for so much, or at least for so much; the next claim says so."""
        least = amount if least is None else least
        self._least = min(self._least or least, least)
        self._needs += amount
        self._last_amount = amount
        self._used_at = now

    def answered(self) -> asyncio.Future[None]:
        """Done when the store has answered somebody who asks now: a message that is on its way knows nothing of it."""
        pending = self._later if self._is_asking else self.answer
        if pending is None:
            pending = asyncio.get_running_loop().create_future()
            if self._is_asking:
                self._later = pending
            else:
                self.answer = pending
        return pending

    def claim(self, now: float, workers: int, *, parting: bool = False) -> Claim:
        """What to ask of the store. What is too much is given back with it; all that is free when parting."""
        self.look(now)
        self._is_asking = True
        elapsed = max(now - self._asked_at, 0.05)
        rate = (self.taken - self._taken_before) / elapsed
        self._rate = rate if self._rate == 0 else (self._rate + rate) / 2
        self._taken_before, self._asked_at = self.taken, now
        reserve = 0 if parting or self._aside else self._reserve(now, workers)
        self.free += self._aside
        back = max(self.free - reserve, 0) if parting or self._aside or self.wanted or self._is_idle(now) else 0
        self._aside = 0
        self.free -= back
        if back:
            self.dry_until = 0.0  # now the store has it
        # Of what is given back, too: who has a part of what it needs would never get all of it else.
        need, self._needs = max(self._needs - max(self.free, 0), 0), 0
        self._asked_least, self._least = self._least, 0
        least = max(self._asked_least - max(self.free, 0), 0) if need else 0
        self._debt = min(self.free, 0)
        returned, self._returned = self._returned, 0
        self.low = reserve / 2
        self._reported = self.held
        return Claim(
            limit_id=self.limit_id,
            kind=self.kind,
            amount=self.limit.amount,
            held=self._reported,
            need=need,
            want=need + max(reserve - max(self.free, 0), 0),
            least=least,
            back=back + self._debt if self.kind == "bucket" else 0,
            returned=returned,
            seconds=self.limit.seconds if self.kind == "bucket" else 0,
            quota=self.quota,
        )

    def change(self, limit: Limit) -> None:
        """The limit has another amount now."""
        if limit.amount < self.limit.amount:
            # What this worker holds of more than there is now goes back with the next message. Until then nobody may
            # have it: it may be many times what the limit is now.
            self.wanted = True
            self._aside, self.free = self._aside + max(self.free, 0), min(self.free, 0)
            self._left -= self.limit.amount - limit.amount
        self.limit = limit
        self.dry_until = 0.0
        self.seconds_each = limit.seconds / limit.amount if limit.kind == "bucket" else 0.0

    def granted(self, grant: Grant, need: int, now: float) -> None:
        """Take in the store's answer to a claim with this need."""
        self.free += grant.granted
        if self.kind == "bucket":
            self.free -= self._debt
        else:
            # More is held than there is: what is free goes first, then what running calls will have left.
            excess = math.ceil(max(-grant.left, 0))
            given_up = min(excess, max(self.free, 0))
            self.free -= given_up
            self._lost = min(excess - given_up, self.in_use)
        self._reported += grant.granted
        self._is_unsure = False
        self._share_left = 0
        self._divided = 1
        self._left, self._answered_at, self.wanted, self.used = grant.left, now, grant.wanted, grant.used
        if grant.granted < need:
            is_spent = self.kind == "quota" and grant.used >= self.limit.amount
            self.lacked = self._asked_least
            wait = _LONGEST_DRY if is_spent else self.ready_in(self.lacked, now) or 0.0
            self.dry_until = now + min(max(wait, _SHORTEST_DRY), _LONGEST_DRY)
        elif grant.left >= self.lacked:
            self.dry_until = 0.0
        self._answer()

    def failed(self) -> None:
        """The store hasn't answered; whether it has heard, nobody knows."""
        self._is_unsure = True
        self._answer()
        self._answer()  # nor will it be asked what the next message would have

    def look(self, now: float) -> None:
        """Note whether it was used since the last look."""
        if self.taken != self._taken_seen:
            self._taken_seen, self._used_at = self.taken, now

    def is_due(self, now: float) -> bool:
        """Whether the store has to be told of something, although nobody needs more."""
        if self.answer is not None:
            return False
        if self._is_unsure:
            return True
        is_idle, is_too_much = self._is_idle(now), self.free > 0 or self._reported > self.held
        if self.kind == "bucket":
            if self.wanted and self.free > 2 * self.low:
                return True
            return self.free < 0 or self._returned > 0 or (is_idle and self._reported > 0)
        if self.kind == "permits" and self._reported > self.held:
            return True
        return self._reported < self.held or (is_too_much and (is_idle or self.wanted))

    def is_forgettable(self, now: float) -> bool:
        """Whether nothing would be lost with it."""
        idle = now - self._used_at > _FORGOTTEN_SECONDS
        holds = self.free or self.in_use or self._returned or self._reported or self._is_unsure
        return idle and not (holds or self.waiting or self.answer)

    def void(self, *, is_back: bool) -> bool:
        """Forget what is held unused: the store gives it to others now. Whether the store should hear of it.

        Args:
            is_back: Whether the store is back, so that this worker's share, too, is at an end.
        """
        has_to_tell = self._reported > 0 or self.held > 0 or self._returned > 0 or self._is_unsure
        share_left = min(max(self.free, 0), self._alone)
        if is_back and self._alone:
            # If the store is away again before it has granted anything, the rest of the share is this worker's again.
            self._share_left = share_left
        self.free, self._aside = min(self.free, 0), 0
        if not is_back:
            self.free += share_left
        elif self.kind == "bucket":
            # The store has refilled all of the bucket in the meantime; what is missing of the share is used already.
            self.free -= max(min(self._alone, self._share) - share_left, 0)
        if is_back:
            self._alone, self._divided = 0, 1
        if self.is_given_back:
            self._lost = self.in_use
        self._is_unsure = has_to_tell
        self._reported = 0
        self.low = 0.0
        return has_to_tell or self.free < 0

    def stand_alone(self, now: float, since: float, workers: int) -> None:
        """Free a fair share of the limit, as if it were divided among the workers last seen.

        Args:
            since: Since when the store has been away.
        """
        share = self._share = max(self.limit.amount // workers, 1)
        if self.kind == "permits":
            self.free = max(self.free, share - self.in_use)
        elif self.kind == "bucket":
            if self._divided != workers:
                self._divided, self._answered_at = workers, max(since, self._answered_at)
            # What was left is this worker's, if there is no other that could have used it since.
            left, self._left = max(int(self._left), 0) if workers == 1 else 0, 0.0
            each = self.seconds_each * workers
            refilled = int((now - self._answered_at) / each)
            self._answered_at += refilled * each
            free = max(self.free, min(self.free + self._returned + left + refilled, share))
            self._alone += max(free - self.free - self._returned, 0)
            self.free, self._returned = free, 0
        elif self._left > 0 or self._share_left:
            freed = self._share_left or int(self._left // workers)
            self._alone += freed
            self.free += freed
            self._left, self._share_left = 0.0, 0

    def is_dry(self, amount: int, now: float) -> bool:
        """Whether the store is known not to have so much. It may have had too little for a larger call only."""
        return now < self.dry_until and (amount >= self.lacked or self.ready_in(amount, now) != 0.0)

    def ready_in(self, amount: int, now: float) -> float | None:
        """In how many seconds so much can be had of a bucket; None if nobody knows, which is so for all else."""
        missing = amount - self.free
        if missing <= 0:
            return 0.0
        if self.kind != "bucket":
            return None
        return max((missing - self._left) * self.seconds_each * self._divided - (now - self._answered_at), 0.0)

    def remaining(self, now: float) -> int:
        """What can still be used at the moment, as far as is known."""
        left = self._left
        if not self.is_given_back:
            left += (now - self._answered_at) / self.seconds_each / self._divided
        remaining = int(self.free + left) if left > 0 else self.free
        return min(remaining, self.limit.amount) if remaining > 0 else 0

    def _reserve(self, now: float, workers: int) -> int:
        """How much to hold beyond what is needed now."""
        if self.kind == "permits":
            # What was in use a moment ago will be again, if nobody else has to go without.
            return 0 if self.wanted or self._is_idle(now) else max(self.free, 0)
        if self._is_idle(now) or (self.wanted and self.unit == SIZED):
            return 0
        part = self.limit.amount / _BUCKET_PART if self.kind == "bucket" else self._left / _QUOTA_PART
        reserve = int(min(max(self._rate * _LEASE_SECONDS, self._last_amount * _LEAST_CALLS), part / workers))
        # What isn't enough for a single call would only be kept from others.
        return reserve if reserve >= self._last_amount else 0

    def _is_idle(self, now: float) -> bool:
        return now - self._used_at > _IDLE_SECONDS

    def _tell_freed(self, waiting: asyncio.Future[None]) -> None:
        _done(waiting)
        self.freed = None

    def _answer(self) -> None:
        if self.answer is not None:
            _done(self.answer)
        self.answer, self._later, self._is_asking = self._later, None, False


def _unit_of(limit: Limit) -> int:
    if limit.kind == "permits":
        return PERMIT
    return REQUEST if limit.kind == "bucket" and limit.measure == "requests" else SIZED


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
