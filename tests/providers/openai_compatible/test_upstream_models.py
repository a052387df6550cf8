"""Which models a provider has: configured, discovered, or asked for by name."""

import asyncio
import contextlib
from typing import Any

import pytest

from app.domain.errors import GatewayError, SiteChanged, UpstreamKeyRejected
from tests.providers.openai_compatible.upstream import MODEL, make_guard, provider_at, raw_upstream, reply

LIST: dict[str, Any] = {
    "object": "list",
    "data": [
        {"id": "vendor-m", "context_length": 5},
        {"id": "big", "max_model_len": 4096, "owned_by": "them"},
        {"id": "plain", "owned_by": "\ud800"},
        {"id": ""},
        {"id": "half a pair \ud800"},
        {"name": "no id"},
        "nonsense",
        {"id": "plain", "context_length": 9},
    ],
}


async def test_the_upstream_s_own_list_is_added_to_what_is_configured() -> None:
    """Sizes under any of their names are taken over; configured models and nonsense are not listed again."""
    async with raw_upstream(reply(LIST)) as upstream, provider_at(upstream.base_url, discover=True) as provider:
        await provider.connect()
        assert [spec.id for spec in provider.models] == ["m", "big", "plain"]
        big, plain = provider.find("big"), provider.find("plain")
    assert big is not None
    assert plain is not None
    assert (big.prompt_limit.size, big.owned_by) == (4096, "them")
    assert (plain.prompt_limit.size, plain.owned_by) == (9, "acme")
    assert big.abilities == plain.abilities == {"messages", "options"}


@pytest.mark.parametrize("broken", [reply(b"", "500 Oops"), reply({"data": None}), reply(b"<html>")])
async def test_start_waits_for_nobody_and_a_failure_loses_nothing(broken: list[bytes]) -> None:
    """The list is read in the background; while it can't be, the configured models are there."""
    async with raw_upstream(broken) as upstream, provider_at(upstream.base_url, discover=True) as provider:
        assert list(provider.models) == [MODEL]
        await asyncio.wait_for(upstream.asked.wait(), 10)
        with contextlib.suppress(GatewayError):
            await provider.connect()
        assert list(provider.models) == [MODEL]
        assert provider.status().ready


async def test_any_model_can_be_asked_for_where_that_is_allowed() -> None:
    """The upstream's own names work too; what is only guessed is marked as not listed."""
    async with (
        provider_at("http://127.0.0.1:9/v1") as strict,
        provider_at("http://127.0.0.1:9/v1", any_model=True) as free,
    ):
        assert strict.find("m") == strict.find("vendor-m") == MODEL
        assert strict.find("x/y-1") is None
        guessed = free.find("x/y-1")
        assert free.find("x" * 1000) is None
    assert guessed is not None
    assert (guessed.id, guessed.upstream_id, guessed.listed) == ("acme/x/y-1", "x/y-1", False)


async def test_connecting_costs_a_list_or_a_word() -> None:
    """The list of models is fetched; where there is none, one token is asked for."""
    word = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}]}
    async with raw_upstream(reply(b"", "404 No"), reply(word)) as upstream, provider_at(upstream.base_url) as provider:
        await provider.connect()
    assert [sent.line.split()[:2] for sent in upstream.requests] == [
        ["GET", "/v1/models"],
        ["POST", "/v1/chat/completions"],
    ]
    assert upstream.requests[1].body["max_tokens"] == 1


async def test_connecting_finds_a_wrong_key_and_a_wrong_address() -> None:
    """What the first request would run into is found before it."""
    async with raw_upstream(reply({"error": {"message": "no"}}, "401 No")) as upstream:
        async with provider_at(upstream.base_url) as provider:
            with pytest.raises(UpstreamKeyRejected):
                await provider.connect()
        upstream.answers = [reply(b"<html>", "404 No", "text/html")]
        async with provider_at(upstream.base_url, guard=make_guard()) as provider:
            with pytest.raises(SiteChanged):
                await provider.connect()


@pytest.mark.parametrize(
    "rows",
    [
        {"data": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"name": "a"}, {"name": "b"}]},
        {"data": {"models": [{"id": "a"}, {"id": "b"}]}},
        {"data": {"a": {"context_length": 1}, "b": {}}},
        {"object": "list", "data": None, "models": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
        ["a", "b"],
        {"data": ["a", "b"]},
    ],
)
async def test_lists_of_models_in_the_forms_that_vendors_give_them(rows: object) -> None:
    """Under other names, bare, as names alone."""
    async with raw_upstream(reply(rows)) as upstream, provider_at(upstream.base_url, discover=True) as provider:
        await provider.connect()
        assert [spec.id for spec in provider.models] == ["m", "a", "b"]
