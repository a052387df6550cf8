"""A budget for retries: in an outage they must not multiply the load."""


class RetryBudget:
    """Every request pays in a fraction of a retry; every retry takes out a whole one.

    So a passing trouble is retried as often as wanted, and a lasting one adds no more than that fraction to the load.

    Args:
        fraction: Retries for each request, in the long run.
        reserve: Retries that are there at the start, and the most that are ever saved up.
    """

    def __init__(self, *, fraction: float, reserve: float) -> None:
        self._fraction = fraction
        self._reserve = reserve
        self._saved = reserve

    def pay_in(self) -> None:
        """A request came."""
        self._saved = min(self._reserve, self._saved + self._fraction)

    def take_out(self) -> bool:
        """Is there enough for one more retry? If so, it is taken."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
