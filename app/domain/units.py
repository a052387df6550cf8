"""What is used besides tokens."""

from typing import Literal, get_args

# images: made. audio_seconds: listened to, begun ones counting as whole ones. characters: spoken. searches: a ranking,
# as its vendor counts.
Unit = Literal["images", "audio_seconds", "characters", "searches"]
# Journals and tables have their places here: new ones come last, and none goes.
UNITS: tuple[Unit, ...] = get_args(Unit)


def number_of(unit: Unit) -> int:
    """What stands for a unit in journals and tables."""
    return UNITS.index(unit) + 1


def unit_of(number: int | None) -> Unit | None:
    """The opposite of `number_of`; None for none, and for one of a newer gateway."""
    return None if number is None or not 0 < number <= len(UNITS) else UNITS[number - 1]
