"""The OpenAI SDK at the endpoints that are passed on: embeddings, moderations, images, audio."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from random import randbytes
from typing import Any, TextIO

import pytest
from openai import APIConnectionError, APIStatusError, BadRequestError, OpenAI

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.openai_services import png, wav
from tests.clients.sdk import connect
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway, gateway_for, until
from tests.relaying import EMBEDDER, JUDGE, LISTENER, PAINTER, RANKER, SPEAKER, relaying

MEGABYTE = 1024 * 1024


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


def test_models_that_do_not_chat_have_no_conversation_s_length(sdk: OpenAI, relay: LiveGateway) -> None:
    """In any dialect: what makes speech or images takes no so many tokens of chat at a time."""
    models = {model.id: model.to_dict() for model in sdk.models.list()}
    assert models["kimi-latest"]["context_unit"] == "tokens"
    assert "tokens at a time" in str(models["kimi-latest"]["description"])
    with relay.client(ALICE_KEY) as client:
        for model in (SPEAKER, PAINTER, "small"):
            assert sdk.models.retrieve(model).to_dict() == models[model]
            assert not {"context_length", "context_unit"} & models[model].keys()
            assert str(models[model]["description"]).endswith(" at moonshot")
            of_anthropic = client.get(f"/v1/models/{model}", headers={"anthropic-version": "2023-06-01"}).json()
            of_gemini = client.get(f"/v1beta/models/{model}").json()
            assert of_anthropic["max_input_tokens"] is None
            assert "inputTokenLimit" not in of_gemini
            assert of_gemini["supportedGenerationMethods"] == []


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


def test_speech(sdk: OpenAI, tmp_path: Path) -> None:
    """Audio of megabytes comes through to the byte, by each of the SDK's ways."""
    text = "hello " * 300
    assert sdk.audio.speech.create(model=SPEAKER, voice="alloy", input=text).content == wav(text)
    with sdk.audio.speech.with_streaming_response.create(model=SPEAKER, voice="alloy", input=text) as answer:
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["content-length"] == str(len(wav(text)))
        answer.stream_to_file(tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").read_bytes() == wav(text)


@pytest.mark.parametrize("size", [1000, 3 * MEGABYTE], ids=["small", "large"])
def test_transcriptions(sdk: OpenAI, upstream: LiveSimulator, size: int) -> None:
    """The file arrives to the byte, with its name and all fields; only the model's name is another."""
    audio = randbytes(size)
    heard = sdk.audio.transcriptions.create(
        model="ear", file=("talk.wav", audio), language="en", timestamp_granularities=["word"], temperature=0.5
    )
    assert heard.text == "This is what was said."
    body = sent(upstream)
    assert (body["path"], body["model"], body["language"], body["temperature"]) == (
        *("/audio/transcriptions", LISTENER),
        *("en", "0.5"),
    )
    assert body["timestamp_granularities[]"] == "word"
    assert body["file"] == {"filename": "talk.wav", "size": size, "sha256": sha256(audio).hexdigest()}


def test_other_forms_of_transcriptions(sdk: OpenAI) -> None:
    """Plain text, segments, and events as they come."""
    file = ("talk.wav", b"RIFF")
    plain = sdk.audio.transcriptions.create(model=LISTENER, file=file, response_format="text")
    assert str(plain) == "This is what was said.\n"
    verbose = sdk.audio.transcriptions.create(model=LISTENER, file=file, response_format="verbose_json")
    assert verbose.language == "english"
    events = list(sdk.audio.transcriptions.create(model=LISTENER, file=file, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI
def test_translations(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """They go to an address of their own."""
    heard = sdk.audio.translations.create(model=LISTENER, file=("talk.wav", b"RIFF"))
    assert heard.text == "This is what was said."
    assert sent(upstream)["path"] == "/audio/translations"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI
def test_image_edits_and_variations(sdk: OpenAI, upstream: LiveSimulator) -> None:
    """Several images and a mask go along; a form without a model gets that of the first that can."""
    image, mask = png(64, 64), png(32, 32)
    edited = sdk.images.edit(model=PAINTER, image=[("a.png", image), ("b.png", image)], mask=mask, prompt="a hat")
    assert edited.data is not None
    assert base64.b64decode(edited.data[0].b64_json or "") == image
    assert (sent(upstream)["prompt"], sent(upstream)["mask"]["size"]) == ("a hat", len(mask))
    assert sdk.images.create_variation(image=("a.png", image)).data
    body = sent(upstream)
    assert (body["path"], body["model"], body["image"]["size"]) == ("/images/variations", PAINTER, len(image))


def test_image_edits_in_json(relay: LiveGateway, upstream: LiveSimulator) -> None:
    """Images by address or id need no form; what is said of them goes along. Other endpoints with files take none."""
    images = [{"image_url": "data:image/png;base64,AAAA"}, {"file_id": "file-1"}]
    body = {"model": PAINTER, "images": images, "prompt": "a hat", "stream": False}
    with relay.client() as http:
        answer = http.post("/v1/images/edits", json=body, headers={"content-type": "Application/JSON; charset=utf-8"})
        assert answer.json()["data"][0]["b64_json"]
        received = sent(upstream)
        assert (received["path"], received["images"], received["model"]) == ("/images/edits", images, PAINTER)
        refused = http.post("/v1/images/variations", json=body)
    assert (refused.status_code, "must be a form" in refused.text) == (400, True)


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form with these heads and values, and the headers that go with it."""
    written = [b"--xyz\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (h.encode(), v) for h, v in parts]
    return b"".join([*written, b"--xyz--\r\n"]), {"content-type": "multipart/form-data; boundary=xyz"}


MODEL_PART, AUDIO_PART = ('name="model"', b"listen"), ('name="file"; filename="a.wav"', bytes(MEGABYTE))


@pytest.mark.parametrize(
    ("parts", "provider"), [((AUDIO_PART, MODEL_PART), "deepseek"), ((MODEL_PART, AUDIO_PART), None)]
)
def test_an_upload_is_sent_again_if_it_is_all_here(
    relay: LiveGateway, upstream: LiveSimulator, parts: Any, provider: str | None
) -> None:
    """A file that came before its model was kept, and goes to the next upstream when the first fails. One that was
    passed on while it came is gone: the client is told of the failure."""
    upstream.site.update(api_failure="openai_error", api_failure_times=1)
    upstream.site.api.reset()
    body, headers = form(*parts)
    with relay.client() as http:
        answer = http.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert answer.headers.get("x-provider") == provider
    if provider is None:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
        assert upstream.site.api.counters.requests == 1
    assert sent(upstream)["file"]["size"] == MEGABYTE


def test_an_upload_may_not_name_two_models(relay: LiveGateway, upstream: LiveSimulator) -> None:
    """A second model behind the file is refused though the first part has gone, and no upstream gets the whole."""
    upstream.site.update(api_failure=None)
    upstream.site.api.reset()
    body, headers = form(MODEL_PART, AUDIO_PART, ('name="Model"', b"another"))
    with relay.client() as http:
        answer = http.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert upstream.site.api.counters.answered == 0


def test_uploads_are_bounded(upstream: LiveSimulator, log_stream: TextIO) -> None:
    """MAX_UPLOAD_BYTES counts for them alone, whether the client tells its size or not."""
    body, headers = form(MODEL_PART, AUDIO_PART)

    def in_chunks() -> Iterator[bytes]:
        yield body

    settings = {"max_upload_bytes": 500_000, "max_body_bytes": 2000}
    with relaying(upstream, log_stream, **settings) as gateway, gateway.client() as http:
        for content in (body, in_chunks()):
            answer = http.post("/v1/audio/transcriptions", content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
            assert "MAX_UPLOAD_BYTES" in answer.json()["error"]["message"]
        small, headers = form(MODEL_PART, ('name="file"; filename="a.wav"', bytes(10_000)))
        assert http.post("/v1/audio/transcriptions", content=small, headers=headers).status_code == 200
        for path in ("/v1/embeddings", "/v1/images/edits"):  # JSON is held in memory
            answer = http.post(path, json={"model": "small", "input": "x" * 3000})
            assert "MAX_BODY_BYTES" in answer.json()["error"]["message"]


def test_a_client_that_leaves_within_its_upload_ends_it(relay: LiveGateway, upstream: LiveSimulator) -> None:
    """Half a file isn't an answered request; the gateway goes on serving."""
    upstream.site.update(api_failure=None)
    body, headers = form(MODEL_PART, AUDIO_PART)
    with closing(HTTPConnection(relay.base_url.removeprefix("http://"), timeout=WAIT_SECONDS)) as connection:
        connection.putrequest("POST", "/v1/audio/transcriptions")
        headers |= {"Authorization": f"Bearer {ALICE_KEY}", "Content-Length": str(len(body))}
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[: MEGABYTE // 2])
    with relay.client() as http:
        until(lambda: 'model="ear",outcome="abandoned"' in http.get("/metrics").text)
        assert http.post("/v1/audio/transcriptions", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 7}', b'{"input": NaN, "model": "small"}'])
def test_what_is_no_request_is_refused(relay: LiveGateway, body: bytes) -> None:
    """A body that can't be read, or names no model, is a 400."""
    with relay.client() as http:
        answer = http.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
