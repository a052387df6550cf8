"""The interface of a provider.

A provider is a subclass of `BaseProvider` with `name`, `models`, `create_completion` and `stream_completion`. It turns
a `CompletionRequest` into an answer, raises only the errors of `app/domain/errors.py`, and releases its resources when
its task is cancelled (that is how it learns that the client has left). The setting `PROVIDERS` names classes that live
elsewhere; those of this project are listed in `app/assembly/providers.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from app.domain.chat import PLAIN_TEXT, ApiKind, Completion, Delta, Message, NativeRequest, OutputFormat, ToolUse, Usage
from app.domain.errors import InvalidRequest
from app.domain.prompt import MessagePrompt, PromptLimit, TextPrompt
from app.domain.relay import Payload, RelayHead, Service
from app.domain.units import Unit
from app.domain.waits import OnWait
from app.providers.bounds import ModelBounds

# messages: accepts a conversation message by message, and applies `stop` and `max_tokens` itself; a model without it
# gets the conversation as one text, and the gateway ends its answer. options: accepts further fields of the request.
Ability = Literal["messages", "options", "tools", "json_object", "json_schema", "images"]


class ModelSpec(Struct, frozen=True):
    """A model that a provider serves.

    Args:
        id: The public name, as clients write it.
        upstream_id: The upstream's own name for it.
        prompt_limit: The largest conversation, as one text or in tokens.
        owned_by: Shown in the model list.
        abilities: What the model does natively. The gateway emulates or refuses the rest.
        listed: False for a model that `find` made up from its name: nobody has listed it.
        bounds: What requests to it are brought within; None if it is sent whatever the client wants.
        takes_parts: Whether its provider sends the `earlier_parts` of a text prompt first, in one session with the
            rest, and its upstream keeps in mind what such a session has said.
        services: What it serves besides chats; None if nobody here knows, and its upstream may be asked.
        chats: False for a model that is known to serve nothing else. A chat with it is up to its upstream.
    """

    id: str
    upstream_id: str
    prompt_limit: PromptLimit
    owned_by: str
    abilities: frozenset[Ability] = frozenset()
    listed: bool = True
    bounds: ModelBounds | None = None
    takes_parts: bool = False
    services: frozenset[Service] | None = None
    chats: bool = True

    @property
    def told_abilities(self) -> list[str]:
        """What it can do, as clients are told."""
        return sorted({*(self.abilities if self.chats else ()), *(self.services or ())})

    @property
    def told_limit(self) -> PromptLimit | None:
        """The largest conversation, as clients are told; None for a model that has none."""
        return self.prompt_limit if self.chats else None

    def may_serve(self, service: Service) -> bool:
        """Whether it does that, or nobody here knows that it doesn't."""
        return self.services is None or service in self.services


class CompletionRequest(Struct, frozen=True):
    """A request for one answer.

    Args:
        model: Which of the provider's models.
        prompt: The conversation: as messages for models with the ability `messages`, else as one text within the
            model's limit. `prompt.text` and `messages` are there in either case.
        caller_id: Whose request it is, for fair shares.
        conversation_id: The same for all turns of a session, and a new one when it starts over; None without a session.
            It contains the client's own session id: hash it before it goes anywhere.
        options: Further fields of the client's request, for upstreams that know them.
        tools: For models that call tools natively; always None for others.
        output_format: For models that support it natively; always plain text for others.
        max_tokens: For models that accept messages, like `stop`; never set for others.
        stop: Texts that end the answer.
        deadline: When the answer must have begun, in the event loop's time; None for the provider's own limit only.
        retries: Whether to try again after a transient failure. False while another upstream stands by.
        n: How many answers are wanted; more than one only of models that accept messages.
        report: Takes the tokens that the upstream has counted of an answer that doesn't come to its end. A provider
            that knows of none need not call it.
        on_wait: Told of times in which the request waited and nothing was sent. A provider need not call it.
        native: The client's request in the form of the provider's own API, which the answer is to have as well. Its
            messages need not be those of the prompt, nor its other fields those given here.
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
    n: int = 1
    report: Callable[[Usage], None] | None = None
    on_wait: OnWait | None = None
    native: NativeRequest | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as messages; a text is a single message of the user's."""
        prompt = self.prompt
        return prompt.messages if isinstance(prompt, MessagePrompt) else (Message("user", prompt.text),)


class RelayRequest(Struct, frozen=True):
    """A request that is passed on as it is.

    Args:
        model: Which of the provider's models.
        path: The upstream's address for it, below its base URL.
        subject: The field that it is about, for errors.
        payload: Its body, with the upstream's name for the model.
        caller_id: Whose request it is, for fair shares.
        deadline: When the answer must have begun, in the event loop's time.
        retries: Whether to try again after a transient failure.
        report: Takes what the upstream has counted, if it has, before the answer ends.
        on_wait: See `CompletionRequest`.
        unit: What the answer may tell of besides tokens; None for nothing.
    """

    model: ModelSpec
    path: str
    subject: str
    payload: Payload
    caller_id: str
    deadline: float
    retries: bool
    report: Callable[[Usage], None]
    on_wait: OnWait | None = None
    unit: Unit | None = None


class ProviderStatus(Struct, frozen=True):
    """Whether a provider can serve requests now.

    Args:
        ready: Whether it can.
        details: Short facts without secrets, for `/ready`.
        gauges: Current values for the metrics, under names like `queue_depth`.
    """

    ready: bool
    details: Mapping[str, str]
    gauges: Mapping[str, float] = {}


class BaseProvider(ABC):
    """An upstream. `name` identifies it in headers, logs and metrics; `models` may change at any time."""

    name: str
    models: Sequence[ModelSpec]
    # The form of its upstream's API. A client's request in the same form reaches it as it came.
    kind: ClassVar[ApiKind | None] = None
    # Seconds for one answer, from the queue to its end (of a stream: to its first part).
    timeout: float = 120.0
    # Whether it has a `relay`.
    relays: bool = False
    # Stands for the upstream behind the name; another one once that is at another address or has another account. No
    # secret can be told from it, and it is the same in all workers.
    identity: str = ""

    def find(self, model_id: str) -> ModelSpec | None:
        """The model with that id, given without the provider's name. It need not be in the list."""
        return next((spec for spec in self.models if spec.id == model_id), None)

    @abstractmethod
    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The whole answer.

        Raises:
            GatewayError: The upstream failed, refused or took too long.
        """

    @abstractmethod
    def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The answer in parts, as they arrive.

        Raises:
            GatewayError: As `create_completion`, before the first part or between parts.
        """

    def relay(self, request: RelayRequest) -> AsyncGenerator[RelayHead | bytes, None]:
        """The upstream's answer to a request that is passed on: its head, then its body as it comes.

        Raises:
            GatewayError: As `create_completion`, before the head or between parts.
        """
        raise InvalidRequest(f"{self.name} answers chats only, not {request.path}.", param="model")

    async def start(self) -> None:  # noqa: B027 - most providers have nothing to start
        """Open resources. Must succeed while the upstream is down."""

    async def connect(self) -> None:  # noqa: B027 - most providers need no preparation
        """Prepare for the first request, or check that requests will work. Requests prepare by themselves if need be.

        Raises:
            GatewayError: It failed.
        """

    async def prepare(self) -> None:  # noqa: B027 - most providers know their models
        """Wait until the models are known that the upstream has to be asked for. Returns also if it doesn't tell."""

    async def retire(self) -> None:  # noqa: B027 - most providers do nothing of their own accord
        """End what goes on between calls: the provider was replaced. Calls that know it may still come, and `aclose`
        follows when they are over."""

    async def aclose(self) -> None:  # noqa: B027 - most providers have nothing to close
        """Close what `start` opened."""

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way. `aclose` comes when this has been so for a while, if the provider is replaced
        while the gateway runs."""
        return True

    def status(self) -> ProviderStatus:
        """The state for `/ready` and the metrics."""
        return ProviderStatus(ready=True, details={})
