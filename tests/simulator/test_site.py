from simulator.behaviour import Behaviour
from simulator.site import ACTION, KEPT_MESSAGES, MODELS, Post, Site


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def visit(site: Site, *, cacheable: bool = True) -> str:
    return site.visit(cookies={}, user_agent="ua", cacheable=cacheable).nonce


def post(nonce: str, message: str = "hello") -> Post:
    return Post(action=ACTION, nonce=nonce, message=message, model=MODELS[0])


def test_a_nonce_lives_for_its_lifetime() -> None:
    """Up to its lifetime a nonce is handed out and accepted, then refused and replaced."""
    clock = Clock()
    site = Site(Behaviour(nonce_lifetime_s=60), clock=clock)
    old = visit(site)
    clock.now = 59
    assert visit(site) == old
    assert site.receive(post(old)).verdict == "accepted"
    clock.now = 60
    assert site.receive(post(old)).verdict == "nonce_refused"
    new = visit(site)
    assert new != old
    assert site.issued_nonces == {old, new}


def test_a_message_counts_once_whatever_comes_of_it() -> None:
    """The counters tell accepted, refused, failed and abandoned messages apart."""
    site = Site()
    nonce = visit(site)
    site.finish(site.receive(post(nonce)))
    site.abandon(site.receive(post(nonce)))
    site.finish(site.receive(post("0000000000")))
    site.update(failure="html")
    failed = site.receive(post(nonce))
    counters = site.counters
    assert (counters.messages, counters.accepted, counters.abandoned, counters.refused_nonce) == (4, 1, 1, 1)
    assert (counters.failures, counters.in_flight, counters.max_in_flight) == (1, 1, 1)
    site.finish(failed)
    assert [message.outcome for message in site.messages] == ["accepted", "abandoned", "nonce_refused", "html"]


def test_a_message_in_flight_over_a_reset_is_forgotten() -> None:
    """An answer that ends after a reset does not disturb the new counters."""
    site = Site(Behaviour(latency_s=1))
    nonce = visit(site)
    receipt = site.receive(post(nonce))
    site.reset()
    site.finish(receipt)
    assert site.counters == Site().counters
    assert site.behaviour == Behaviour()
    assert site.receive(post(nonce)).verdict == "accepted"


def test_the_log_is_bounded() -> None:
    """Only the last messages are kept."""
    site = Site()
    for number in range(KEPT_MESSAGES + 5):
        site.finish(site.receive(post("", str(number))))
    assert len(site.messages) == KEPT_MESSAGES
    assert site.messages[0].message == "5"
