"""A provider in thirty lines: answers with the user's own words in capitals.

`PROVIDERS=examples.shout_provider:ShoutProvider` adds it to a gateway.
"""

from collections.abc import AsyncGenerator

from app.domain.chat import Completion, Delta
from app.domain.prompt import PromptLimit
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec


class ShoutProvider(BaseProvider):
    """Serves one model, `shout`."""

    name = "shout"
    models = (ModelSpec(id="shout", upstream_id="shout-1", prompt_limit=PromptLimit(4000), owned_by="example"),)

    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The whole answer; raise the errors of app/domain/errors.py when the upstream fails."""
        return Completion(request.prompt.text.upper())

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The same in parts, each as soon as it is there; `Delta(text, whole=True)` lets the gateway type it out."""
        for word in request.prompt.text.upper().split(" "):
            yield Delta(word + " ")
