"""What vendors call the end of an answer and its tokens, in the words that the gateway has for them. Pure."""

import re
from collections.abc import Mapping

from app.domain.chat import FinishReason, Usage

Json = Mapping[str, object]

# By their letters alone: MAX_TOKENS, maxTokens and max-tokens are one word.
_FINISH_REASONS: Mapping[FinishReason, str] = {
    "stop": "stop stopped stopsequence stoptoken endturn end eos eostoken endoftext complete completed finish finished "
    "done success normal pauseturn unspecified other",
    "length": "length maxlength lengthlimit maxtokens maxoutputtokens maxnewtokens maxcompletiontokens "
    "maxgeneratedtokens modellength tokenlimit limit truncated contextlength contextlengthexceeded contextwindow "
    "modelcontextwindowexceeded contextwindowexceeded",
    "tool_calls": "toolcalls toolcall tooluse functioncall functioncalls tool tools function",
    "content_filter": "contentfilter contentfiltered filter filtered sensitive safety recitation blocklist blocked "
    "prohibitedcontent spii imagesafety language refusal refused moderation guardrail guardrails "
    "guardrailintervened policy policyviolation risk errortoxic inappropriate",
}
_BY_LETTERS: Mapping[str, FinishReason] = {
    word: reason for reason, words in _FINISH_REASONS.items() for word in words.split()
}
# Gemini's, as the numbers of its protocol.
_BY_NUMBER: Mapping[int, str] = {1: "stop", 2: "maxtokens", 3: "safety", 4: "recitation", 5: "other"}
# The upstream gave up: what came before is not a complete answer.
_BROKEN_OFF = frozenset(
    {"error", "errorlimit", "servererror", "internalerror", "insufficientsystemresource", "networkerror", "timeout"}
    | {"abort", "aborted", "cancel", "cancelled", "canceled"}
    | {"malformedfunctioncall", "unexpectedtoolcall", "malformedresponse"}
)
_NO_LETTER = re.compile(r"[^a-z]+")

_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count", "input_token_count", "prompt_eval_count")
_WRITTEN = (
    *("completion_tokens", "output_tokens", "generated_tokens", "candidates_token_count", "output_token_count"),
    *("completion_token_count", "eval_count"),
)
_TOTAL = ("total_tokens", "total_token_count")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cached_content_token_count", "cache_read_input_tokens")
_THOUGHT = ("reasoning_tokens", "thoughts_token_count", "thinking_tokens")
# Anthropic's `input_tokens` are without these.
_BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details")
_UPPER = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Larger numbers are not believed: no conversation is that long.
_MOST_TOKENS = 10**9


class BrokenOff(Exception):
    """The upstream says that it gave up."""


def finish_reason_of(word: object) -> FinishReason | None:
    """Why an answer ended; None if nothing is said about it.

    Raises:
        BrokenOff: The upstream gave up.
        LookupError: Nobody knows this word.
    """
    if isinstance(word, int) and not isinstance(word, bool):
        word = _BY_NUMBER.get(word, f"number {word}")
    if not isinstance(word, str):
        return None
    letters = _NO_LETTER.sub("", word.lower()).removeprefix("finishreason")
    if letters in ("", "null", "none"):
        return None
    if letters in _BROKEN_OFF:
        raise BrokenOff
    return _BY_LETTERS[letters]


def usage_of(value: object) -> Usage | None:
    """Tokens, under any of their names, as numbers of any type; None if nothing has been counted."""
    if not isinstance(value, dict):
        return None
    counts = _counts(value)
    prompt, written = _first(counts, _PROMPT), _first(counts, _WRITTEN)
    if prompt is None:
        return None
    if "prompt_tokens" not in counts and "input_tokens" in counts:
        prompt += sum([counts.get(name, 0) for name in _BESIDE_INPUT])
    if written is None:
        written = max(0, (_first(counts, _TOTAL) or 0) - prompt)
    if not prompt and not written:
        return None
    cached, thought = _first(counts, _CACHED) or 0, _first(counts, _THOUGHT) or 0
    if thought and _first(counts, _TOTAL) == prompt + written + thought:
        written += thought  # xAI and Gemini count what was thought beside what was written
    put_in_cache = min(counts.get("cache_creation_input_tokens", 0), prompt - min(cached, prompt))
    # All are parts: more than the whole is nonsense.
    return Usage(prompt, written, min(cached, prompt), min(thought, written), cache_written_tokens=put_in_cache)


def _counts(value: Mapping[object, object]) -> dict[str, int]:
    """All counts by their names in snake case, those in the details too; the latter come second."""
    counts: dict[str, int] = {}
    named = {_UPPER.sub("_", str(name)).lower(): entry for name, entry in value.items()}
    details = [entry for name in _DETAILS if isinstance(entry := named.get(name), dict)]
    for group in (*details, named):
        for name, entry in group.items():
            count = _count(entry)
            if count is not None and not counts.get(str(name)):
                counts[str(name)] = count
    return counts


def _first(counts: Mapping[str, int], names: tuple[str, ...]) -> int | None:
    """The first that is more than nothing, else the first."""
    found = [counts[name] for name in names if name in counts]
    return next((count for count in found if count), found[0] if found else None)


def _count(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return round(number) if 0 <= number <= _MOST_TOKENS else None
