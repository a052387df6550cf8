"""The description of the endpoints that are passed on, for `/openapi.json`."""

from typing import Any

from fastapi import APIRouter

from app.api.openapi import ANSWER_ERRORS
from app.api.relay.endpoints import RelayedEndpoint

_MODEL = "which model; without one, the first that is known to do this"
_HEADERS = {
    "X-Provider": "the only provider that may answer",
    "X-Request-ID": "8 to 128 of A-Z a-z 0-9 . _ -; comes back in the response and in the logs",
}


def describe_relayed(router: APIRouter, endpoint: RelayedEndpoint) -> None:
    """Have FastAPI describe an endpoint; its requests don't come by this route."""

    async def described() -> None:
        """The upstream's answer, as it comes."""
        raise AssertionError(f"{endpoint.address} is answered by its own endpoint.")

    statuses = {status: response for status, response in ANSWER_ERRORS.items() if status != 409}
    router.add_api_route(
        endpoint.address,
        described,
        methods=["POST"],
        summary=endpoint.summary,
        tags=[endpoint.tag],
        name=f"relay_{endpoint.name}",
        response_model=None,
        responses={200: {"description": "The answer", "content": {kind: {} for kind in endpoint.answers}}, **statuses},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {kind: {"schema": _schema(endpoint)} for kind in _types(endpoint)},
            },
            "parameters": [
                {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": text}
                for name, text in _HEADERS.items()
            ],
        },
    )


def _types(endpoint: RelayedEndpoint) -> list[str]:
    types = {"multipart/form-data": endpoint.is_form, "application/json": endpoint.is_json}
    return [kind for kind, is_taken in types.items() if is_taken]


def _schema(endpoint: RelayedEndpoint) -> dict[str, Any]:
    fields = {name: {"description": text} for name, text in endpoint.fields.items()}
    return {"type": "object", "properties": {"model": {"type": "string", "description": _MODEL}, **fields}}
