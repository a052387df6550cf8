"""`main.py doctor`: what works between here and the upstreams, in plain words."""

import argparse
import asyncio
import importlib
from collections.abc import Sequence
from contextlib import AsyncExitStack

from app.assembly.app import create_app
from app.assembly.limits import unknown_upstreams
from app.assembly.providers import build_registry
from app.assembly.stores import session_store
from app.domain.chat import Message
from app.domain.counting import counted
from app.domain.errors import ContextTooLong, GatewayError, SessionStoreUnavailable
from app.domain.prompt import PromptLimit, TextPrompt, compose, text_prompt
from app.domain.spans import no_trace
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec
from app.settings import Settings, SettingsError, load_settings

_LIMIT_FACTORS = (1.0, 1.5, 2.0, 4.0, 8.0)


def run(options: argparse.Namespace) -> int:
    """Say what works, and return the exit status."""
    if options.settings:
        create_app(load_settings())
        print("✓ settings: nothing is wrong with them.")
        return 0
    return asyncio.run(_check(load_settings(), find_limit=options.limit))


async def _check(settings: Settings, *, find_limit: bool) -> int:
    """Check the session store, the site step by step up to the first that fails, then every other upstream."""
    registry = build_registry(settings)
    print(f"✓ settings: page {settings.site.page_url}, models {', '.join(settings.models.known)}")
    stores_work = await _check_sessions(settings)
    has_database = _check_database(settings)
    stores_work = has_database and stores_work
    if has_database:
        _check_limits(settings, [provider.name for provider in registry.providers])
    async with AsyncExitStack() as stack:
        for provider in registry.providers:
            stack.push_async_callback(provider.aclose)
            await provider.start()
        target = registry.resolve(settings.models.of_site, "kimi-web")[0]
        well = await _check_site(target.provider, target.spec, find_limit=find_limit)
        for provider in registry.providers:
            if provider is not target.provider:
                well = await _check_upstream(provider) and well
    if well and stores_work:
        print("All is well.")
        return 0
    return 1


async def _check_sessions(settings: Settings) -> bool:
    store = session_store(settings, no_trace)
    try:
        print(f"✓ sessions: {await store.check()}")
    except SessionStoreUnavailable as error:
        print(f"✗ sessions: {error.code}: {store.fault() or error.message}")
        print(f"  {error.advice}")
        return False
    finally:
        await store.aclose()
    return True


def _check_database(settings: Settings) -> bool:
    if not settings.database.enabled:
        print("✓ database: none (DATABASE_URL), so there are only the keys of API_MASTER_KEY")
        return True
    # Imported only now: SQLAlchemy is large, and not every gateway has a database.
    module = importlib.import_module("app.assembly.database")
    try:
        print(f"✓ database: {module.describe(settings.database)}")
    except SettingsError as error:
        print(f"✗ database: {error}")
        return False
    return True


def _check_limits(settings: Settings, names: Sequence[str]) -> None:
    """Point out limits of upstreams that don't exist; they may be added later."""
    if settings.database.enabled:
        names = [*names, *importlib.import_module("app.assembly.database").upstream_names(settings.database)]
    for name, nearest in unknown_upstreams(settings.limits, names).items():
        hint = f" (did you mean {nearest!r}?)" if nearest else ""
        print(f"! limits: UPSTREAM_LIMITS names {name!r}, but no upstream is called so{hint}")


async def _check_site(provider: BaseProvider, spec: ModelSpec, *, find_limit: bool) -> bool:
    try:
        await _check_message(provider, spec)
        if find_limit:
            await _check_limit(provider, spec)
    except GatewayError as error:
        _tell(provider, error)
        return False
    return True


async def _check_upstream(provider: BaseProvider) -> bool:
    try:
        await provider.connect()
    except GatewayError as error:
        _tell(provider, error)
        return False
    print(f"✓ {provider.name}: it answers; {counted(len(provider.models), 'model')}")
    return True


def _tell(provider: BaseProvider, error: GatewayError) -> None:
    print(f"✗ {provider.name}: {error.code or error.type}: {error.message}")
    if error.reason:
        print(f"  Reason: {error.reason}{f' ({error.server})' if error.server else ''}.")
    print(f"  {error.advice or 'The message above is all that is known.'}")


async def _check_message(provider: BaseProvider, spec: ModelSpec) -> None:
    await provider.connect()
    print("✓ page: " + ", ".join(f"{name} {state}" for name, state in provider.status().details.items()))
    prompt = compose([Message("user", "Please answer with the single word OK.")], spec.prompt_limit)
    answer = await _ask(provider, spec, prompt)
    print(f"✓ message: {spec.id} answered {answer[:80]!r}")


async def _check_limit(provider: BaseProvider, spec: ModelSpec) -> None:
    """Send longer and longer messages until the site refuses one."""
    accepted = 0
    for factor in _LIMIT_FACTORS:
        size = int(spec.prompt_limit.size * factor)
        text = ("Just say OK. " * size)[:size]
        try:
            await _ask(provider, spec, text_prompt(text, size, PromptLimit(size, spec.prompt_limit.unit)))
        except ContextTooLong:
            print(f"✓ limit: {accepted} characters are accepted, {size} are not")
            return
        accepted = size
    print(f"✓ limit: even {accepted} characters are accepted; CONTEXT_MAX_LENGTH may be raised")


async def _ask(provider: BaseProvider, spec: ModelSpec, prompt: TextPrompt) -> str:
    request = CompletionRequest(model=spec, prompt=prompt, caller_id="doctor")
    return (await provider.create_completion(request)).text
