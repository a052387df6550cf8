"""Time that passes when a test says so."""


class Clock:
    """A clock to be handed in where `time.monotonic` would be; tests move `now`, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
