"""The signatures of Gemini's thoughts, in the form in which chat completions carry them. Pure.

The form is that of Google's own OpenAI-compatible API: `extra_content.google.thought_signature`, of a call or of a
message. A client that sends these back as they came lets the model go on with its thought.
"""

from collections.abc import Mapping

from app.domain.chat import Extras

_PLACES = ("thought_signature", "thoughtSignature")


def signed(signature: object) -> Extras | None:
    """What is added to a call or a text that is signed."""
    if not isinstance(signature, str) or not signature:
        return None
    return {"extra_content": {"google": {"thought_signature": signature}}}


def signature_in(extras: Extras | None) -> str | None:
    """The signature that a client sends back."""
    if extras is None:
        return None
    content = extras.get("extra_content")
    google = content.get("google") if isinstance(content, Mapping) else None
    given = google.get("thought_signature") if isinstance(google, Mapping) else None
    found = [given, *(extras.get(name) for name in _PLACES)]
    return next((signature for signature in found if isinstance(signature, str) and signature), None)
