"""The simulated site over HTTP: the chat page, the message endpoint, and the control endpoints."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from simulator.failures import MESSAGE_FAILURES, PAGE_FAILURES, REFUSALS, Exchange, failing, too_long
from simulator.openai_api import api_routes
from simulator.openai_services import service_routes
from simulator.responses import JSON, Canned, Watched, json_response
from simulator.site import Post, Receipt, Site
from simulator.wordpress import render_page, send_json_success, settings_script

PAGE_PATH: Final = "/chat/"
AJAX_PATH: Final = "/wp-admin/admin-ajax.php"
CONTROL_PATH: Final = "/_simulator"
# Turns of the event loop from the end of a connection to the end of its request.
_TURNS_TO_LEAVE: Final = 5


def build_simulator(site: Site) -> Starlette:
    """The web application in front of `site`, to be served by `server.listen`."""
    return Starlette(routes=[*_chat_routes(site), *api_routes(site), *service_routes(site), *_control_routes(site)])


def _chat_routes(site: Site) -> Sequence[Route]:
    chat = _Chat(site)
    return (
        Route("/", chat.go_to_page),
        Route(PAGE_PATH, chat.serve_page),
        Route(AJAX_PATH, chat.answer_message, methods=["POST"]),
    )


class _Chat:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def go_to_page(self, _: Request) -> Response:
        return RedirectResponse(PAGE_PATH, 302)

    async def serve_page(self, request: Request) -> ASGIApp:
        visit = self._site.visit(
            cookies=request.cookies,
            user_agent=request.headers.get("User-Agent", ""),
            cacheable=not request.url.query,
        )
        await asyncio.sleep(visit.behaviour.page_latency_s)
        ajax_url = f"{request.url.scheme}://{request.url.netloc}{AJAX_PATH}"
        script = settings_script(ajax_url, visit.nonce, visit.behaviour.page_style)
        page = Canned(200, render_page(script))
        if visit.failure:
            return failing(PAGE_FAILURES, visit.failure, Exchange(visit.behaviour, page))
        response = page.response(visit.behaviour)
        for name, value in visit.cookies.items():
            response.set_cookie(name, value, httponly=True, samesite=None)
        return response

    async def answer_message(self, request: Request) -> ASGIApp:
        post = await _read_post(request)
        # Whoever has hung up by now isn't counted beside this message, though the loop may learn of it only next.
        for _ in range(_TURNS_TO_LEAVE):
            await asyncio.sleep(0)
        receipt = self._site.receive(post)
        return Watched(
            partial(_answer, receipt, self._site.reply_to(post.message)),
            ended=partial(self._site.finish, receipt),
            left=partial(self._site.abandon, receipt),
        )


async def _answer(receipt: Receipt, reply: str, scope: Scope, receive: Receive, send: Send) -> None:
    if receipt.verdict in ("accepted", receipt.failure):
        await asyncio.sleep(receipt.behaviour.latency_s)
    await _choose_answer(receipt, reply)(scope, receive, send)


def _choose_answer(receipt: Receipt, reply: str) -> ASGIApp:
    behaviour = receipt.behaviour
    healthy = Canned(200, send_json_success(reply), JSON)
    if receipt.failure:
        return failing(MESSAGE_FAILURES, receipt.failure, Exchange(behaviour, healthy))
    if receipt.verdict == "too_long":
        return too_long(behaviour).response(behaviour)
    return REFUSALS.get(receipt.verdict, healthy).response(behaviour)


async def _read_post(request: Request) -> Post:
    fields = await _read_form(request)
    return Post(
        action=fields.get("action", ""),
        nonce=fields.get("nonce", ""),
        message=fields.get("message", ""),
        model=fields.get("model", ""),
        session_id=fields.get("session_id", ""),
        user_agent=request.headers.get("User-Agent", ""),
        cookies=request.cookies,
    )


async def _read_form(request: Request) -> dict[str, str]:
    body = await request.body()
    if not request.headers.get("Content-Type", "").lower().startswith("application/x-www-form-urlencoded"):
        # As PHP does with a body that it can't read. (It reads multipart forms, too; no client of the site sends any.)
        return {}
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _control_routes(site: Site) -> Sequence[Route]:
    control = _Control(site)
    return (
        Route(CONTROL_PATH, control.show_state),
        Route(CONTROL_PATH, control.change_behaviour, methods=["PATCH"]),
        Route(f"{CONTROL_PATH}/rotate", control.rotate, methods=["POST"]),
        Route(f"{CONTROL_PATH}/reset", control.reset, methods=["POST"]),
        Route(f"{CONTROL_PATH}/messages", control.show_messages),
    )


class _Control:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def show_state(self, _: Request) -> Response:
        return self._state()

    async def change_behaviour(self, request: Request) -> Response:
        try:
            self._site.merge(await request.json())
        except ValueError as error:
            return json_response({"error": str(error)}, 400)
        return self._state()

    async def rotate(self, _: Request) -> Response:
        self._site.rotate()
        return self._state()

    async def reset(self, _: Request) -> Response:
        self._site.reset()
        return self._state()

    async def show_messages(self, _: Request) -> Response:
        return json_response({"messages": [asdict(message) for message in self._site.messages]})

    def _state(self) -> Response:
        site = self._site
        return json_response(
            {"behaviour": asdict(site.behaviour), "counters": asdict(site.counters), "api": asdict(site.api.counters)}
        )
