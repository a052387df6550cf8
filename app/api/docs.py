"""What the routes of all OpenAI dialects say about themselves in `/openapi.json`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every error."""

    error: ErrorObject


def errors(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Responses with an error, each with what it means."""
    return {status: {"model": ErrorEnvelope, "description": text} for status, text in descriptions.items()}


ANSWER_ERRORS = errors(
    {
        400: "The request is wrong (`param` says where) or too long (`context_length_exceeded`)",
        401: "The API key is missing or unknown",
        404: "`model_not_found`, or `session_not_found` with `X-Session-Strict`",
        409: "`session_busy`: another request of this session is running",
        413: "The body is too large",
        429: "The upstream asks for fewer requests",
        500: "A fault of the gateway",
        502: "The upstream answered nonsense",
        503: "The upstream can't be used at the moment",
        504: "The upstream didn't answer in time",
    }
)
STREAM_DOC = {"description": "The answer, or with `stream: true` its events", "content": {"text/event-stream": {}}}


def request_doc(body: type[BaseModel]) -> dict[str, Any]:
    """What a route takes that reads its body itself."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}},
        },
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
            for name, description in {
                "X-Session-Id": "the session to remember this turn in",
                "X-Session-Reset": "`true` begins the session anew",
                "X-Session-Strict": "`true` answers 404 instead of beginning an expired session anew",
                "Idempotency-Key": "the same for the same turn sent again within a minute, which then gets the same "
                "answer",
                "X-Provider": "the only provider that may answer",
                "X-Request-ID": "8 to 128 of A-Z a-z 0-9 . _ -; comes back in the response and in the logs",
            }.items()
        ],
    }
