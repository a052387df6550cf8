"""What the gateway asks of an upstream.

A provider is a subclass of `BaseProvider` with `create_completion` and `stream_completion`, registered by one line in
`app/build.py`. It turns a `CompletionRequest` into text, raises the errors of `app/domain/errors.py` and nothing else,
and frees what it holds when its task is cancelled (that is how it learns that the client has left).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from app.domain.chat import PLAIN_TEXT, Completion, Delta, Message, OutputFormat, ToolUse
from app.domain.prompt import MessagePrompt, PromptLimit, TextPrompt

# messages: takes a conversation message by message and ends its answer by `stop` and `max_tokens` itself; a model
# without it gets one text, and its answer is ended by the gateway. options: takes further fields of the request.
Ability = Literal["messages", "options", "tools", "json_object", "json_schema", "images"]


class ModelSpec(Struct, frozen=True):
    """A model that a provider serves.

    Args:
        id: The public name, as clients write it.
        upstream_id: The upstream's own name for it.
        prompt_limit: How large a conversation may be: as the one text it is made into, or in tokens.
        owned_by: Shown in the model list.
        abilities: What it does by itself; what is missing is made by the gateway, or refused.
        listed: False for a model that nobody has told us of: `find` gave it on the strength of its name alone.
    """

    id: str
    upstream_id: str
    prompt_limit: PromptLimit
    owned_by: str
    abilities: frozenset[Ability] = frozenset()
    listed: bool = True


class CompletionRequest(Struct, frozen=True):
    """One answer that is wanted from a provider.

    Args:
        model: Which of the provider's models.
        prompt: The conversation: as messages for models with the ability `messages`, else as one text within the
            model's limit. `prompt.text` and `messages` are there in either case.
        caller_id: Whose request it is, for fair shares.
        conversation_id: The same for all turns of one session, and another when it starts anew; None without a session.
            It holds the client's own name for the session: to be digested before it goes anywhere.
        options: Further fields of the client's request, for upstreams that know them.
        tools: For models that call tools by themselves; others never get any.
        output_format: For models that keep to it by themselves; others always get plain text.
        max_tokens: Likewise, as `stop`, for models that take messages.
        retries: Is a passing failure to be tried again? Not while another upstream stands by.
        deadline: By when the answer must have begun, in the event loop's time; None for the provider's own limit alone.
    """

    model: ModelSpec
    prompt: TextPrompt | MessagePrompt
    caller_id: str
    conversation_id: str | None = None
    options: Mapping[str, object] = {}
    tools: ToolUse | None = None
    output_format: OutputFormat = PLAIN_TEXT
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float | None = None
    retries: bool = True

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as messages; a text is a single message of the user's."""
        prompt = self.prompt
        return prompt.messages if isinstance(prompt, MessagePrompt) else (Message("user", prompt.text),)


class ProviderStatus(Struct, frozen=True):
    """May this provider serve now?

    Args:
        ready: Yes or no.
        details: Short facts without secrets, for `/ready`.
        gauges: Numbers of the moment, for the metrics, under names like `queue_depth`.
    """

    ready: bool
    details: Mapping[str, str]
    gauges: Mapping[str, float] = {}


class BaseProvider(ABC):
    """An upstream. `name` identifies it in headers, logs and metrics; `models` may be another list at any time."""

    name: str
    models: Sequence[ModelSpec]
    # Seconds that one answer may take, from the queue to its end (of a stream: to its beginning).
    timeout: float = 120.0

    def find(self, model_id: str) -> ModelSpec | None:
        """The model of that id, without this provider's name in front; one that isn't listed may exist as well."""
        return next((spec for spec in self.models if spec.id == model_id), None)

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
