"""A request that is passed on as it is, to an endpoint of an upstream that is no chat."""

from collections.abc import AsyncGenerator, Callable
from typing import Literal, Protocol, get_args

from msgspec import Struct

from app.domain.units import Unit

# What a model can do besides chats. transcription: translations too. image_generation: edits and variations too.
Service = Literal["embeddings", "rerank", "moderation", "image_generation", "transcription", "speech"]
SERVICES: frozenset[Service] = frozenset(get_args(Service))


class Payload(Struct, frozen=True):
    """The body of a request as one upstream gets it.

    Args:
        data: A JSON document; empty for an upload.
        pieces: Makes the pieces of an upload; None for JSON.
        length: The bytes of all pieces together.
        content_type: Of the upload.
    """

    data: bytes = b""
    pieces: Callable[[], AsyncGenerator[bytes, None]] | None = None
    length: int = 0
    content_type: str = ""


class RelayBody(Protocol):
    """What a client has sent, as it can be passed on."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here, and can be sent as often as need be."""
        ...

    @property
    def can_be_sent(self) -> bool:
        """Whether it can be sent now. What is still on its way from the client can't, once a part of it has gone."""
        ...

    def payload(self, model: str, seconds: float) -> Payload:
        """The body for an upstream that calls the model so.

        Args:
            model: The upstream's own name for it.
            seconds: How long the client may take at most for what has yet to come from it.
        """
        ...


class RelayCall(Struct, frozen=True):
    """One request to be passed on.

    Args:
        model: The public model id that the client asked for; None if it named none.
        service: What the model must be able to do.
        path: The upstream's address for it, below its base URL.
        subject: The field that the request is about, for errors.
        body: What is passed on.
        provider: The only provider that may answer; None for any.
        prompt_tokens: The tokens in it, estimated; 0 where none are counted.
        unit: What is used besides tokens; None for nothing.
        amount: How much of it the request says; 0 if the answer tells.
        n: How many answers are wanted, for limits.
        max_tokens: Likewise how many tokens they may have: what is passed on has its tokens in the request.
        session: None: nothing is remembered.
    """

    model: str | None
    service: Service
    path: str
    subject: str
    body: RelayBody
    provider: str | None = None
    prompt_tokens: int = 0
    unit: Unit | None = None
    amount: int = 0
    n: int = 1
    max_tokens: int = 0
    session: None = None


class RelayHead(Struct, frozen=True):
    """The beginning of an upstream's answer.

    Args:
        content_type: Of its body.
        length: Bytes of its body, if that is known.
    """

    content_type: str
    length: int | None = None
