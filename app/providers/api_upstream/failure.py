"""What an upstream's errors mean, whichever vendor worded them. Pure."""

import html
import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
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
from app.domain.json import json_kind, read_json_list, read_json_object
from app.providers.api_upstream.reply import Json
from app.providers.api_upstream.upstream import Upstream
from app.providers.api_upstream.waits import told_wait
from app.providers.cloudflare import is_challenge
from app.providers.http import HttpReply, address_of

_QUOTED_LENGTH = 400
_LOOKED_AT = 10_000
_PASSING = (408, 409, 425)
_MARKUP = re.compile(rb"^\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)
_TAG = re.compile(r"<[^>]{0,2000}>?")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f\ud800-\udfff]+")
# What looks like a key, even if its middle is masked with asterisks. A masked one is looked for from the beginning of
# each word only: from every character it would take the square of a long word.
_KEYLIKE = re.compile(
    r"\b(?:sk|pk|rk|key|bce-v3)[-_/][\w*./-]{6,}|\bBearer\s+\S+|(?<!\S)(?:[^\s*]|\*(?!\*\*))*+\*{3}\S*", re.IGNORECASE
)
_PARAM = re.compile(r"[A-Za-z_][\w.\[\]-]{0,99}")

# What an error is about, by its code, type and message together; `fault_error` has the order.
_LENGTH = re.compile(
    r"context_length_exceeded|context_window|string_above_max_length|"
    r"(?:maximum|max) context|context (?:length|window|size)|"
    r"exceed\w* (?:the )?(?:model|max\w*) (?:token|context|input)|"
    r"input (?:length|tokens?)\b.{0,80}(?:exceed|too long|limit|longer)|prompt (?:is )?too long|"
    r"(?:prompt|input|messages?)\b.{0,60}(?:too long|too many tokens|exceeds? .{0,40}(?:limit|length|maximum))|"
    r"reduce the length|最大长度|上下文.{0,10}(?:超|长)|输入.{0,10}(?:过长|超)",
    re.IGNORECASE,
)
# The limit itself, where the upstream tells it; the surest way to tell it first.
_LIMITS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"maximum context length\D{0,20}(\d+)",
        r"(?:token|context|length|size|input)\w* limit\D{0,20}(\d+)",
        r"> ?(\d+) maximum",
        r"\[\d+, ?(\d+)\]",
        r"(?:context[ _](?:length|window|size)|n_ctx)\D{0,20}(\d+)",
        r"(?:limit|maximum)\D{0,20}(\d+)",
    )
]
_FILTER = re.compile(
    r"content[_ ]?(?:filter|policy)|content management policy|data_?inspection|moderation|flagged|high risk|"
    r"unsafe|inappropriate|violat\w+ .{0,40}polic|sensitive|违规|敏感|安全策略",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[ _](?:user_)?(?:quota|balance|credits?|funds)|exceeded_current_quota|"
    r"exceeded your current quota|"
    r"billing_(?:not_active|hard_limit)|account.{0,30}(?:suspended|overdue|arrears)|more credits|payment required|"
    r"balance.{0,20}(?:insufficient|too low)|"
    r"余额不足|欠费|配额已",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"invalid_?(?:api_?key|authentication|iam)|incorrect api key|"
    r"(?:api key|token|authorization)\b.{0,40}(?:invalid|not valid|expired)|"
    r"(?:invalid|missing|no) (?:api key|token|authorization)|authentication (?:fails|failed|error)|unauthorized",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model_?not_?(?:found|exist)|resource_not_found|unknown_model|invalid_model|"
    r"model\b.{0,120}(?:not (?:found|exist|available|supported|a valid)|does ?n.t exist|unknown|is invalid|not exist)|"
    r"(?:no such|unknown|not a valid) model|not a valid model|模型.{0,10}不存在",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"rate[ _-]?limit|too many requests|(?:requests|tokens) per (?:min|day|second)|\b[rt]p[md]\b|"
    r"concurren\w+ .{0,20}limit|频繁|限流",
    re.IGNORECASE,
)
_TROUBLE = re.compile(
    r"overload|capacity|unavailable|server_error|internal (?:server )?error|timed? ?out|temporar|busy|try again|"
    r"繁忙|稍后",
    re.IGNORECASE,
)
# A larger `max_tokens` than the model takes.
_MAX_TOKENS = re.compile(
    r"max_(?:completion_|output_|new_)?tokens\b.{0,120}"
    r"(?:range|between|at most|less than|lower than|too (?:large|high|big)|exceed|maximum|max value|<=|\[\s*\d)|"
    r"(?:range|maximum|exceed\w*|at most|less than).{0,60}max_(?:completion_|output_|new_)?tokens\b",
    re.IGNORECASE | re.DOTALL,
)
_MAX_TOKENS_HINT = (
    " The gateway keeps to the model's bound if PROVIDERS_FILE gives it as max_tokens (docs/providers.md)."
)

# What says in the envelope of an answer that nothing is wrong.
_GOOD_CODES = frozenset({"0", "200", "ok", "success", "succeeded", "true"})
_NO_SUCH_URL = re.compile(r"(?:404 )?(?:page )?not found\.?|.{0,20}invalid url.*|unknown request url.*", re.IGNORECASE)


class UpstreamFault(Struct, frozen=True):
    """An error as the upstream worded it. Not safe to show.

    Args:
        message: For people.
        words: Code, type and message together, for searching.
        status: The HTTP status that the error itself gives, if any.
        param: The field at fault.
        error: The error itself, with its details.
    """

    message: str
    words: str
    status: int | None = None
    param: str | None = None
    error: object = None


def fault_in(document: Json) -> UpstreamFault | None:
    """The error in a document, in any of the shapes that upstreams use; None if there is none."""
    error = document.get("error") or document.get("errors")
    if isinstance(error, list) and error:
        error = error[0]
    if error is True or (error is None and not document.get("choices")):
        error = _without_wrapping(document) or error
    if error is None:
        error = _in_choice(document)
    if not error:
        return None
    if not isinstance(error, dict):
        return UpstreamFault(str(error), str(error))
    while not _first_text(error, "message", "msg") and isinstance(inner := error.get("error"), dict):
        error = inner
    message = _first_text(error, "message", "msg", "error_msg", "detail", "error", "description")
    codes = [error.get(name, document.get(name)) for name in ("code", "type", "error_code", "status")]
    words = " ".join(str(word) for word in (*codes, message) if word is not None)
    param = error.get("param")
    return UpstreamFault(message, words, _status(codes), param if isinstance(param, str) else None, error)


def failure(
    reply: HttpReply,
    upstream: Upstream,
    find: Callable[[Json], UpstreamFault | None] = fault_in,
    api_name: str = "chat completions API",
    wanted: str = "a completion",
) -> GatewayError:
    """The error for an answer that is not what was wanted, by its status, headers and words.

    Args:
        find: Finds the error in a document, as the upstream's kind writes it.
        api_name: What there should be at the upstream's address.
    """
    document = _document(reply.body)
    fault = find(document) if document is not None else None
    if fault is None:
        return _wordless(reply, upstream, api_name, wanted)
    return fault_error(fault, upstream, status=reply.status, headers=reply.headers, api_name=api_name)


def fault_error(
    fault: UpstreamFault,
    upstream: Upstream,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    api_name: str = "chat completions API",
) -> GatewayError:
    """The error for a fault. Within a stream the status is 200, because it was sent before."""
    if status == 200:
        status = fault.status or 200
    said = quotable(fault.message, upstream.secrets)
    quoted = f": {said}" if said else "."
    lasting = _lasting(fault.words[:_LOOKED_AT], upstream, status, said, quoted, api_name)
    return lasting or _passing(fault, upstream.name, status, quoted, headers or {})


def _lasting(words: str, upstream: Upstream, status: int, said: str, quoted: str, api_name: str) -> GatewayError | None:
    """The error if the message, the account, the key or the model is at fault: another try would not help."""
    name = upstream.name
    if status == 413 or (status != 429 and _LENGTH.search(words)):
        return ContextTooLong(
            f"The conversation is too long for the model at {name}{quoted}", param="messages", limit=_limit_in(words)
        )
    if status == 402 or (status in (200, 400, 403, 429) and _QUOTA.search(words)):
        return _quota_exhausted(upstream)
    if status in (200, 400, 403, 422, 451) and _FILTER.search(words):
        return MessageRefused(f"{name} refuses to answer this{quoted}", param="messages")
    if status in (401, 403) or (status in (200, 400) and _KEY.search(words)):
        return key_rejected(upstream, status, quoted if status == 403 else ".")
    if status == 404 and _NO_SUCH_URL.fullmatch(said):
        return _no_api(name, status, api_name)
    if status == 404 or (status in (200, 400, 422) and _MODEL.search(words)):
        return UpstreamModelMissing(f"{name} doesn't have this model{quoted}", param="model")
    return None


def _limit_in(words: str) -> str | None:
    found = next((match for match in (limit.search(words) for limit in _LIMITS) if match), None)
    return f"{found[1][:12]} tokens" if found else None


def _passing(fault: UpstreamFault, name: str, status: int, quoted: str, headers: Mapping[str, str]) -> GatewayError:
    if status == 429 or (status in (200, 503) and _RATE.search(fault.words[:_LOOKED_AT])):
        wait = told_wait(headers, fault.message, fault.error, limited=True)
        return _rate_limited(name, quoted, wait)
    if status in _PASSING or status >= 500 or (status == 200 and _TROUBLE.search(fault.words[:_LOOKED_AT])):
        wait = told_wait(headers, fault.message, fault.error, limited=False)
        return UpstreamUnavailable(f"{name} can't answer at the moment{quoted}", retry_after=wait)
    if status in (400, 422):
        param = fault.param if fault.param and _PARAM.fullmatch(fault.param) else None
        hint = _MAX_TOKENS_HINT if _MAX_TOKENS.search(fault.words[:_LOOKED_AT]) else ""
        return InvalidRequest(f"{name} refuses this request{quoted}{hint}", param=param)
    return UnexpectedReply(f"{name} answered with an error (HTTP {status}){quoted}")


def key_rejected(upstream: Upstream, status: int, quoted: str = ".") -> UpstreamKeyRejected:
    """The error for a key that the upstream rejects, or that lacks a permission."""
    place = f" ({upstream.key_name})" if upstream.key_name else ""
    error = UpstreamKeyRejected(f"{upstream.name} rejects the gateway's key{place} with HTTP {status}{quoted}")
    # A key that lacks a permission may be good for other models.
    error.concerns_all_models = status != 403
    return error


def _quota_exhausted(upstream: Upstream) -> UpstreamQuotaExhausted:
    place = f" ({upstream.key_name})" if upstream.keys else ""
    return UpstreamQuotaExhausted(f"The gateway's account{place} at {upstream.name} has no credit or quota left.")


def quotable(text: str, secrets: Sequence[str]) -> str:
    """An upstream's words, safe to show: without markup, keys or the gateway's own addresses, and shortened."""
    text = text[:_LOOKED_AT]
    for secret in secrets:
        text = text.replace(secret, "…")
    text = _KEYLIKE.sub("…", _TAG.sub(" ", html.unescape(text)))
    text = _SPACE.sub(" ", text).strip()
    return text if len(text) <= _QUOTED_LENGTH else text[:_QUOTED_LENGTH] + "…"


def _wordless(reply: HttpReply, upstream: Upstream, api_name: str, wanted: str) -> GatewayError:
    """The error for an answer without an error message: a web page, other JSON, or nothing."""
    name, status = upstream.name, reply.status
    wait = told_wait(reply.headers, "", limited=status == 429)
    is_page = _MARKUP.match(reply.body) is not None
    if is_challenge(reply):
        return CloudflareChallenge(f"Cloudflare requires a browser check before this gateway can reach {name}.")
    if status == 429:
        return _rate_limited(name, ".", wait)
    if status == 413:
        return ContextTooLong(f"The request is too large for {name}.", param="messages")
    if status == 402:
        return _quota_exhausted(upstream)
    if status == 401 or (status == 403 and not is_page):
        return key_rejected(upstream, status)
    if status in (403, 451):
        return UpstreamBlocked(f"A firewall in front of {name} blocks this gateway (HTTP {status}).", retry_after=wait)
    if status in _PASSING or status >= 500:
        return UpstreamUnavailable(f"{name} is unavailable (HTTP {status}).", retry_after=wait)
    if status in (400, 422):
        return InvalidRequest(f"{name} refuses this request without saying why.")
    if status != 200:
        return _no_api(name, status, api_name, reply.headers.get("location", ""))
    return UnexpectedReply(f"{name} answered with {_described(reply.body)} instead of {wanted}.")


def _described(body: bytes) -> str:
    """What an answer with nothing of use in it is, in words."""
    if not body.strip():
        return "nothing"
    if _MARKUP.match(body):
        return "a web page"
    kind = json_kind(body)
    if kind is None:
        return "something that isn't JSON"
    return "other JSON" if kind == "an object" else f"JSON that is {kind} and no object"


def _no_api(name: str, status: int, api_name: str, location: str = "") -> SiteChanged:
    if location and 300 <= status < 400:
        return SiteChanged(
            f"{name} redirects (HTTP {status}), and the gateway doesn't send its key there. If that is right, set the "
            "provider's base URL to the address there, which is in the gateway's log.",
            reason="redirected",
            server=address_of(location),
        )
    return SiteChanged(f"There is no {api_name} at the address configured for {name} (HTTP {status}).")


def _rate_limited(name: str, quoted: str, wait: float | None) -> UpstreamRateLimited:
    """A `Retry-After` only if the upstream told one: its limits may be per model, so other requests need not wait."""
    return UpstreamRateLimited(f"{name} asks for fewer requests{quoted}", retry_after=wait)


def _document(body: bytes) -> Json | None:
    """The error's document, which some upstreams wrap into a list, or send as an event."""
    document = read_json_object(body)
    if document is not None:
        return document
    rows = read_json_list(body)
    if rows:
        return rows[0] if isinstance(rows[0], dict) else None
    events = (read_json_object(line[5:]) for line in body[:_LOOKED_AT].splitlines() if line.startswith(b"data:"))
    return next((event for event in events if event is not None), None)


def _without_wrapping(document: Json) -> Json | str | None:
    """The document itself if it is an error, as in `{"code": 20012, "message": …}` or `{"detail": …}`."""
    if document.get("object") == "error" or document.get("type") == "error":
        return document
    base = document.get("base_resp")  # MiniMax's
    if isinstance(base, dict) and base.get("status_code"):
        return {"code": base["status_code"], "message": base.get("status_msg")}
    detail = document.get("detail")
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return {"detail": "; ".join(map(_refused_field, detail))}
    has_words = isinstance(document.get("message") or document.get("msg") or document.get("error_msg"), str)
    codes = [code for name in ("code", "error_code", "status") if (code := document.get(name)) not in (None, "")]
    is_good = bool(codes) and all(str(code).lower() in _GOOD_CODES for code in codes)
    has_code = bool(codes) and not is_good
    return document if has_words and (has_code or ("choices" not in document and not is_good)) else None


def _refused_field(row: object) -> str:
    """What FastAPI says of one field, as `messages[0].content: Field required`."""
    if not isinstance(row, dict) or not isinstance(row.get("msg"), str):
        return str(row)
    steps = row["loc"] if isinstance(row.get("loc"), list) else []
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps if step != "body")
    return f"{place.removeprefix('.')}: {row['msg']}" if place else str(row["msg"])


def _in_choice(document: Json) -> object:
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("error") if isinstance(first, dict) else None


def _first_text(error: Json, *names: str) -> str:
    found = (error.get(name) for name in names)
    return next((text for text in found if isinstance(text, str) and text), "")


def _status(codes: Sequence[object]) -> int | None:
    """The HTTP status among an error's codes, where some upstreams put it."""
    for code in codes:
        number = int(code) if isinstance(code, str) and re.fullmatch(r"[45]\d\d", code) else code
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            return number
    return None
