"""Google's SDK through the gateway to an upstream with Gemini's form of API: nothing is lost on the way."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.clients import google_sdk, native_upstreams
from tests.clients.native_upstreams import GEMINI, native_gateway
from tests.ledger.upstream import answers
from tests.live import UPSTREAM_KEY, LiveGateway
from tests.providers.openai_compatible.upstream import LAST_CHUNK, RawUpstream, chunked, event, reply

upstream = native_upstreams.upstream

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
METHODS = {False: "generateContent", True: "streamGenerateContent?alt=sse"}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
CALL = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Köln"}}, "thoughtSignature": "c2ln+/8="}
PARTS: list[dict[str, Any]] = [
    {"text": "Hm.", "thought": True},
    {"text": "So: ", "thoughtSignature": "AAAA"},
    CODE,
    CALL,
]
COUNTS = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 6,
    "totalTokenCount": 19,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
}
GROUNDING = {"webSearchQueries": ["rome weather"]}
PDF = {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0xLjQK"}}
FILE = {"fileData": {"fileUri": "https://example.test/video", "mimeType": "video/mp4"}}
# One that uses both of the names that fields have, and much that only Google knows.
REQUEST: dict[str, Any] = {
    "system_instruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [PDF, FILE, {"text": "Rome?"}]},
        {"role": "model", "parts": PARTS[:2]},
        {"role": "model", "parts": PARTS[2:]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"at": 1.5, "rain": None}}}]},
        {"role": "user", "parts": [{"text": "And now?"}]},
    ],
    "tools": [{"functionDeclarations": [{"name": "weather"}]}, {"googleSearch": {}}, {"code_execution": {}}],
    "generationConfig": {"temperature": 1.5, "thinkingConfig": {"thinkingBudget": 777}, "speechConfig": {"x": 1}},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "cachedContent": "cachedContents/1",
}
SENT = {"systemInstruction" if name == "system_instruction" else name: value for name, value in REQUEST.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """One gateway for all tests; each says how the upstream answers."""
    with native_gateway(tmp_path_factory.mktemp("native"), answer_cache_seconds=600) as both:
        yield both


@pytest.fixture
def gemini(served: tuple[LiveGateway, RawUpstream]) -> Iterator[genai.Client]:
    """Google's SDK."""
    with google_sdk.connect(served[0]) as client:
        yield client


@pytest.fixture
def http(served: tuple[LiveGateway, RawUpstream]) -> Iterator[httpx.Client]:
    """A client without an opinion on what is sent."""
    with served[0].client() as client:
        yield client


def document(*parts: dict[str, Any], end: str | None = "STOP") -> dict[str, Any]:
    """A document of an answer, or a whole one."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if end is None:
        return {"candidates": [candidate], "modelVersion": "gemini-3-own-name", "responseId": "own"}
    candidate |= {"finishReason": end, "groundingMetadata": GROUNDING}
    return {
        "candidates": [candidate],
        "usageMetadata": COUNTS,
        "modelVersion": "gemini-3-own-name",
        "responseId": "own",
    }


def will_say(upstream: RawUpstream, *parts: dict[str, Any], stream: bool, end: str = "STOP") -> list[dict[str, Any]]:
    """Answer every request so; returns the documents."""
    if not stream:
        documents = [document(*parts, end=end)]
        answers(upstream, reply(documents[0]))
        return documents
    # Several parts may come at once.
    pieces = [parts[:2], *([part] for part in parts[2:])]
    documents = [*(document(*piece, end=None) for piece in pieces), document(end=end)]
    answers(upstream, [*chunked(*map(event, documents)), LAST_CHUNK])
    return documents


def documents_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The documents of an answer, whole or in events."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()]
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def named(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same under the name that was asked for."""
    return [{**each, "modelVersion": GEMINI} for each in documents]


@STREAMED
def test_nothing_is_lost_between_a_client_and_gemini(http: httpx.Client, upstream: RawUpstream, stream: bool) -> None:
    """Request and answer are what they would be without the gateway, but for the model's name."""
    told = will_say(upstream, *PARTS, stream=stream)
    answer = http.post(f"/v1beta/models/{GEMINI}:{METHODS[stream]}", json=REQUEST)
    assert "x-ignored-params" not in answer.headers
    [sent] = upstream.requests
    assert sent.line.split()[1] == f"/v1beta/models/gemini-3-own-name:{METHODS[stream]}"
    assert sent.headers["x-goog-api-key"] == UPSTREAM_KEY
    assert json.dumps(sent.body, sort_keys=True) == json.dumps(SENT, sort_keys=True)
    assert documents_of(answer) == named(told)


@STREAMED
def test_the_sdk_gets_what_gemini_says(gemini: genai.Client, upstream: RawUpstream, stream: bool) -> None:
    """Code, calls, their signatures and what was searched for are all there."""
    will_say(upstream, *PARTS, stream=stream)
    arguments: Any = {"model": GEMINI, "contents": "Rome?"}
    found = (
        list(gemini.models.generate_content_stream(**arguments))
        if stream
        else [gemini.models.generate_content(**arguments)]
    )
    parts = [
        part
        for answer in found
        if answer.candidates and answer.candidates[0].content
        for part in google_sdk.parts_of(answer)
    ]
    assert [part.executable_code.code for part in parts if part.executable_code] == ["print(1)"]
    [call] = [part for part in parts if part.function_call]
    assert call.thought_signature == b"sig\xfb\xff"
    assert found[-1].candidates
    assert found[-1].candidates[0].grounding_metadata
    assert found[-1].candidates[0].grounding_metadata.web_search_queries == ["rome weather"]
    assert found[-1].usage_metadata
    assert found[-1].usage_metadata.thoughts_token_count == 6


@STREAMED
def test_a_kept_answer_loses_nothing_either(http: httpx.Client, upstream: RawUpstream, stream: bool) -> None:
    """It is the same again, and one that was streamed is none for a request that isn't."""
    told = will_say(upstream, {"text": f"Streamed: {stream}."}, CALL, stream=stream)
    asking = {"Cache-Control": "max-age=60"}
    address = f"/v1beta/models/{GEMINI}:{METHODS[stream]}"
    first, second = [http.post(address, json={"contents": SENT["contents"]}, headers=asking) for _ in range(2)]
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert documents_of(first) == documents_of(second) == named(told)
    assert len(upstream.requests) == 1


def test_a_session_s_history_is_added_and_the_rest_stays(http: httpx.Client, upstream: RawUpstream) -> None:
    """With a session the gateway adds what was said before; what the client sends now is sent as it came."""
    will_say(upstream, {"text": "Hello, Ada."}, stream=False)
    second = [{"parts": [{"text": "Who am I?"}, PDF]}]
    for contents in ({"parts": {"text": "I am Ada."}}, second):
        answer = http.post(
            f"/v1beta/models/{GEMINI}:generateContent",
            json={"contents": contents, "systemInstruction": SENT["systemInstruction"]},
            headers={"X-Session-Id": "ada"},
        )
    assert answer.headers["x-session-action"] == "continued"
    sent = upstream.requests[-1].body
    assert sent["systemInstruction"] == SENT["systemInstruction"]
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "I am Ada."}]},
        {"role": "model", "parts": [{"text": "Hello, Ada."}]},
        *second,
    ]


def test_what_only_gemini_can_do_is_asked_of_nobody_else(http: httpx.Client, upstream: RawUpstream) -> None:
    """Alone, an upstream of another form refuses files and Google's tools; Gemini's counts them as nothing."""
    body = {"contents": [{"parts": [FILE, {"text": "?"}]}]}
    refused = http.post("/v1beta/models/kimi-k2-instruct:generateContent", json=body)
    assert (refused.status_code, "inlineData" in refused.json()["error"]["message"]) == (400, True)
    counted = http.post(f"/v1beta/models/{GEMINI}:countTokens", json=body)
    assert counted.json() == {"totalTokens": 1}
    assert upstream.requests == []


@pytest.mark.parametrize(
    "fields",
    [{"fallbacks": ["another"]}, {"Model": "another"}, {"extra_body": {"models": ["another"]}}],
    ids=lambda fields: next(iter(fields)),
)
def test_no_other_model_is_sent(http: httpx.Client, upstream: RawUpstream, fields: dict[str, Any]) -> None:
    """Not every upstream of Gemini's form is Google's: another model than the one that was allowed could answer."""
    body = {"contents": [{"parts": [{"text": "Hi"}]}], **fields}
    refused = http.post(f"/v1beta/models/{GEMINI}:generateContent", json=body).json()["error"]
    assert (refused["code"], refused["status"]) == (400, "INVALID_ARGUMENT")
    assert refused["details"][1]["fieldViolations"][0]["field"] == next(iter(fields))
    assert upstream.requests == []


@STREAMED
def test_an_answer_of_nothing_is_passed_on(gemini: genai.Client, upstream: RawUpstream, stream: bool) -> None:
    """A prompt that Google blocks is told as Google tells it."""
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    }
    answers(upstream, [*chunked(event(blocked)), LAST_CHUNK] if stream else reply(blocked))
    arguments: Any = {"model": GEMINI, "contents": "Hi"}
    found = (
        list(gemini.models.generate_content_stream(**arguments))
        if stream
        else [gemini.models.generate_content(**arguments)]
    )
    feedback = [answer.prompt_feedback for answer in found if answer.prompt_feedback]
    assert [each.block_reason for each in feedback] == [types.BlockedReason.SAFETY]


def test_errors_have_their_meaning(gemini: genai.Client, upstream: RawUpstream) -> None:
    """The upstream's own key is the operator's business, and a limit there says when to come back."""
    wrong = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}
    answers(upstream, reply(wrong, "400 B"))
    with pytest.raises(errors.ServerError) as caught:
        gemini.models.generate_content(model=GEMINI, contents="Hi")
    assert (caught.value.code, UPSTREAM_KEY in str(caught.value)) == (502, False)
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0s"}
    limited = {"error": {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": [retry]}}
    answers(upstream, reply(limited, "429 T"))
    with pytest.raises(errors.ClientError) as also:
        gemini.models.generate_content(model=GEMINI, contents="Hi")
    assert (also.value.code, also.value.status) == (429, "RESOURCE_EXHAUSTED")


def test_a_stream_that_breaks_off_is_no_answer(gemini: genai.Client, upstream: RawUpstream) -> None:
    """After the first word an error is raised, and nothing makes the answer look complete."""
    answers(upstream, chunked(event(document({"text": "One,"}, end=None))))
    stream = gemini.models.generate_content_stream(model=GEMINI, contents="Hi")
    assert next(stream).text == "One,"
    with pytest.raises(errors.ServerError) as caught:
        list(stream)
    assert caught.value.status == "UNAVAILABLE"
