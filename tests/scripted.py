"""A provider that does what a test tells it, at the seam where real ones stand."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

from app.domain.chat import Completion, Delta
from app.domain.errors import GatewayError
from app.domain.prompt import PromptLimit
from app.providers.base import Ability, BaseProvider, CompletionRequest, ModelSpec

Step = Delta | GatewayError
HELLO = Completion("Hello.")
ROOM = PromptLimit(4000)


class ScriptedProvider(BaseProvider):
    """Serves the model `<name>-model`; what it answers may be changed at any time.

    Args:
        answer: What comes of each request: an error, a whole answer, or steps of a stream.
        limit: How much its model takes.
        abilities: What its model does by itself.
    """

    def __init__(
        self,
        name: str,
        answer: GatewayError | Completion | Iterable[Step] = HELLO,
        *,
        limit: PromptLimit = ROOM,
        abilities: Iterable[Ability] = (),
    ) -> None:
        self.name = name
        self.models = [ModelSpec(f"{name}-model", "upstream-model", limit, "tests", frozenset(abilities))]
        self.answer = answer
        self.requests: list[CompletionRequest] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The answer, whole."""
        text = ""
        async for delta in self.stream_completion(request):
            text += delta.text
        return self.answer if isinstance(self.answer, Completion) else Completion(text)

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The answer in its steps."""
        self.requests.append(request)
        await self.hold.wait()
        if isinstance(self.answer, GatewayError):
            raise self.answer
        steps = [Delta(self.answer.text)] if isinstance(self.answer, Completion) else self.answer
        for step in steps:
            if isinstance(step, GatewayError):
                raise step
            yield step
