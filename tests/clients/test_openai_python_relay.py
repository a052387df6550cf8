"""The OpenAI SDK at the endpoints that are passed on: embeddings, moderations, images."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any, TextIO

import pytest
from openai import APIConnectionError, APIStatusError, BadRequestError, OpenAI

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.openai_services import png
from tests.clients.sdk import connect
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway, gateway_for

EMBEDDER, PAINTER, JUDGE, RANKER = "text-embedding-3-small", "gpt-image-1", "omni-moderation-latest", "bge-reranker-v2"
MODELS = ",".join((f"small={EMBEDDER}", EMBEDDER, PAINTER, JUDGE, RANKER, "kimi-latest"))


@contextmanager
def relaying(site: LiveSimulator, log: TextIO, **settings: object) -> Iterator[LiveGateway]:
    """A gateway with two upstreams with an API, both of them the simulator."""
    values: dict[str, object] = {
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": site.api_url,
        "moonshot_models": MODELS,
        "deepseek_api_key": "sk-simulated",
        "deepseek_base_url": site.api_url,
        "deepseek_models": f"second={EMBEDDER}",
        "model_routes": "either=small>second",
        "max_retries": 0,
        **settings,
    }
    with gateway_for(site, log, **values) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def upstream() -> Iterator[LiveSimulator]:
    """The simulated site and its API."""
    with running(Behaviour()) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def relay(upstream: LiveSimulator, log_stream: TextIO) -> Iterator[LiveGateway]:
    """A gateway in front of it."""
    with relaying(upstream, log_stream) as gateway:
        yield gateway


@pytest.fixture
def sdk(relay: LiveGateway, upstream: LiveSimulator) -> Iterator[OpenAI]:
    """The SDK, at an upstream in good order."""
    upstream.site.update(api_failure=None, api_latency_s=0)
    upstream.site.api.reset()
    with connect(relay) as client:
        yield client


def sent(upstream: LiveSimulator) -> dict[str, Any]:
    """What the upstream was sent last."""
    return dict(upstream.site.api.requests[-1])


def test_embeddings(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """Vectors come through exactly, packed as the SDK wants them or as numbers; the model goes by its upstream's name,
    fields that nobody here knows go along."""
    texts = ["你好 👩‍👧", "two"]
    packed = sdk.embeddings.create(model="small", input=texts, extra_body={"input_type": "query"})
    plain = sdk.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert [row.embedding for row in packed.data] == [row.embedding for row in plain.data]
    assert len({tuple(row.embedding) for row in plain.data}) == 2
    assert plain.usage.prompt_tokens > 0
    first = upstream.site.api.requests[0]
    assert (first["path"], first["model"], first["input"]) == ("/embeddings", EMBEDDER, texts)
    assert (first["input_type"], first["encoding_format"]) == ("query", "base64")


def test_moderations(sdk: OpenAI) -> None:
    """Several texts are judged; without a model, by the first one that can."""
    judged = sdk.moderations.create(input=["I love you", "I kill you"])
    assert [result.flagged for result in judged.results] == [False, True]
    assert judged.model == JUDGE


def test_images(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """An image of megabytes comes through to the byte, with its usage."""
    made = sdk.images.generate(model=PAINTER, prompt="a cat", size="1024x1024")
    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == png(1024, 1024)
    assert made.usage is not None
    assert sent(upstream)["prompt"] == "a cat"


def test_streamed_images(sdk: OpenAI) -> None:
    """Partial images and the end come as events."""
    events = list(sdk.images.generate(model=PAINTER, prompt="a cat", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]


def test_rerank(relay: LiveGateway) -> None:
    """The best document comes first. (OpenAI's SDK has no method for it.)"""
    with relay.client() as http:
        body = {"model": RANKER, "query": "red fish", "documents": ["a blue bird", "a red fish"]}
        answer = http.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.headers["x-provider"]) == (200, "moonshot")
    assert [row["index"] for row in answer.json()["results"]] == [1, 0]


def test_a_model_that_can_t_names_one_that_can(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """The site's model, a chat model of an upstream and an image model make no embeddings; nothing is sent."""
    for model in ("kimi", "kimi-latest", PAINTER):
        with pytest.raises(BadRequestError) as error:
            sdk.embeddings.create(model=model, input="x")
        assert (error.value.param, error.value.code) == ("model", "unsupported_value")
        assert f"The model {model!r} can't make embeddings. 'either' can." in error.value.message
    assert upstream.site.api.requests == ()


def test_without_an_upstream_with_an_api_nothing_can(upstream: LiveSimulator, log_stream: TextIO) -> None:
    """A gateway with the site alone says that it takes another upstream."""
    with gateway_for(upstream, log_stream) as gateway, connect(gateway) as client:
        with pytest.raises(BadRequestError, match="No upstream here can: that takes one with an API"):
            client.embeddings.create(model="kimi", input="x")
        with pytest.raises(BadRequestError, match="Name a model"):
            client.moderations.create(input="x")


def test_an_unknown_model_of_an_upstream_is_passed_on(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """The upstream knows best what a model does that nobody here knows."""
    sdk.embeddings.create(model="moonshot/brand-new", input="x")
    assert sent(upstream)["model"] == "brand-new"


def test_models_say_what_they_can_do(sdk: OpenAI) -> None:
    """A model that makes embeddings is listed with that alone, a chat model with what it was."""
    models = {model.id: model.to_dict()["abilities"] for model in sdk.models.list()}
    assert models["small"] == ["embeddings"]
    assert models[RANKER] == ["rerank"]
    assert "tools" in str(models["kimi-latest"])


def test_another_upstream_steps_in(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """When the first of a route fails, the next one is asked, and the headers say so."""
    upstream.site.update(api_failure="openai_error", api_failure_times=1)
    raw = sdk.embeddings.with_raw_response.create(model="either", input="x")
    assert raw.headers["x-provider"] == "deepseek"
    assert raw.headers["x-fallback"] == "moonshot=upstream_unavailable"
    assert raw.parse().data


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ("openai_key", 502, "upstream_key_rejected"),
        ("openai_rate", 429, "upstream_rate_limited"),
        ("openai_quota", 502, "upstream_quota_exhausted"),
        ("openai_context", 400, "context_length_exceeded"),
        ("moonshot_risk", 400, "content_filter"),
        ("no_such_url", 502, "site_changed"),
        ("error_with_200", 429, "upstream_rate_limited"),
        ("html", 502, "unexpected_reply"),
        ("nothing", 502, "unexpected_reply"),
        ("reset", 503, "upstream_unavailable"),
    ],
)
def test_failures_are_translated(
    upstream: LiveSimulator, log_stream: TextIO, failure: str, status: int, code: str
) -> None:
    """What the upstream says in its own words is said in the gateway's, without anything that is secret."""
    upstream.site.update(api_failure=failure)
    with relaying(upstream, log_stream) as gateway, connect(gateway) as client, pytest.raises(APIStatusError) as error:
        client.embeddings.create(model="small", input="x")
    assert (error.value.status_code, error.value.code) == (status, code)
    assert "sk-simu" not in error.value.message
    assert upstream.base_url not in error.value.message
    assert error.value.param in (None, "input")


def test_an_answer_that_breaks_off_is_seen_to(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """Half an image is no image: the connection ends before the body does."""
    upstream.site.update(api_failure="reset_mid_answer")
    with pytest.raises(APIConnectionError):
        sdk.images.generate(model=PAINTER, prompt="a cat", size="512x512")


def test_a_client_that_leaves_ends_the_call(relay: LiveGateway, upstream: LiveSimulator) -> None:
    """Whether it leaves before the answer or within it, the upstream's request ends as well."""
    upstream.site.api.reset()
    body = json.dumps({"model": PAINTER, "prompt": "a cat", "size": "512x512"})
    for number, failure in enumerate(("hang", "hang_mid_answer"), 1):
        upstream.site.update(api_failure=failure)
        with closing(HTTPConnection(relay.base_url.removeprefix("http://"), timeout=WAIT_SECONDS)) as connection:
            connection.request("POST", "/v1/images/generations", body, {"Authorization": f"Bearer {ALICE_KEY}"})
            assert upstream.site.api.wait_for(lambda counters: counters.in_flight == 1)
            if failure == "hang_mid_answer":
                assert connection.getresponse().read(100_000)
        assert upstream.site.api.wait_for(lambda counters, left=number: counters.abandoned == left)  # type: ignore[misc]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 7}', b'{"input": NaN, "model": "small"}'])
def test_what_is_no_request_is_refused(relay: LiveGateway, body: bytes) -> None:
    """A body that can't be read, or names no model, is a 400."""
    with relay.client() as http:
        answer = http.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
