"""What a reply was read as, or why it can't be."""

from msgspec import Struct

from app.domain.chat import ToolCall


class Reading(Struct, frozen=True):
    """What a reply says: its words, and the calls it asks for, in their order."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class Unreadable(Exception):
    """A reply can't be used.

    Args:
        message: What to tell the client if that remains so.
        reminder: What to tell the model when it is asked once more.
        fallback: The answer to give if the second reply is no better; None if an error is more honest.
    """

    def __init__(self, message: str, *, reminder: str, fallback: Reading | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reminder = reminder
        self.fallback = fallback


class Fault(Exception):
    """Why a call or a JSON text can't be read, in a phrase that the model understands."""
