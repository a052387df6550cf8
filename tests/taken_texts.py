"""Takes the texts of calls, for tests."""

from collections.abc import Container

from app.domain.texts import CallTexts


class TakenTexts:
    """Takes the texts of some callers. See `TextTaker`.

    Args:
        callers: Whose.

    Attributes:
        taken: All of them.
    """

    def __init__(self, callers: Container[str] = ("alice",)) -> None:
        self.callers = callers
        self.taken: list[CallTexts] = []

    def take_texts(self, texts: CallTexts) -> None:
        """Keep them."""
        self.taken.append(texts)

    @property
    def sent(self) -> list[tuple[str, str]]:
        """The prompts that were sent, each with its answer."""
        return [(one.prompt.text, one.answer.text) for one in self.taken if one.prompt is not None]
