"""Errors of upstreams, in the words of many vendors, through the real provider over a real socket."""

import json
from typing import Any

import pytest

from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
    EmptyReply,
    GatewayError,
    InvalidRequest,
    MessageRefused,
    SiteChanged,
    UnexpectedReply,
    UpstreamBlocked,
    UpstreamKeyRejected,
    UpstreamModelMissing,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from tests.providers.openai_compatible.upstream import (
    DONE,
    KEY,
    delta,
    event,
    provider_at,
    raw_upstream,
    reply,
    stream,
    wanted,
)

PAGE = b"<!DOCTYPE html><html><head><title>Oops</title></head><body>Oops</body></html>"
CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"


def error(message: str, **fields: object) -> dict[str, object]:
    return {"error": {"message": message, **fields}}


LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
CASES: list[tuple[str, Any, type[GatewayError]]] = [
    ("400 Bad", error(LONG, code="context_length_exceeded", param="messages"), ContextTooLong),
    ("400 Bad", error("Invalid request: Your request exceeded model token limit: 8192"), ContextTooLong),
    ("400 Bad", error("Range of input length should be [1, 30720]: input length exceeds limit"), ContextTooLong),
    ("400 Bad", error("the prompt is too long: 210000 tokens > 200000 maximum"), ContextTooLong),
    ("400 Bad", {"object": "error", "message": LONG, "type": "BadRequestError", "code": 400}, ContextTooLong),
    ("413 Too Large", PAGE, ContextTooLong),
    ("401 No", error("Incorrect API key provided", code="invalid_api_key"), UpstreamKeyRejected),
    ("401 No", b"", UpstreamKeyRejected),
    ("401 No", error("Invalid Authentication", type="invalid_authentication_error"), UpstreamKeyRejected),
    ("403 No", {"code": 30003, "message": "Model disabled.", "data": None}, UpstreamKeyRejected),
    ("401 No", "Invalid token", UpstreamKeyRejected),
    ("400 Bad", error("API key expired. Please renew the API key."), UpstreamKeyRejected),
    ("402 Pay", error("Insufficient Balance", code="invalid_request_error"), UpstreamQuotaExhausted),
    ("402 Pay", error("This request requires more credits", code=402), UpstreamQuotaExhausted),
    ("429 Slow", error("You exceeded your current quota", code="insufficient_quota"), UpstreamQuotaExhausted),
    ("429 Slow", error("Your account is suspended", type="exceeded_current_quota_error"), UpstreamQuotaExhausted),
    ("403 No", {"code": 30001, "message": "Sorry, your account balance is insufficient"}, UpstreamQuotaExhausted),
    ("404 No", error("The model `x` does not exist", code="model_not_found"), UpstreamModelMissing),
    ("404 No", error("Not found the model x", type="resource_not_found_error"), UpstreamModelMissing),
    ("404 No", {"error": 'model "x" not found, try pulling it first'}, UpstreamModelMissing),
    ("400 Bad", {"code": 20012, "message": "Model does not exist. Please check it carefully."}, UpstreamModelMissing),
    ("404 No", {"detail": "Not Found"}, SiteChanged),
    ("404 No", PAGE, SiteChanged),
    ("405 No", b"", SiteChanged),
    ("302 Found", b"", SiteChanged),
    ("400 Bad", error("The request was rejected because it was considered high risk"), MessageRefused),
    ("400 Bad", error("Filtered", code="content_filter"), MessageRefused),
    ("403 No", error("Your input was flagged", code=403, metadata={"reasons": ["x"]}), MessageRefused),
    ("429 Slow", error("Rate limit reached: tokens per min. See /account/billing"), UpstreamRateLimited),
    ("429 Slow", b"", UpstreamRateLimited),
    ("429 Slow", PAGE, UpstreamRateLimited),
    ("429 Slow", error("The engine is currently overloaded", type="engine_overloaded_error"), UpstreamRateLimited),
    ("503 Busy", {"code": 50505, "message": "Model service overloaded. Please try again later."}, UpstreamUnavailable),
    ("500 Oops", error("The server had an error"), UpstreamUnavailable),
    ("408 Slow", error("Timed out"), UpstreamUnavailable),
    ("522 Cloud", PAGE, UpstreamUnavailable),
    ("529 Busy", error("Overloaded", type="overloaded_error"), UpstreamUnavailable),
    ("502 Bad", PAGE, UpstreamUnavailable),
    ("503 Wait", CHALLENGE, CloudflareChallenge),
    ("403 No", CHALLENGE, CloudflareChallenge),
    ("403 No", PAGE, UpstreamBlocked),
    ("400 Bad", error("Invalid 'temperature'", param="temperature"), InvalidRequest),
    ("422 Bad", {"detail": [{"loc": ["body", "top_p"], "msg": "too large"}]}, InvalidRequest),
    ("400 Bad", b"", InvalidRequest),
    ("200 OK", PAGE, UnexpectedReply),
    ("200 OK", b"OK", UnexpectedReply),
    ("200 OK", b"", UnexpectedReply),
    ("200 OK", {"hello": "world"}, UnexpectedReply),
    ("200 OK", {"choices": []}, UnexpectedReply),
    ("200 OK", {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}, EmptyReply),
    ("200 OK", error("Rate limit exceeded", code=429), UpstreamRateLimited),
    ("200 OK", {"error_code": 336501, "error_msg": "Rate limit reached for RPM"}, UpstreamRateLimited),
    ("400 Bad", [error("API key expired. Please renew the API key.")], UpstreamKeyRejected),
    ("429 Slow", b"data: " + json.dumps(error("You exceeded your current quota")).encode(), UpstreamQuotaExhausted),
    ("200 OK", {"choices": [{"error": {"code": 502, "message": "Provider down"}}]}, UpstreamUnavailable),
    ("200 OK", {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, UpstreamRateLimited),
    ("200 OK", {"error": {"error": {"message": "Overloaded", "code": 503}}}, UpstreamUnavailable),
    ("200 OK", {"error": True, "message": "Overloaded, try again later"}, UpstreamUnavailable),
]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("status", "body", "kind"), CASES)
async def test_every_failure_has_its_type(status: str, body: Any, kind: type[GatewayError], streaming: bool) -> None:
    """What is wrong is known by status, code and words, whoever words it; streamed or not; and never the key."""
    content_type = "text/html" if isinstance(body, bytes) and body.startswith(b"<") else "application/json"
    async with (
        raw_upstream(reply(body, status, content_type)) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(GatewayError) as raised:
            await (anext(provider.stream_completion(wanted())) if streaming else provider.create_completion(wanted()))
    assert type(raised.value) is kind
    assert "acme" in raised.value.message
    assert "<" not in raised.value.message


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (event(error("Overloaded", type="overloaded_error")), UpstreamUnavailable),
        (event({"error": "rate limit exceeded"}), UpstreamRateLimited),
        (event({"type": "error", "error": {"message": LONG}}), ContextTooLong),
        (b"event: error\n" + event({"message": "internal error", "code": 500}), UpstreamUnavailable),
        (event({"object": "error", "message": "Internal server error", "code": 500}), UpstreamUnavailable),
        (event({"choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 429}}]}), UpstreamRateLimited),
        (b'{"error": {"message": "insufficient balance"}}\n', UpstreamQuotaExhausted),
        (event(error("something odd")), UnexpectedReply),
    ],
)
@pytest.mark.parametrize("after", [b"", delta(content="Hel")])
async def test_errors_in_a_stream(shape: bytes, kind: type[GatewayError], after: bytes) -> None:
    """An error event, in any of its shapes, ends the stream as what it is, before a word and after one."""
    async with (
        raw_upstream(stream(after + shape + DONE)) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(GatewayError) as raised:
            _ = [part async for part in provider.stream_completion(wanted())]
    assert type(raised.value) is kind


WAITS: list[tuple[dict[str, str], dict[str, Any], float | None]] = [
    ({"Retry_After": "7"}, {}, 7),
    ({"retry_after_ms": "1500", "Retry_After": "2"}, {}, 1.5),
    ({"Retry_After": "1m30s"}, {}, 90),
    ({"Retry_After": "99999"}, {}, 3600),
    ({"Retry_After": "2"}, {"message": "Please try again in 20s."}, 20),
    ({}, {"message": "Limit 3. Please try again in 20s."}, 20),
    ({}, {"message": "Please try again in 1m30.5s."}, 90.5),
    ({}, {"message": "Please retry after 30 seconds."}, 30),
    ({}, {"message": "Please wait 2 minutes and 5 seconds before retrying"}, 125),
    ({}, {"message": "Try again in 345ms"}, 0.345),
    ({}, {"message": "retry-after: 12"}, 12),
    ({}, {"message": "请在20秒后重试"}, 20),
    ({}, {"message": "Limit: 3 requests per 20 seconds. Try again later."}, None),
    ({"x_ratelimit_reset_requests": "20s"}, {}, 20),
    ({"x_ratelimit_reset_requests": "1m0s", "x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_tokens": "6m0s",
      "x_ratelimit_remaining_tokens": "100"}, {}, 60),
    ({"x_ratelimit_reset_requests": "8s", "x_ratelimit_reset_tokens": "9ms"}, {}, 8),
    ({"ratelimit_reset": "33"}, {}, 33),
    ({"anthropic_ratelimit_requests_reset": "2199-01-01T00:00:00Z"}, {}, 3600),
    ({"Retry_After": "5", "x_ratelimit_reset_requests": "20s"}, {}, 5),
    ({}, {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]}, 36),
    ({}, {"metadata": {"headers": {"X-RateLimit-Reset": "4102444800000"}}}, 3600),
    ({}, {"retry_after": 4.5}, 4.5),
    ({}, {"metadata": {"retry_after_ms": 2500}}, 2.5),
    ({"Retry_After": "soon", "x_ratelimit_reset_requests": "?"}, {"retry_after": True}, None),
    ({}, {}, None),
]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("headers", "fields", "seconds"), WAITS)
async def test_the_wait_that_an_upstream_tells_is_passed_on(
    headers: dict[str, str], fields: dict[str, Any], seconds: float | None, streaming: bool
) -> None:
    """In headers, words or details, in any form, never shorter than told, at most an hour; none is made up."""
    document = error(**{"message": "slow down", **fields})
    async with (
        raw_upstream(reply(document, "429 Slow", **headers)) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(UpstreamRateLimited) as raised:
            await (anext(provider.stream_completion(wanted())) if streaming else provider.create_completion(wanted()))
    assert raised.value.retry_after == pytest.approx(seconds)


async def test_words_of_an_upstream_are_quoted_without_what_is_secret() -> None:
    """Its own message helps the client; keys in any form, our addresses, markup and floods are taken out."""
    async with raw_upstream() as upstream:
        said = f"Bad <b>seed</b>: {KEY} sk-abc****xyz Bearer hunter2 {upstream.base_url}/x tok-9 " + "x" * 5000
        upstream.answers = [reply(error(said, param="seed"), "400 Bad")]
        async with provider_at(upstream.base_url, headers={"X-Token": "tok-9"}) as provider:
            with pytest.raises(InvalidRequest) as raised:
                await provider.create_completion(wanted())
    assert raised.value.message.startswith("acme refuses this request: Bad seed : … … … …/x … xxx")
    assert raised.value.param == "seed"
    assert len(raised.value.message) < 500


async def test_a_refused_key_is_named_and_not_shown() -> None:
    """The message says whose key is wrong and where it is set; SDKs are told not to try again."""
    async with (
        raw_upstream(reply(error(f"Incorrect API key provided: {KEY}"), "401 No")) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(UpstreamKeyRejected) as raised:
            await provider.create_completion(wanted())
    assert (raised.value.status, raised.value.should_retry) == (502, False)
    assert "ACME_API_KEY" in raised.value.message
    assert KEY not in raised.value.message


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (LONG, "8192"),
        ("Invalid request: Your request exceeded model token limit: 8192", "8192"),
        ("Range of input length should be [1, 30720]: input length exceeds limit", "30720"),
        ("the prompt is too long: 210000 tokens > 200000 maximum", "200000"),
        ("request (9001 tokens) exceeds the available context size (4096 tokens), try increasing it", "4096"),
        ("input tokens exceed the limit of 131072", "131072"),
        ("the prompt is too long", None),
    ],
)
async def test_an_upstreams_own_limit_is_told_in_openais_words(said: str, limit: str | None) -> None:
    """Clients look for OpenAI's sentence; what the upstream said comes after it."""
    async with (
        raw_upstream(reply(error(said), "400 Bad")) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(ContextTooLong) as raised:
            await provider.create_completion(wanted())
    found = raised.value
    assert found.limit == (limit and f"{limit} tokens")
    assert found.message.startswith(f"This model's maximum context length is {limit} tokens. ") is (limit is not None)
    assert said in found.message


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ([{"loc": ["body", "messages", 0, "content"], "msg": "Field required"}], "messages[0].content: Field required"),
        ([{"loc": ["body"], "msg": "No."}, {"loc": ["body", "n"], "msg": "Too many."}], "No.; n: Too many."),
        ([{"msg": "No."}, "Odd", {"msg": 5}, {"loc": "n", "msg": "No."}], "No.; Odd; {'msg': 5}; No."),
    ],
)
async def test_a_refusal_of_fastapis_names_fields_as_people_write_them(detail: list[Any], told: str) -> None:
    """Servers of local models refuse with a list of faults; clients get a sentence instead of Python's notation."""
    async with (
        raw_upstream(reply({"detail": detail}, "422 Bad")) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        with pytest.raises(InvalidRequest) as raised:
            await provider.create_completion(wanted())
    assert raised.value.message == f"acme refuses this request: {told}"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[]", "JSON that is a list and no object"),
        (b'[{"id": 1}]', "JSON that is a list and no object"),
        (b" null\n", "JSON that is null and no object"),
        (b'"text"', "JSON that is a text and no object"),
        (b"true", "JSON that is a boolean and no object"),
        (b"0.5", "JSON that is a number and no object"),
        (b"{}", "other JSON"),
        (b"{", "something that isn't JSON"),
        (b" ", "nothing"),
    ],
)
async def test_what_is_no_completion_is_called_what_it_is(body: bytes, what: str) -> None:
    """Whole or streamed, and in the list of models: whoever looks for the fault is not led astray."""
    async with raw_upstream(reply(body)) as upstream, provider_at(upstream.base_url) as provider:
        said = []
        for ask in (provider.create_completion(wanted()), anext(provider.stream_completion(wanted()))):
            with pytest.raises(UnexpectedReply) as raised:
                await ask
            said.append(raised.value.message)
        assert said == [f"acme answered with {what} instead of a completion."] * 2


async def test_what_is_no_list_of_models_is_told_as_such() -> None:
    """Nobody has asked for a completion then."""
    async with raw_upstream(reply(b"null")) as upstream, provider_at(upstream.base_url) as provider:
        with pytest.raises(UnexpectedReply, match="null and no object instead of a list of models"):
            await provider.fetch_models()
