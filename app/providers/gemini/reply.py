"""What Gemini counts. Pure."""

from app.domain.chat import Usage

# Larger numbers are not believed: no conversation is that long.
_MOST_TOKENS = 10**9


def usage_in(metadata: object) -> Usage | None:
    """Tokens; None if nothing has been counted. What was thought, and what tools have read, is counted apart there."""
    if not isinstance(metadata, dict):
        return None

    def count(name: str) -> int:
        value = metadata.get(name)
        return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else 0

    prompt = count("promptTokenCount") + count("toolUsePromptTokenCount")
    thought = count("thoughtsTokenCount")
    written = count("candidatesTokenCount") + thought
    if not prompt and not written:
        return None
    return Usage(prompt, written, min(count("cachedContentTokenCount"), prompt), thought)
