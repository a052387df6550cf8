"""Errors as Google's APIs write them."""

import math

from pydantic_core import ErrorDetails

from app.api.limit_headers import openai_limit_headers
from app.api.request import ErrorForm
from app.api.wire.addresses import GOOGLE, GOOGLE_MARKS
from app.api.wire.faults import bracketed, fields_of
from app.domain.errors import GatewayError, InvalidRequest
from app.domain.json import json_bytes

# By HTTP status; every other 4xx is an invalid argument, every other 5xx an internal error.
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_DETAIL = "type.googleapis.com/google.rpc."
_DOMAIN = "kimi-ai-2api"
# This dialect's names of the domain's fields.
NAMES = {
    "messages": "contents",
    "tool_choice": "toolConfig.functionCallingConfig",
    "response_format": "generationConfig.responseSchema",
    "max_tokens": "generationConfig.maxOutputTokens",
    "n": "generationConfig.candidateCount",
    "stop": "generationConfig.stopSequences",
    "temperature": "generationConfig.temperature",
    "top_p": "generationConfig.topP",
    "top_k": "generationConfig.topK",
    "seed": "generationConfig.seed",
    "presence_penalty": "generationConfig.presencePenalty",
    "frequency_penalty": "generationConfig.frequencyPenalty",
    "reasoning_effort": "generationConfig.thinkingConfig",
}


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The error object. The gateway's own code is the `reason` among its details."""
    status = error.status
    content = {
        "code": status,
        "message": error.message,
        "status": _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL"),
        "details": _details(error, request_id),
    }
    return json_bytes({"error": content})


def google_fault(error: ErrorDetails) -> InvalidRequest:
    """The error for what is wrong with a body, its place written as `contents[0].parts[1].text`."""
    param = bracketed(fields_of(error["loc"]))
    return InvalidRequest(f"Invalid value at '{param}': {error['msg']}.", param=param)


def _details(error: GatewayError, request_id: str) -> list[dict[str, object]]:
    about = {"requestId": request_id} if request_id else {}
    info = {"reason": error.code or error.type, "domain": _DOMAIN, "metadata": about}
    details: list[dict[str, object]] = [{"@type": f"{_DETAIL}ErrorInfo", **info}]
    if error.param is not None:
        violation = {"field": NAMES.get(error.param, error.param), "description": error.message}
        details.append({"@type": f"{_DETAIL}BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None:
        # Whole milliseconds, rounded up: whoever comes back at that time is let in.
        delay = math.ceil(error.retry_after * 1000) / 1000
        details.append({"@type": f"{_DETAIL}RetryInfo", "retryDelay": f"{delay:.3f}".rstrip("0").rstrip(".") + "s"})
    return details


GEMINI_ERRORS = ErrorForm(
    body=error_body,
    paths=(GOOGLE,),
    marks=GOOGLE_MARKS,
    limit_headers=openai_limit_headers,
    key_header="x-goog-api-key",
)
