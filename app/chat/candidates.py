"""Which of a route's targets can take a conversation, and what would be sent to each. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.chat import ChatCall, Image, Message
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest
from app.domain.prompt import Prompt, compose
from app.domain.tokens import estimate
from app.providers.base import ModelSpec
from app.providers.registry import Target


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target, and what it would be sent."""

    target: Target
    prompt: Prompt
    messages: tuple[Message, ...]

    @property
    def takes_all(self) -> bool:
        """Does the conversation fit as it is?"""
        return not self.prompt.dropped and not self.prompt.shortened and self.prompt.size <= self.prompt.limit.size


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A target that is not asked, or not yet, and why."""

    target: Target
    error: GatewayError


def candidates(
    targets: Sequence[Target], call: ChatCall, messages: tuple[Message, ...]
) -> Iterator[Candidate | PassedOver]:
    """The targets in the order in which to ask them: first those that take the whole conversation, then the others.

    Those that can't take it at all are only passed over, and so is, for the time being, one that can't take all of it.
    """
    later: list[Candidate] = []
    for target in targets:
        try:
            candidate = _candidate(target, call, messages)
        except InvalidRequest as error:
            yield PassedOver(target, error)
            continue
        if candidate.takes_all or len(targets) == 1:
            yield candidate
        else:
            later.append(candidate)
            yield PassedOver(target, ContextTooLong("The conversation doesn't fit as a whole.", param="messages"))
    yield from later


def _candidate(target: Target, call: ChatCall, messages: tuple[Message, ...]) -> Candidate:
    spec = target.spec
    if "images" not in spec.abilities:
        _refuse_images(call.messages)
    if "messages" in spec.abilities:
        return Candidate(target, _measured(messages, spec), messages)
    return Candidate(target, compose(messages, spec.prompt_limit), messages)


def _refuse_images(messages: Sequence[Message]) -> None:
    image: Image | None = next((image for message in messages if message.parts for image in message.images), None)
    if image is not None:
        raise InvalidRequest("This model reads text only, no images.", param=image.place or "messages")


def _measured(messages: Sequence[Message], spec: ModelSpec) -> Prompt:
    """The size of a conversation that goes out message by message, by our estimate; the upstream knows better."""
    size = sum(estimate(message.text) for message in messages)
    return Prompt("", size, spec.prompt_limit)
