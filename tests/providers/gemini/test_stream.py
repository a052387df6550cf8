"""How Gemini's answers are read, and its models found."""

from typing import Any

import pytest

from app.domain.chat import Delta, ToolCallDelta, Usage
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply, UpstreamQuotaExhausted, UpstreamUnavailable
from app.providers.api_upstream.failure import failure
from app.providers.api_upstream.upstream import Upstream
from app.providers.gemini.failure import gemini_fault
from app.providers.gemini.provider import GeminiProvider
from app.providers.gemini.stream import ContentReader
from app.providers.http import HttpClient, HttpReply
from tests.providers.openai_compatible.upstream import MODEL, make_guard, raw_upstream, reply, wanted


def read(*documents: dict[str, Any], most: int = 1000) -> list[Delta]:
    """All deltas of an answer."""
    reader = ContentReader("gemini", most)
    deltas = [delta for document in documents for delta in reader.feed(document)]
    return [*deltas, *reader.end()]


def said(*parts: dict[str, Any], end: str | None = None, **fields: Any) -> dict[str, Any]:
    """A document of an answer."""
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": end}], **fields}


def test_thoughts_texts_and_calls() -> None:
    """Each part is what it is; signatures come with the call or the text that they are of."""
    call = {"functionCall": {"id": "c", "name": "look", "args": {"at": 1}}, "thoughtSignature": "sig"}
    deltas = read(said({"text": "Hm.", "thought": True}), said({"text": "Hi."}, call), said(end="STOP"))
    signed = {"extra_content": {"google": {"thought_signature": "sig"}}}
    assert deltas == [
        Delta(reasoning="Hm."),
        Delta("Hi."),
        Delta(tool_call=ToolCallDelta(0, "c", "look", '{"at":1}', signed)),
        Delta(finish_reason="tool_calls"),
    ]
    assert read(said({"thoughtSignature": "sig"}, {"text": "Hi."}))[0] == Delta(extras=signed)


def test_calls_without_ids_get_some() -> None:
    """Every call has an id of its own: clients answer by it."""
    call = {"functionCall": {"name": "look"}}
    first, second = [delta.tool_call for delta in read(said(call, call))[:2]]
    assert first is not None
    assert second is not None
    assert (first.index, first.arguments, second.index) == (0, "{}", 1)
    assert first.id != second.id
    assert first.id
    assert second.id


def test_an_image_of_the_model_s_is_no_text() -> None:
    """It comes in the form in which chat completions have images."""
    [image, _] = read(said({"inlineData": {"mimeType": "image/png", "data": "aGk="}}))
    assert image.extras == {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}


def test_what_was_thought_is_counted_with_what_was_written() -> None:
    """The last count is the whole one."""
    counts = {"promptTokenCount": 9, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "cachedContentTokenCount": 5}
    first = said({"text": "Hi"}, usageMetadata={"promptTokenCount": 9})
    assert read(first, said(end="STOP", usageMetadata=counts))[-1].usage == Usage(9, 10, 5, 6)
    assert (
        read(said({"text": "Hi"}, usageMetadata={"promptTokenCount": "9", "candidatesTokenCount": -1}))[-1].usage
        is None
    )


@pytest.mark.parametrize(
    ("end", "meant"),
    [
        *(("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter")),
        *(("OTHER", "stop"), ("FINISH_REASON_UNSPECIFIED", "stop"), ("NEW_ONE", "stop"), (None, "stop")),
    ],
)
def test_every_reason_has_a_meaning(end: str | None, meant: str) -> None:
    """Those that nobody knows are ends like any other."""
    assert read(said({"text": "Hi"}, end=end))[-1].finish_reason == meant


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, MessageRefused),
        (said(end="PROHIBITED_CONTENT"), MessageRefused),
        (said(end="STOP"), EmptyReply),
        ({}, EmptyReply),
        (said({"text": "Hi"}, end="MALFORMED_FUNCTION_CALL"), UpstreamUnavailable),
        (said({"text": "x" * 2000}), UnexpectedReply),
    ],
)
def test_what_is_no_answer(document: dict[str, Any], error: type[Exception]) -> None:
    """A blocked prompt, nothing, a failed call and too much are errors of their own."""
    with pytest.raises(error):
        read(document)


def test_odd_documents_do_no_harm() -> None:
    """What makes no sense is passed over."""
    odd: list[Any] = [
        {"candidates": None},
        {"candidates": [7, {"index": 1, "content": {"parts": [{"text": "other"}]}}]},
        {"candidates": [{"content": []}]},
        {"candidates": [{"content": {"parts": ["x", {"text": 7}, {}]}}]},
        {"promptFeedback": 7, "usageMetadata": []},
    ]
    assert "".join(delta.text for delta in read(*odd, said({"text": "Hi"}))) == "Hi"


def test_a_quota_for_good_is_told_from_one_by_the_minute() -> None:
    """The words are the same; only the latter says when to try again."""
    upstream = Upstream("gemini", "https://x.test/v1beta")
    body = b'{"error": {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED"}}'
    assert isinstance(failure(HttpReply(429, {}, body), upstream, gemini_fault), UpstreamQuotaExhausted)
    retry = b'"details": [{"retryDelay": "7s"}], "code"'
    limited = failure(HttpReply(429, {}, body.replace(b'"code"', retry)), upstream, gemini_fault)
    assert (limited.code, limited.retry_after) == ("upstream_rate_limited", 7)


async def test_models_and_addresses() -> None:
    """Models that can't chat aren't listed, and no name leads out of the models' own address."""
    rows = [
        {"name": "models/gemini-9", "inputTokenLimit": 5000, "supportedGenerationMethods": ["generateContent"]},
        {"name": "models/embedding", "supportedGenerationMethods": ["embedContent"]},
    ]
    async with raw_upstream(reply({"models": rows})) as raw:
        upstream = Upstream("google", raw.base_url, key="AIza-secret", discover=True, any_model=True, kind="gemini")
        client = HttpClient(max_reply_bytes=10_000, keep_cookies=False)
        provider = GeminiProvider(upstream, client=client, guard=make_guard(), max_reply_bytes=10_000)
        await client.open()
        await provider.connect()
        raw.answers[:] = [reply(said({"text": "Hi"}, end="STOP"))]
        for model in ("models/gemini-9", "../x?y", "tunedModels/mine-1"):
            spec = provider.find(model) or MODEL
            await provider.create_completion(wanted(model=spec))
        await provider.aclose()
    assert [(spec.id, spec.prompt_limit.size) for spec in provider.models] == [("gemini-9", 5000)]
    addresses = [sent.line.split()[1] for sent in raw.requests]
    assert addresses[-3:] == [
        "/v1/models/gemini-9:generateContent",
        "/v1/models/..%2Fx%3Fy:generateContent",
        "/v1/tunedModels/mine-1:generateContent",
    ]
    assert raw.requests[0].headers["x-goog-api-key"] == "AIza-secret"
