"""`/v1/responses`."""

import time
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.bodies import naming_fields, parse_body, read_body
from app.api.dialects import Dialect, Parts
from app.api.disconnect import cancel_on_disconnect
from app.api.docs import ANSWER_ERRORS, STREAM_DOC, errors, request_doc
from app.api.encoding import json_bytes
from app.api.headers import opening_headers, session_hints
from app.api.reply import JsonReply
from app.api.responses.convert import (
    FIELD_NAMES,
    conversation,
    ignored_params,
    input_tokens,
    refuse_impossible,
    to_call,
    understand_tools,
)
from app.api.responses.ids import new_response_id
from app.api.responses.items import items_of_input
from app.api.responses.kept import KeptResponses
from app.api.responses.output import ResponseDraft, echo_of
from app.api.responses.schemas import InputTokens, ItemList, ResponseDeleted, ResponseObject, ResponsesRequest
from app.api.responses.turn import ResponseTurn
from app.api.streaming import EventStream
from app.domain.errors import InvalidRequest

_NOT_KEPT = errors({404: "`response_not_found`: never kept, expired, or another key's"})


def responses_router(parts: Parts) -> APIRouter:
    """The routes of the responses dialect. Each caller sees its own responses only."""
    kept = KeptResponses(parts.snapshots, max_characters=parts.snapshot_max_characters)
    router = APIRouter(prefix="/v1/responses", tags=["responses"])

    @router.post(
        "",
        summary="Answer a conversation",
        response_model=None,
        responses={200: {"model": ResponseObject, **STREAM_DOC}, **ANSWER_ERRORS},
        openapi_extra=request_doc(ResponsesRequest),
    )
    async def create_response(request: Request) -> Response:
        """The answer of a model, whole or as server-sent events, and kept unless `store` is false."""
        wire = parse_body(ResponsesRequest, await read_body(request.receive))
        refuse_impossible(wire)
        toolbox = understand_tools(wire)
        hints = session_hints(request.scope["headers_by_name"], None)
        caller = request.scope["caller"]
        own = items_of_input(wire.input)
        items = await kept.conversation(caller.id, wire.previous_response_id, own)
        call = to_call(
            wire, items, toolbox, hints, default_model=parts.registry.default_model, max_messages=parts.max_messages
        )
        store = wire.store is not False
        draft = ResponseDraft(new_response_id(), int(time.time()), call.model, echo_of(wire), store)
        turn = ResponseTurn(draft, items=items, toolbox=toolbox, kept=kept, caller_id=caller.id)
        headers_of = partial(opening_headers, ignored=ignored_params(wire, own, toolbox))
        if wire.stream:
            return EventStream(
                turn.streamed(parts.service.stream(call, caller)),
                encoder=lambda _: turn.encoder(),
                headers_of=headers_of,
                policy=parts.stream_policy,
                metrics=parts.metrics,
            )
        with naming_fields(FIELD_NAMES):
            async with cancel_on_disconnect(request.receive):
                answer = await parts.service.complete(call, caller)
                response = await turn.whole(answer)
        return JsonReply(json_bytes(response), headers_of(answer.opening))

    @router.post(
        "/input_tokens",
        summary="Count the tokens of an input",
        response_model=InputTokens,
        responses=errors({400: "The request is wrong; `param` says where"}),
        openapi_extra=request_doc(ResponsesRequest),
    )
    async def count_input_tokens(request: Request) -> Response:
        """An estimate for all that is sent, at four bytes of UTF-8 a token; what doesn't fit isn't cut off here."""
        wire = parse_body(ResponsesRequest, await read_body(request.receive))
        refuse_impossible(wire)
        caller_id = request.scope["caller"].id
        items = await kept.conversation(caller_id, wire.previous_response_id, items_of_input(wire.input))
        count = InputTokens(input_tokens=input_tokens(conversation(wire, items), understand_tools(wire)))
        return JsonReply(json_bytes(count.model_dump()))

    @router.get("/{response_id}", summary="Read a response", response_model=ResponseObject, responses=_NOT_KEPT)
    async def get_response(request: Request, response_id: str) -> Response:
        """A response that is kept."""
        if request.query_params.get("stream", "").lower() in ("true", "1"):
            raise InvalidRequest("A response that is kept can't be streamed again.", param="stream")
        found = await kept.load(request.scope["caller"].id, response_id)
        return JsonReply(json_bytes(found.response))

    @router.delete("/{response_id}", summary="Forget a response", response_model=ResponseDeleted, responses=_NOT_KEPT)
    async def delete_response(request: Request, response_id: str) -> ResponseDeleted:
        """Keep a response no longer. Those that continued it have a copy of the conversation."""
        await kept.forget(request.scope["caller"].id, response_id)
        return ResponseDeleted(id=response_id)

    @router.get(
        "/{response_id}/input_items",
        summary="List what a response answers",
        response_model=ItemList,
        responses=_NOT_KEPT | errors({400: "The page is wrong; `param` says where"}),
    )
    async def list_input_items(
        request: Request,
        response_id: str,
        after: str | None = None,
        limit: Annotated[str, Query(description="1 to 100")] = "20",
        order: Annotated[str, Query(description="`asc` or `desc`")] = "desc",
    ) -> ItemList:
        """The items of the conversation, those of earlier responses included; latest first unless `order` is `asc`."""
        found = await kept.load(request.scope["caller"].id, response_id)
        return _page(found.items, after=after, limit=_limit(limit), order=_order(order))

    return router


RESPONSES = Dialect(router=responses_router, models=(ResponsesRequest,))


def _limit(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= 100:
        raise InvalidRequest("The limit is a number from 1 to 100.", param="limit")
    return int(given)


def _order(given: str) -> Literal["asc", "desc"]:
    if given == "asc":
        return "asc"
    if given != "desc":
        raise InvalidRequest("The order is asc or desc.", param="order")
    return "desc"


def _page(items: list[dict[str, Any]], *, after: str | None, limit: int, order: Literal["asc", "desc"]) -> ItemList:
    """Some of the items, from the one after `after` on."""
    items = items if order == "asc" else items[::-1]
    start = 0
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequest("There is no such item.", param="after")
        start = place + 1
    page = items[start : start + limit]
    ids = [item["id"] for item in page]
    return ItemList(
        data=page,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=start + limit < len(items),
    )
