"""OpenAI's responses."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.dialects import Dialect, DialectServices
from app.api.openapi import ANSWER_ERRORS, REQUEST_HEADERS, example, openai_responses, request_doc
from app.api.request import JsonReply, read_body
from app.api.responses.errors import RESPONSES_ERRORS
from app.api.responses.items import items_of_input
from app.api.responses.kept import KeptResponses
from app.api.responses.read import conversation, input_tokens, read, refuse_impossible, understand_tools
from app.api.responses.schemas import InputTokens, ItemList, ResponseDeleted, ResponseObject, ResponsesRequest
from app.api.wire.body import parse_body
from app.domain.errors import InvalidRequest
from app.domain.json import json_bytes

_INPUT = {"model": "kimi", "input": "Hello, I come from London."}
_EXAMPLES = {"A kept answer": _INPUT, "A streamed answer": {**_INPUT, "stream": True}}
_ResponseId = Annotated[
    str, example("resp_latest", "On the page `/docs`, `resp_latest` is the response made last there.")
]
_NOT_KEPT = openai_responses({404: "`response_not_found`: never kept, expired, or another key's"})


def _routes(services: DialectServices) -> APIRouter:
    kept = KeptResponses(services.snapshots, max_characters=services.snapshot_max_characters)
    router = APIRouter(prefix="/v1/responses", tags=["responses"])

    @router.post(
        "/input_tokens",
        summary="Count the tokens of an input",
        response_model=InputTokens,
        responses=openai_responses({400: "The request is wrong; `param` says where"}),
        openapi_extra=request_doc(ResponsesRequest, {"An input": _INPUT}),
    )
    async def count_input_tokens(request: Request) -> InputTokens:
        """An estimate for everything that is sent, at four bytes of UTF-8 a token, whether or not it fits a model."""
        wire = parse_body(ResponsesRequest, await read_body(request.receive))
        refuse_impossible(wire)
        caller_id = request.scope["context"].caller.id
        items = await kept.conversation(caller_id, wire.previous_response_id, items_of_input(wire.input))
        return InputTokens(input_tokens=input_tokens(conversation(wire, items), understand_tools(wire)))

    @router.get("/{response_id}", summary="Read a response", response_model=ResponseObject, responses=_NOT_KEPT)
    async def get_response(request: Request, response_id: _ResponseId) -> Response:
        """A response that was kept."""
        if request.query_params.get("stream", "").lower() in ("true", "1"):
            raise InvalidRequest(
                "stream is not supported here: a kept response can't be streamed again.", param="stream"
            )
        found = await kept.load(request.scope["context"].caller.id, response_id)
        return JsonReply(json_bytes(found.response))

    @router.delete("/{response_id}", summary="Forget a response", response_model=ResponseDeleted, responses=_NOT_KEPT)
    async def delete_response(request: Request, response_id: _ResponseId) -> ResponseDeleted:
        """Responses that continued this one have a copy of the conversation."""
        await kept.forget(request.scope["context"].caller.id, response_id)
        return ResponseDeleted(id=response_id)

    @router.get(
        "/{response_id}/input_items",
        summary="List what a response answers",
        response_model=ItemList,
        responses=_NOT_KEPT | openai_responses({400: "The page is wrong; `param` says where"}),
    )
    async def list_input_items(
        request: Request,
        response_id: _ResponseId,
        after: str | None = None,
        limit: Annotated[str, Query(description="1 to 100")] = "20",
        order: Annotated[str, Query(description="`asc` or `desc`")] = "desc",
    ) -> ItemList:
        """The items of the conversation, those of earlier responses included; latest first unless `order` is `asc`."""
        found = await kept.load(request.scope["context"].caller.id, response_id)
        return _page(found.items, after=after, limit=_limit(limit), order=_order(order))

    return router


def _limit(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= 100:
        raise InvalidRequest("limit must be between 1 and 100.", param="limit")
    return int(given)


def _order(given: str) -> Literal["asc", "desc"]:
    if given == "asc":
        return "asc"
    if given != "desc":
        raise InvalidRequest("order must be asc or desc.", param="order")
    return "desc"


def _page(items: list[dict[str, Any]], *, after: str | None, limit: int, order: Literal["asc", "desc"]) -> ItemList:
    """Some of the items, from the one after `after` on."""
    items = items if order == "asc" else items[::-1]
    start = 0
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequest("There is no item with this id.", param="after")
        start = place + 1
    page = items[start : start + limit]
    ids = [item["id"] for item in page]
    return ItemList(
        data=page,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=start + limit < len(items),
    )


RESPONSES = Dialect(
    name="responses",
    path="/v1/responses",
    summary="Answer a conversation, and keep the answer",
    tag="responses",
    request=ResponsesRequest,
    answer=ResponseObject,
    examples=_EXAMPLES,
    responses=ANSWER_ERRORS,
    headers=REQUEST_HEADERS,
    read=read,
    routes=_routes,
    errors=RESPONSES_ERRORS,
)
