"""Asking one target after the other until one answers."""

import asyncio
from collections.abc import Iterator

from app.chat.candidates import Candidate, PassedOver, candidates
from app.domain.chat import PLAIN_TEXT, ChatCall, Message
from app.domain.errors import GatewayError, InternalError, UpstreamError
from app.domain.output import OutputLimiter
from app.providers.base import CompletionRequest
from app.providers.registry import Target


class Asking:
    """Whom to ask for one answer, in which order, for how long, and what came of it so far.

    Args:
        call: What is wanted.
        caller_id: By whom.
        targets: Who may be asked, in order; at least one.

    Attributes:
        candidate: Who is asked now; None if nobody was yet.
        passed_over: Who didn't answer, by the provider's name, and why, by a code.
    """

    __slots__ = (
        "_alone",
        "_call",
        "_caller_id",
        "_conversation_id",
        "_refusal",
        "_targets",
        "_until",
        "candidate",
        "passed_over",
    )

    def __init__(self, call: ChatCall, caller_id: str, targets: tuple[Target, ...]) -> None:
        self._call = call
        self._caller_id = caller_id
        self._targets = targets
        self._conversation_id: str | None = None
        self._alone = False
        # When the time of the one who is asked now is over, by the event loop's clock.
        self._until = 0.0
        self._refusal: GatewayError | None = None
        self.candidate: Candidate | None = None
        self.passed_over: list[tuple[str, str]] = []

    def candidates(self, messages: tuple[Message, ...], conversation_id: str | None) -> Iterator[Candidate]:
        """Who is to be asked next, again and again; those that can't take the conversation are passed over.

        The time begins to run here. If none of them answers, `refusal` gives what the client is to be told.

        Args:
            messages: The conversation to be answered.
            conversation_id: See `CompletionRequest`.
        """
        self._conversation_id = conversation_id
        loop = asyncio.get_running_loop()
        left = len(self._targets)
        # As long as the most patient of them may take: the others stand in within that time.
        deadline = loop.time() + max([target.provider.timeout for target in self._targets])
        for candidate in candidates(self._targets, self._call, messages):
            if isinstance(candidate, PassedOver):
                left -= not candidate.for_now
                self._pass_over(candidate.target, candidate.error)
                continue
            left -= 1
            self._alone = not left
            now = loop.time()
            # One that stands alone may use up the time; else it leaves half of it to those behind it.
            share = deadline - now if self._alone else (deadline - now) / 2
            self._until = now + min(candidate.target.provider.timeout, share)
            self.candidate = candidate
            yield candidate

    def refusal(self) -> GatewayError:
        """Why nobody answers, to be raised; once."""
        refusal, self._refusal = self._refusal, None
        return refusal or InternalError("There was nobody to ask.")

    def failed(self, candidate: Candidate, error: GatewayError) -> None:
        """A candidate didn't answer: the next may.

        Raises:
            GatewayError: The same error, if it would be the same elsewhere.
        """
        if not error.try_elsewhere:
            raise error
        self._pass_over(candidate.target, error)

    def request(self, candidate: Candidate) -> CompletionRequest:
        """What the one who is asked now is asked: the first time, or once more within the same time."""
        call, spec = self._call, candidate.target.spec
        abilities = spec.abilities
        return CompletionRequest(
            model=spec,
            prompt=candidate.prompt,
            messages=candidate.messages,
            caller_id=self._caller_id,
            conversation_id=self._conversation_id,
            options=call.options if "options" in abilities else {},
            tools=call.tools if "tools" in abilities else None,
            output_format=call.output_format if call.output_format.kind in abilities else PLAIN_TEXT,
            max_tokens=call.max_tokens,
            # What is read from a reply is ended here: a stop text within a call would leave half of it.
            stop=() if candidate.emulator else call.stop,
            deadline=self._until,
            retries=self._alone,
        )

    def limiter(self, candidate: Candidate) -> OutputLimiter | None:
        """Ends the answer of a model that doesn't end it by itself, or that was not told where."""
        call = self._call
        if "messages" not in candidate.target.spec.abilities:
            return OutputLimiter(call.stop, call.max_tokens) if call.stop or call.max_tokens is not None else None
        return OutputLimiter(call.stop) if candidate.emulator and call.stop else None

    def _pass_over(self, target: Target, error: GatewayError) -> None:
        self.passed_over.append((target.provider.name, error.code or "unfit"))
        # That a larger model would have answered but is in trouble tells more than that the request is too large.
        if not isinstance(self._refusal, UpstreamError) or isinstance(error, UpstreamError):
            # Its traceback leads to all that knows of this object: they would keep each other alive.
            self._refusal = error.with_traceback(None)
