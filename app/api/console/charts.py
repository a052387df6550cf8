"""Charts as SVG, without styles or scripts of their own: what they show is in a table beside them, too."""

from collections.abc import Sequence

from msgspec import Struct


class Bar(Struct, frozen=True):
    """A bar of a chart: parts on top of each other.

    Args:
        label: What it stands for.
        parts: The heights of the parts, in the chart's unit.
    """

    label: str
    parts: tuple[float, ...]


class Rectangle(Struct, frozen=True):
    """A part of a bar, in the chart's own coordinates: 0 to 1000 to the right, 0 to 100 down."""

    x: float
    y: float
    width: float
    height: float
    part: int
    label: str
    value: float


def stacked(bars: Sequence[Bar]) -> list[Rectangle]:
    """The rectangles of a chart of stacked bars."""
    highest = max((sum(bar.parts) for bar in bars), default=0) or 1
    width = 1000 / max(len(bars), 1)
    rectangles = []
    for place, bar in enumerate(bars):
        bottom = 100.0
        for part, value in enumerate(bar.parts):
            height = 100 * value / highest
            bottom -= height
            if value:
                rectangles.append(
                    Rectangle(
                        x=round(place * width + width * 0.1, 2),
                        y=round(bottom, 2),
                        width=round(width * 0.8, 2),
                        height=round(height, 2),
                        part=part,
                        label=bar.label,
                        value=value,
                    )
                )
    return rectangles
