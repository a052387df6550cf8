"""A provider that does what a test tells it, at the seam where real ones stand."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from starlette.types import ASGIApp

from app.assembly.app import create_app
from app.domain.chat import Completion, Delta
from app.domain.errors import GatewayError
from app.domain.prompt import PromptLimit
from app.observe import logging as logs
from app.providers.base import Ability, BaseProvider, CompletionRequest, ModelSpec
from app.settings import load_settings
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, LiveGateway, serving

Step = Delta | GatewayError
Answer = GatewayError | Completion | Iterable[Step] | Callable[[CompletionRequest], Completion]
HELLO = Completion("Hello.")
ROOM = PromptLimit(4000)


class ScriptedProvider(BaseProvider):
    """Serves the model `<name>-model`; what it answers may be changed at any time.

    Args:
        answer: What comes of each request: an error, a whole answer, steps of a stream, or what a function says.
        limit: How much its model takes.
        abilities: What its model does by itself.
    """

    def __init__(
        self,
        name: str,
        answer: Answer = HELLO,
        *,
        limit: PromptLimit = ROOM,
        abilities: Iterable[Ability] = (),
    ) -> None:
        self.name = name
        self.models = [ModelSpec(f"{name}-model", "upstream-model", limit, "tests", frozenset(abilities))]
        self.answer = answer
        self.requests: list[CompletionRequest] = []
        self.asked = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The answer, whole."""
        answer = await self._answer(request)
        if isinstance(answer, Completion):
            return answer
        return Completion("".join([delta.text async for delta in self._steps(answer)]))

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The answer in its steps."""
        answer = await self._answer(request)
        steps = [Delta(answer.text)] if isinstance(answer, Completion) else answer
        async for delta in self._steps(steps):
            yield delta

    async def _answer(self, request: CompletionRequest) -> Completion | Iterable[Step]:
        self.requests.append(request)
        self.asked.set()
        await self.hold.wait()
        if isinstance(self.answer, GatewayError):
            raise self.answer
        return self.answer(request) if callable(self.answer) else self.answer

    async def _steps(self, steps: Iterable[Step]) -> AsyncGenerator[Delta, None]:
        for step in steps:
            if isinstance(step, GatewayError):
                raise step
            yield step


@contextmanager
def gateway_with(
    site: LiveSimulator,
    log: TextIO,
    *providers: ScriptedProvider,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    **settings: object,
) -> Iterator[LiveGateway]:
    """A gateway with these providers besides the site; the model `r` is a route through all of them.

    Args:
        around: Puts something between the server and the app.
        settings: Those that are not as usual.
    """
    values: dict[str, object] = {
        "_env_file": None,
        "api_master_key": ALICE_KEY,
        "chat_page_url": site.page_url,
        "typing_delay_seconds": 0,
        "max_loop_lag_seconds": 30,  # tests may run on a busy machine
        "model_routes": "r=" + ">".join(f"{provider.name}-model" for provider in providers),
        **settings,
    }
    app = create_app(load_settings(**values), providers)
    logs.configure("DEBUG", "json", log)
    with serving(around(app)) as gateway:
        yield gateway
