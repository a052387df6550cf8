"""The endpoints that are passed on, as rows of data."""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from app.api.error_responses import openai_errors
from app.domain.relay import Service
from app.domain.units import Unit

# What its answer may be, for the API's description.
Answer = Literal["application/json", "text/event-stream", "text/plain", "audio/*"]


class RelayedEndpoint(Struct, frozen=True):
    """An endpoint that is passed on.

    Args:
        name: Its dialect, in the ledger.
        path: At an upstream, below its base URL; here it is below `/v1`.
        service: What a model needs to be able to do.
        subject: The field that it is about, for errors.
        summary: For the API's description, like all that follows.
        fields: What else a request has, with their meaning; those that an upstream takes besides go there as well.
        answers: The types of its answers.
        is_form: Whether it takes a form with files.
        is_json: Whether it takes JSON.
        counted: The fields whose tokens count if the upstream tells none.
        unit: What is used besides tokens. Characters are those of `subject`; of all others the answer tells.
    """

    name: str
    path: str
    service: Service
    subject: str
    summary: str
    tag: str
    fields: Mapping[str, str]
    answers: Sequence[Answer] = ("application/json",)
    is_form: bool = False
    is_json: bool = True
    counted: tuple[str, ...] = ()
    unit: Unit | None = None

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"/v1{self.path}"


RELAYED = (
    RelayedEndpoint(
        name="embeddings",
        path="/embeddings",
        service="embeddings",
        subject="input",
        summary="Make embeddings of texts",
        tag="embeddings",
        fields={"input": "text, an array of texts, or tokens"},
        counted=("input",),
    ),
    RelayedEndpoint(
        name="rerank",
        path="/rerank",
        service="rerank",
        subject="documents",
        summary="Rank documents by what they say about a question",
        tag="embeddings",
        fields={"query": "the question", "documents": "an array of texts"},
        counted=("query", "documents"),
        unit="searches",
    ),
    RelayedEndpoint(
        name="moderations",
        path="/moderations",
        service="moderation",
        subject="input",
        summary="Judge whether texts are harmful",
        tag="moderations",
        fields={"input": "text, or an array of texts or parts"},
    ),
    RelayedEndpoint(
        name="images",
        path="/images/generations",
        service="image_generation",
        subject="prompt",
        summary="Make images",
        tag="images",
        fields={"prompt": "what is to be seen"},
        answers=("application/json", "text/event-stream"),
        unit="images",
    ),
    RelayedEndpoint(
        name="images",
        path="/images/edits",
        service="image_generation",
        subject="prompt",
        summary="Change images",
        tag="images",
        fields={
            "image": "one or several images; in JSON `images`, with an `image_url` or a `file_id` each",
            "prompt": "what is to become of them",
            "mask": "where",
        },
        answers=("application/json", "text/event-stream"),
        is_form=True,
        unit="images",
    ),
    RelayedEndpoint(
        name="images",
        path="/images/variations",
        service="image_generation",
        subject="image",
        summary="Make images like one",
        tag="images",
        fields={"image": "the image"},
        is_form=True,
        is_json=False,
        unit="images",
    ),
    RelayedEndpoint(
        name="speech",
        path="/audio/speech",
        service="speech",
        subject="input",
        summary="Speak a text",
        tag="audio",
        fields={"input": "the text", "voice": "of the upstream's", "response_format": "such as `mp3` or `wav`"},
        answers=("audio/*", "text/event-stream"),
        unit="characters",
    ),
    RelayedEndpoint(
        name="transcriptions",
        path="/audio/transcriptions",
        service="transcription",
        subject="file",
        summary="Write down what is said",
        tag="audio",
        fields={"file": "the audio", "stream": "`true` for events"},
        answers=("application/json", "text/plain", "text/event-stream"),
        is_form=True,
        is_json=False,
        unit="audio_seconds",
    ),
    RelayedEndpoint(
        name="translations",
        path="/audio/translations",
        service="transcription",
        subject="file",
        summary="Write down in English what is said",
        tag="audio",
        fields={"file": "the audio"},
        answers=("application/json", "text/plain"),
        is_form=True,
        is_json=False,
        unit="audio_seconds",
    ),
)
RELAY_ERRORS = openai_errors(*(f"{endpoint.address}/" for endpoint in RELAYED))
