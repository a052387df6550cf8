"""Options that dialects have in common, with their bounds: what is wrong for one upstream is wrong for all. Pure."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _no_limit(value: Any) -> Any:
    """Minus one is what some clients send for no limit."""
    return None if value in (-1, "-1") else value


MaxTokens = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_no_limit)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
Choices = Annotated[int, Field(ge=1, le=128)]
LogitBias = dict[str, Annotated[float, Field(ge=-100, le=100)]]
