"""Limits that hold without being set for a key, and how limits are applied."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

from app.domain.granting import Scope
from app.domain.limits import Limit, read_limits
from app.settings.group import Accepts, Seconds, SettingsGroup, setting


def _limits(value: str) -> str:
    read_limits(value)
    return value


def _limits_of_upstreams(value: str) -> str:
    _read_upstreams(value)
    return value


def _read_upstreams(value: str) -> dict[str, tuple[Limit, ...]]:
    found: dict[str, tuple[Limit, ...]] = {}
    for part in filter(None, map(str.strip, value.replace("\n", ";").split(";"))):
        name, colon, text = part.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"{part[:60]!r} has to begin with the upstream's name, such as `kimi-web: 32 at once`")
        if name.strip() in found:
            raise ValueError(f"{name.strip()[:60]!r} is there twice; separate its limits by commas")
        found[name.strip()] = read_limits(text)
    return found


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value[:60]!r} is not a time zone; write for example Europe/Berlin or UTC") from None
    return value


LimitTexts = Annotated[str, AfterValidator(_limits), Accepts("limits, separated by commas")]


class LimitSettings(SettingsGroup):
    """Limits.

    How much may be used. `main.py limits` sets limits for keys, projects, upstreams and the gateway; docs/limits.md
    says how they are written and what they count.
    """

    default: LimitTexts = setting(
        "DEFAULT_LIMITS",
        "",
        "Limits of each key that has none of its own, such as `60 requests/minute, 5 at once`.",
    )
    gateway: LimitTexts = setting(
        "GATEWAY_LIMITS",
        "",
        "Limits of all keys together, as long as `main.py limits set gateway` hasn't set others.",
    )
    upstreams: Annotated[
        str, AfterValidator(_limits_of_upstreams), Accepts("`NAME: limits`, separated by semicolons")
    ] = setting(
        "UPSTREAM_LIMITS",
        "",
        "Limits of upstreams over all workers, such as `kimi-web: 32 at once; moonshot: 500 requests/minute`. A "
        "request that finds no room goes on to the next upstream of its route, or waits.",
    )
    wait: Seconds = setting(
        "LIMIT_WAIT",
        1,
        "How long a request waits at most for a limit to leave room, before it is refused.",
        ge=0,
        le=60,
    )
    time_zone: Annotated[str, AfterValidator(_zone), Accepts("a time zone such as `Europe/Berlin`")] = setting(
        "TIME_ZONE",
        "UTC",
        "Whose calendar limits by day, week and month follow, and at the end of whose "
        "day keys expire that are given a date.",
    )
    without_database: Literal["share", "refuse"] = setting(
        "LIMITS_WITHOUT_DATABASE",
        "share",
        "What holds while the database is away: `share`: each worker lets in its fair share of each limit; `refuse`: "
        "what is limited is refused.",
    )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def fixed(self) -> dict[Scope, tuple[Limit, ...]]:
        """The limits of everything but keys."""
        upstreams = _read_upstreams(self.upstreams).items()
        return {
            Scope("gateway"): read_limits(self.gateway),
            **{Scope("upstream", name): limits for name, limits in upstreams},
        }
