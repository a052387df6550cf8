"""The addresses of calls, for tests that make the same call in every dialect."""

from app.api.wire.addresses import GENERATE, GENERATE_STREAM


def address(path: str, model: str = "kimi", *, stream: bool = False) -> str:
    """Where a call goes: Gemini's address says for which model it is, and whether it is to be streamed."""
    if path != GENERATE:
        return path
    return (f"{GENERATE_STREAM}?alt=sse" if stream else path).replace("{model}", model)
