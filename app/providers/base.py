"""What the gateway asks of an upstream.

A provider is a subclass of `BaseProvider` with `create_completion` and `stream_completion`, registered by one line in
`app/build.py`. It turns a `CompletionRequest` into text, raises the errors of `app/domain/errors.py` and nothing else,
and frees what it holds when its task is cancelled (that is how it learns that the client has left).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.chat import Completion, Delta, Message
from app.domain.prompt import Prompt, PromptLimit


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that a provider serves.

    Args:
        id: The public name, as clients write it.
        upstream_id: The upstream's own name for it.
        prompt_limit: How large the one text may be that a conversation is made into.
        owned_by: Shown in the model list.
    """

    id: str
    upstream_id: str
    prompt_limit: PromptLimit
    owned_by: str


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One answer that is wanted from a provider.

    Args:
        model: Which of the provider's models.
        prompt: The conversation as one text within the model's limit.
        messages: The same conversation message by message, whole.
        caller_id: Whose request it is, for fair shares.
        conversation_id: The same for all turns of one session, and another when it starts anew; None without a session.
        options: Further fields of the client's request, for upstreams that know them.
    """

    model: ModelSpec
    prompt: Prompt
    messages: tuple[Message, ...]
    caller_id: str
    conversation_id: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """May this provider serve now?

    Args:
        ready: Yes or no.
        details: Short facts without secrets, for `/ready`.
        gauges: Numbers of the moment, for the metrics, under names like `queue_depth`.
    """

    ready: bool
    details: Mapping[str, str]
    gauges: Mapping[str, float] = field(default_factory=dict)


class BaseProvider(ABC):
    """An upstream. `name` identifies it in headers, logs and metrics."""

    name: str
    models: Sequence[ModelSpec]

    @abstractmethod
    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The whole answer.

        Raises:
            GatewayError: The upstream failed, refused or took too long.
        """

    @abstractmethod
    def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The answer in parts, each as soon as it is there.

        Raises:
            GatewayError: As `create_completion`, before the first part or between two.
        """

    async def start(self) -> None:  # noqa: B027 - most providers have nothing to start
        """Open what is needed; must not depend on the upstream being up."""

    async def connect(self) -> None:  # noqa: B027 - most providers need no introduction
        """Do what has to be done once before the first request; requests do it by themselves.

        Raises:
            GatewayError: It can't be done now.
        """

    async def aclose(self) -> None:  # noqa: B027 - nor anything to close
        """Close everything that `start` opened."""

    def status(self) -> ProviderStatus:
        """The state that `/ready` shows."""
        return ProviderStatus(ready=True, details={})
