"""Errors of the simulated OpenAI API, in the words of the vendors that it may stand for."""

import json
from collections.abc import Mapping
from typing import Final

from simulator.responses import JSON, Canned

_PAGE: Final = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


def api_error(status: int, message: str, *, retry_after_s: float | None = None, **fields: object) -> Canned:
    """An error as OpenAI words it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}
    return _json(status, {"error": error}, retry_after_s)


def _anthropic(status: int, kind: str, message: str, retry_after_s: float | None = None) -> Canned:
    document = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_simulated"}
    return _json(status, document, retry_after_s)


def _gemini(status: int, name: str, message: str, *details: Mapping[str, object]) -> Canned:
    return _json(status, {"error": {"code": status, "message": message, "status": name, "details": details}})


def _json(status: int, document: object, retry_after_s: float | None = None) -> Canned:
    return Canned(status, json.dumps(document, ensure_ascii=False), JSON, retry_after_s=retry_after_s)


API_ERRORS: Final[Mapping[str, Canned]] = {
    "openai_key": api_error(401, "Incorrect API key provided: sk-simu****ated.", code="invalid_api_key"),
    "openai_rate": api_error(
        429,
        "Rate limit reached for requests per min (RPM).",
        type="requests",
        retry_after_s=1,
        code="rate_limit_exceeded",
    ),
    "openai_quota": api_error(
        429, "You exceeded your current quota, please check your plan and billing details.", code="insufficient_quota"
    ),
    "openai_context": api_error(
        400, "This model's maximum context length is 8 tokens.", param="messages", code="context_length_exceeded"
    ),
    "openai_bad_request": api_error(400, "Unsupported value: 'temperature' must be 1.", param="temperature"),
    "openai_error": api_error(500, "The server had an error while processing your request.", type="server_error"),
    "moonshot_context": api_error(400, "Invalid request: Your request exceeded model token limit: 8192"),
    "moonshot_quota": api_error(
        429, "Your account is suspended, please check your plan.", type="exceeded_current_quota_error"
    ),
    "moonshot_overloaded": api_error(
        429, "The engine is currently overloaded, please try again later", type="engine_overloaded_error"
    ),
    "moonshot_risk": api_error(
        400, "The request was rejected because it was considered high risk", type="content_filter"
    ),
    "moonshot_model": api_error(
        404, "Not found the model simulated or Permission denied", type="resource_not_found_error"
    ),
    "deepseek_max_tokens": api_error(400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    "deepseek_balance": api_error(402, "Insufficient Balance", type="unknown_error", code="invalid_request_error"),
    "deepseek_busy": api_error(503, "Service is too busy. We advise users to temporarily switch to others."),
    "qianfan_key": _json(401, {"error": {"code": "invalid_iam_token", "message": "IAM authentication failed"}}),
    "qianfan_rate": _json(429, {"error": {"code": "rpm_rate_limit_exceeded", "message": "Rate limit reached"}}, 1),
    "siliconflow_model": _json(400, {"code": 20012, "message": "Model does not exist.", "data": None}),
    "siliconflow_busy": _json(503, {"code": 50505, "message": "Model service overloaded. Please try again later."}),
    "openrouter_credits": _json(402, {"error": {"code": 402, "message": "This request requires more credits"}}),
    "openrouter_moderation": _json(403, {"error": {"code": 403, "message": "Your input was flagged"}}),
    "vllm_context": _json(
        400, {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400}
    ),
    "ollama_model": _json(404, {"error": {"message": 'model "simulated" not found', "type": "api_error"}}),
    "anthropic_key": _anthropic(401, "authentication_error", "invalid x-api-key"),
    "anthropic_rate": _anthropic(429, "rate_limit_error", "This request would exceed your rate limit.", 7),
    "anthropic_busy": _anthropic(529, "overloaded_error", "Overloaded"),
    "anthropic_context": _anthropic(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "anthropic_credit": _anthropic(
        400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."
    ),
    "anthropic_policy": _anthropic(400, "invalid_request_error", "Output blocked by content filtering policy"),
    "anthropic_model": _anthropic(404, "not_found_error", "model: claude-0"),
    "gemini_key": _gemini(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
    ),
    "gemini_rate": _gemini(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"},
    ),
    "gemini_busy": _gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "gemini_context": _gemini(
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "gemini_blocked": _json(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}}),
    "no_such_url": _json(404, {"detail": "Not Found"}),
    "cloudflare_timeout": Canned(524, _PAGE.format("A timeout occurred")),
    "cloudflare_challenge": Canned(403, _PAGE.format("Just a moment..."), headers=(("cf-mitigated", "challenge"),)),
    "html": Canned(200, _PAGE.format("Welcome")),
    "not_json": Canned(200, "OK", "text/plain"),
    "nothing": Canned(200, "", JSON),
    "other_json": _json(200, {"hello": "world"}),
    "error_with_200": _json(200, {"error": {"code": 429, "message": "Rate limit exceeded"}}),
}

ERROR_EVENT: Final = b'data: {"error": {"message": "The server is overloaded.", "type": "overloaded_error"}}\n\n'
