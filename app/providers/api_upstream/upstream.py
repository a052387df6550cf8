"""What is known of one upstream, as values."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from app.domain.chat import ApiKind
from app.domain.prompt import PromptLimit
from app.providers.base import Ability, ModelSpec
from app.providers.bounds import BoundsRow

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]
ReasoningField = Literal["reasoning_content", "reasoning"]

_DEFAULT_LIMIT = PromptLimit(32_768, "tokens", "context_length")


class Quirks(Struct, frozen=True):
    """How an upstream differs from the others.

    Args:
        max_tokens_field: Its name for the bound on the answer's length.
        stream_usage: Whether it knows `stream_options`, and then counts tokens at the end of a stream.
        reasoning_field: Where it wants the assistant's earlier reasoning back; None if it doesn't.
        takes_extras: Whether it takes fields of other vendors in messages, or refuses what it doesn't know.
        one_system_message: Whether it wants all instructions in one message, the first: the chat templates of many open
            models refuse others.
        check_path: What is fetched to check the key; must cost nothing and need the key.
    """

    max_tokens_field: MaxTokensField = "max_tokens"
    stream_usage: bool = True
    reasoning_field: ReasoningField | None = None
    takes_extras: bool = True
    one_system_message: bool = True
    check_path: str = "/models"


PLAIN = Quirks()


class Upstream(Struct, frozen=True):
    """One upstream.

    Args:
        name: Ours for it: in headers, logs, metrics and before the slash of `name/model`.
        base_url: The address up to and including `/v1` or the like, without a slash at the end.
        key: The API key; empty for none.
        key_name: The variable that holds the key, for messages to the operator.
        keys: All keys by their names, `key` among them; empty if there is but one.
        headers: Further headers of every request. Values may be secret.
        models: The models that are configured.
        quirks: How it differs from the others.
        any_model: Whether `name/anything` may be asked for as well.
        discover: Whether its own list of models is read.
        default_limit: The size of models of which nothing else is known.
        default_abilities: Likewise what they do by themselves.
        bounds: What its models take, by patterns of their names.
        kind: The form of its API.
    """

    name: str
    base_url: str
    key: str = ""
    key_name: str = ""
    keys: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    quirks: Quirks = PLAIN
    models: tuple[ModelSpec, ...] = ()
    any_model: bool = False
    discover: bool = False
    default_limit: PromptLimit = _DEFAULT_LIMIT
    default_abilities: frozenset[Ability] = frozenset({"messages", "options"})
    bounds: tuple[BoundsRow, ...] = ()
    kind: ApiKind = "openai"

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"  # the key, the headers and often the address are secret

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in a text that came from the upstream, the longest first."""
        found = {self.key, *self.keys.values(), self.base_url, *self.headers.values()} - {""}
        return tuple(sorted(found, key=len, reverse=True))
