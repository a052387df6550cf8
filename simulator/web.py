"""The simulated site over HTTP: the chat page, the message endpoint, and the control endpoints."""

import asyncio
from dataclasses import asdict
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from simulator.failures import (
    JSON,
    MESSAGE_FAILURES,
    PAGE_FAILURES,
    REFUSALS,
    Canned,
    Exchange,
    fail,
    too_long,
)
from simulator.openai_api import add_openai_api
from simulator.site import Post, Receipt, Site
from simulator.wordpress import render_page, send_json_success, settings_script

PAGE_PATH: Final = "/chat/"
AJAX_PATH: Final = "/wp-admin/admin-ajax.php"
_LARGEST_FORM: Final = 64 * 1024 * 1024
_SITE: Final = web.AppKey("site", Site)


def build_simulator(site: Site) -> web.Application:
    """The web application in front of `site`.

    Run it with `handler_cancellation=True`, or clients that leave are not noticed.
    """
    application = web.Application(client_max_size=_LARGEST_FORM, middlewares=[_tolerate_leaving])
    application[_SITE] = site
    application.on_shutdown.append(_forget_in_flight)
    application.router.add_get("/", _go_to_page)
    application.router.add_get(PAGE_PATH, _serve_page)
    application.router.add_post(AJAX_PATH, _answer_message)
    add_openai_api(application, site)
    application.router.add_get("/_simulator", _show_state)
    application.router.add_patch("/_simulator", _change_behaviour)
    application.router.add_post("/_simulator/rotate", _rotate)
    application.router.add_post("/_simulator/reset", _reset)
    application.router.add_get("/_simulator/messages", _show_messages)
    return application


@web.middleware
async def _tolerate_leaving(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A client that leaves while it is written to is none of the server's errors."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response()


async def _forget_in_flight(application: web.Application) -> None:
    application[_SITE].forget_in_flight()


async def _go_to_page(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(PAGE_PATH)


async def _serve_page(request: web.Request) -> web.StreamResponse:
    visit = request.app[_SITE].visit(
        cookies=request.cookies,
        user_agent=request.headers.get("User-Agent", ""),
        cacheable=not request.query_string,
    )
    await asyncio.sleep(visit.behaviour.page_latency_s)
    ajax_url = f"{request.scheme}://{request.host}{AJAX_PATH}"
    script = settings_script(ajax_url, visit.nonce, visit.behaviour.page_style)
    page = Canned(200, render_page(script))
    if visit.failure:
        return await fail(PAGE_FAILURES, visit.failure, Exchange(request, visit.behaviour, page))
    response = page.response(visit.behaviour)
    for name, value in visit.cookies.items():
        response.set_cookie(name, value, path="/", httponly=True)
    return response


async def _answer_message(request: web.Request) -> web.StreamResponse:
    site = request.app[_SITE]
    post = await _read_post(request)
    receipt = site.receive(post)
    try:
        response = await _respond(request, receipt, site.reply_to(post.message))
    except (asyncio.CancelledError, ConnectionError):
        site.abandon(receipt)
        raise
    # Before the last byte goes out: whoever has the answer finds it counted.
    site.finish(receipt)
    return response


async def _respond(request: web.Request, receipt: Receipt, reply: str) -> web.StreamResponse:
    behaviour = receipt.behaviour
    if receipt.verdict in ("accepted", receipt.failure):
        await asyncio.sleep(behaviour.latency_s)
    healthy = Canned(200, send_json_success(reply), JSON)
    if receipt.failure:
        return await fail(MESSAGE_FAILURES, receipt.failure, Exchange(request, behaviour, healthy))
    if receipt.verdict == "too_long":
        return too_long(behaviour).response(behaviour)
    return REFUSALS.get(receipt.verdict, healthy).response(behaviour)


async def _read_post(request: web.Request) -> Post:
    texts = await _read_form(request)
    return Post(
        action=texts.get("action", ""),
        nonce=texts.get("nonce", ""),
        message=texts.get("message", ""),
        model=texts.get("model", ""),
        session_id=texts.get("session_id", ""),
        user_agent=request.headers.get("User-Agent", ""),
        cookies=dict(request.cookies),
    )


async def _read_form(request: web.Request) -> dict[str, str]:
    try:
        form = await request.post()
    except (ValueError, LookupError):
        # PHP makes an empty form of a body that it can't read.
        return {}
    return {name: value for name, value in form.items() if isinstance(value, str)}


async def _show_state(request: web.Request) -> web.StreamResponse:
    return _state(request.app[_SITE])


async def _change_behaviour(request: web.Request) -> web.StreamResponse:
    site = request.app[_SITE]
    try:
        site.merge(await request.json())
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
    return _state(site)


async def _rotate(request: web.Request) -> web.StreamResponse:
    request.app[_SITE].rotate()
    return _state(request.app[_SITE])


async def _reset(request: web.Request) -> web.StreamResponse:
    request.app[_SITE].reset()
    return _state(request.app[_SITE])


async def _show_messages(request: web.Request) -> web.StreamResponse:
    return web.json_response({"messages": [asdict(message) for message in request.app[_SITE].messages]})


def _state(site: Site) -> web.Response:
    return web.json_response(
        {"behaviour": asdict(site.behaviour), "counters": asdict(site.counters), "api": asdict(site.api.counters)}
    )
