"""`python main.py doctor`: what works between here and the site, in plain words."""

from collections.abc import Mapping
from contextlib import AsyncExitStack

from app.build import build_registry
from app.domain.chat import Message
from app.domain.errors import ContextTooLong, GatewayError
from app.domain.prompt import PromptLimit, TextPrompt, compose, text_prompt
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec
from app.settings import Settings

_ADVICE = {
    "cloudflare_challenge": "Cloudflare wants a browser. Wait, or use another network address; there is no way around.",
    "nonce_missing": "Open CHAT_PAGE_URL in a browser: is it still the chat page? Then the site has changed.",
    "nonce_rejected": "The site takes no nonce from here. Is UPSTREAM_URL on the same host as CHAT_PAGE_URL?",
    "site_changed": "The site works differently now, or UPSTREAM_URL or KNOWN_MODELS is wrong.",
    "upstream_rate_limited": "The site asks for fewer requests. Wait, and lower UPSTREAM_CONCURRENCY.",
    "upstream_timeout": "The site is slow. Raise REQUEST_TIMEOUT if this happens often.",
    "upstream_blocked": "The site's firewall refuses this machine's address, or what it sends. Wait, or ask the site.",
    "upstream_refused": "The site takes no messages of this kind at the moment; its own words are above.",
    "content_filter": "The site refused the test message, which is harmless: its filter may refuse everything now.",
    "empty_reply": "The site's model gave no answer. Try again; if it stays so, try the other model.",
    "context_length_exceeded": "The site takes shorter messages than it used to: lower CONTEXT_MAX_LENGTH.",
    "upstream_unavailable": "The site is down, or can't be reached from here. Check the address, DNS and any proxy.",
}
_API_ADVICE = {
    "upstream_key_rejected": "Set the right key, or take this provider out.",
    "upstream_quota_exhausted": "Top up the account there, or take this provider out.",
    "upstream_rate_limited": "It asks for fewer requests. Wait, and try again.",
    "upstream_timeout": "It is slow, or something between here and there swallows the connection.",
    "upstream_unavailable": "It is down, or can't be reached from here. Check its address, DNS and any proxy.",
    "upstream_blocked": "A firewall there refuses this machine's address.",
    "site_changed": "Its address is wrong: it must end where /chat/completions begins, mostly with /v1.",
    "model_not_found": "Its first model is unknown there: check the names of its models.",
}
_LIMIT_FACTORS = (1.0, 1.5, 2.0, 4.0, 8.0)


async def run(settings: Settings, *, find_limit: bool) -> int:
    """Check the site step by step up to the first that fails, then every other upstream; returns the exit status."""
    registry = build_registry(settings)
    print(f"✓ settings: page {settings.chat_page_url}, models {', '.join(settings.known_models)}")
    async with AsyncExitStack() as stack:
        for provider in registry.providers:
            stack.push_async_callback(provider.aclose)
            await provider.start()
        target = registry.resolve(settings.default_model, "kimi-web")[0]
        well = await _check_site(target.provider, target.spec, find_limit=find_limit)
        for provider in registry.providers:
            if provider is not target.provider:
                well = await _check_upstream(provider) and well
    if well:
        print("All is well.")
    return 0 if well else 1


async def _check_site(provider: BaseProvider, spec: ModelSpec, *, find_limit: bool) -> bool:
    try:
        await _check_message(provider, spec)
        if find_limit:
            await _check_limit(provider, spec)
    except GatewayError as error:
        _tell(provider, error, _ADVICE)
        return False
    return True


async def _check_upstream(provider: BaseProvider) -> bool:
    try:
        await provider.connect()
    except GatewayError as error:
        _tell(provider, error, _API_ADVICE)
        return False
    print(f"✓ {provider.name}: it answers; {len(provider.models)} models")
    return True


def _tell(provider: BaseProvider, error: GatewayError, advice: Mapping[str, str]) -> None:
    print(f"✗ {provider.name}: {error.code or error.type}: {error.message}")
    print(f"  {advice.get(error.code or '', 'The message above is all that is known.')}")


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
