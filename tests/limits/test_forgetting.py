"""What a worker forgets of limits that nobody uses any more."""

from zoneinfo import ZoneInfo

from app.domain.caller import Caller
from app.domain.chat import ChatCall
from app.domain.errors import LimitReached
from app.domain.granting import Scope
from app.domain.limits import read_limits
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.store import MemoryStore

ADA = Caller("k_ada", "ada", "lab")
CALL = ChatCall(model="kimi", messages=())


async def test_a_limit_that_is_forgotten_never_lives_twice() -> None:
    """A worker that looks around before a call has used all of its limits keeps them: for each there is one count."""
    book = LimitBook(read_limits("1000 requests/minute, 10 at once"), {Scope("gateway"): read_limits("12 at once")})
    leases = Leases(MemoryStore(ZoneInfo("UTC")))
    limiter = Limiter(book, leases, LimiterPolicy(wait=0))
    let_in = 0
    try:
        for turn in range(40):
            try:
                await limiter.admit(CALL, ADA, "kimi-web", f"model-{turn % 4}")
                let_in += 1
            except LimitReached:
                pass
    finally:
        await leases.aclose()
    assert let_in == 10
