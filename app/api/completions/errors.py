"""Errors of legacy completions: the domain's `messages` are the `prompt` here."""

from app.api.error_responses import openai_error_object, openai_errors
from app.domain.errors import GatewayError

_NAMES = {"messages": "prompt"}

COMPLETIONS_ERRORS = openai_errors("/v1/completions/", names=_NAMES)


def error_object(error: GatewayError) -> dict[str, object]:
    """The error object."""
    return openai_error_object(error, _NAMES)
