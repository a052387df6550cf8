"""What a model's vendor refuses never reaches it, whichever dialect asks; the client learns what was changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import UPSTREAM_KEY, LiveGateway

SAID = [{"role": "user", "content": "Hello"}]
PATHS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": SAID},
}
PROVIDERS = """
[[providers]]
name = "work"
base_url = "{url}"
models = ["plain", {{ id = "short", max_tokens = 500 }}]
"""


@pytest.fixture
def gateway(site: LiveSimulator, start_gateway: StartGateway, tmp_path: Path) -> Iterator[LiveGateway]:
    """A gateway with Moonshot, DeepSeek and a provider of the file, all simulated."""
    file = tmp_path / "providers.toml"
    file.write_text(PROVIDERS.format(url=site.api_url))
    settings = {"moonshot_api_key": UPSTREAM_KEY, "moonshot_base_url": site.api_url, "providers_file": str(file)}
    settings |= {"deepseek_api_key": UPSTREAM_KEY, "deepseek_base_url": site.api_url}
    with start_gateway(max_retries=0, **settings) as running:
        yield running


def _ask(gateway: LiveGateway, path: str, model: str, **fields: Any) -> httpx.Response:
    with gateway.client() as http:
        reply = http.post(path, json={**PATHS[path], "model": model, **fields})
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
        ("/v1/messages", "max_tokens"),
    ],
)
@pytest.mark.parametrize(("model", "most"), [("deepseek/deepseek-chat", 8192), ("work/short", 500)])
def test_a_longer_answer_than_the_model_gives_is_not_asked_for(
    gateway: LiveGateway, site: LiveSimulator, path: str, name: str, model: str, most: int, stream: bool
) -> None:
    """The largest one is, and the client's own name of the field is told; what fits is sent as it is."""
    reply = _ask(gateway, path, model, stream=stream, **{name: 32_000})
    assert site.site.api.requests[-1]["max_tokens"] == most
    assert reply.headers["x-ignored-params"] == name
    reply = _ask(gateway, path, model, stream=stream, **{name: most})
    assert site.site.api.requests[-1]["max_tokens"] == most
    assert "x-ignored-params" not in reply.headers


@pytest.mark.parametrize("path", PATHS)
def test_a_temperature_that_a_model_does_not_take_is_not_sent(
    gateway: LiveGateway, site: LiveSimulator, path: str
) -> None:
    """Models with a temperature of their own get none, listed or not; the others get it."""
    fields: dict[str, Any] = {"max_tokens": 100} if path == "/v1/messages" else {}
    for model in ("kimi-k2.5", "kimi-k2.6", "kimi-k2-thinking"):
        reply = _ask(gateway, path, f"moonshot/{model}", temperature=0.7, **fields)
        assert "temperature" not in site.site.api.requests[-1]
        assert reply.headers["x-ignored-params"] == "temperature"
    reply = _ask(gateway, path, "moonshot/kimi-k2-0905-preview", temperature=0.7, **fields)
    assert site.site.api.requests[-1]["temperature"] == 0.7
    assert "x-ignored-params" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_no_other_models_are_sent(gateway: LiveGateway, site: LiveSimulator, path: str) -> None:
    """Lists of other models, wherever a vendor has them, are left out and named; what is beside them is sent."""
    others: dict[str, Any] = {"models": ["b"], "Route": "fallback", "MODEL": "c", "extra_body": {"x": {"model": "d"}}}
    sent = {"provider": {"order": ["x"]}, "plugins": [{"id": "web"}]}
    reply = _ask(gateway, path, "work/plain", **others, **sent)
    assert site.site.api.requests[-1].items() >= sent.items()
    assert not site.site.api.requests[-1].keys() & others.keys()
    assert reply.headers["x-ignored-params"] == "MODEL, Route, extra_body, models"


def test_a_bound_that_nobody_knows_is_asked_of_the_operator(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The vendor's refusal of a too large `max_tokens` says where to set the right one."""
    site.site.update(api_failure="deepseek_max_tokens")
    with gateway.client() as http:
        reply = http.post("/v1/messages", json={"model": "work/plain", "max_tokens": 32_000, "messages": SAID})
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    assert "the valid range of max_tokens is [1, 8192]" in message
    assert "PROVIDERS_FILE" in message
