"""Everything that can go wrong with a request, as one tree.

    GatewayError
    ├── InvalidRequest                400
    │   ├── ContextTooLong            400
    │   ├── MessageRefused            400
    │   ├── PreviousResponseNotFound  400
    │   ├── BodyTooLarge              413
    │   ├── UnsupportedCoding         415
    │   └── HeadersTooLarge           431
    ├── InvalidApiKey                 401
    ├── LoginExpired                  401
    ├── MissingScope                  403
    ├── CrossSiteRequest              403
    ├── ModelNotFound                 404
    ├── SessionNotFound               404
    ├── ResponseNotFound              404
    ├── UnknownUrl                    404
    ├── MethodNotAllowed              405
    ├── RequestTimeout                408
    ├── NotFound                      404
    ├── RepeatedDifferently           409
    ├── StateConflict                 409
    ├── PreconditionFailed            412
    ├── SessionBusy                   409
    ├── LimitReached                  429
    │   └── QuotaSpent                429
    ├── ClientClosedRequest           499
    ├── InternalError                 500
    ├── GatewayOverloaded             503
    ├── GatewayStopping               503
    ├── SessionStoreUnavailable       503
    ├── KeyStoreUnavailable           503
    ├── LimitsUnavailable             503
    └── UpstreamError
        ├── UpstreamModelMissing      404
        ├── UpstreamRateLimited       429
        ├── UpstreamKeyRejected       502
        ├── UpstreamQuotaExhausted    502
        ├── UnexpectedReply           502
        │   ├── SiteChanged           502
        │   ├── UpstreamRefused       502
        │   ├── MalformedAnswer       502
        │   └── EmptyReply            502
        ├── UpstreamUnavailable       503
        │   ├── UpstreamUnreachable   503
        │   └── UpstreamBlocked       503
        ├── CloudflareChallenge       503
        ├── NonceMissing              503
        ├── NonceRejected             503
        ├── BreakerOpen               503
        └── UpstreamTimeout           504

Each class knows its HTTP status, the `type` and `code` of the OpenAI error object, what its docstring says of it in
docs/api.md, and what `doctor` advises. The message goes to the client: it never contains a key, a nonce, a stack trace
or a page of the upstream.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from app.domain.limits import Headroom

if TYPE_CHECKING:
    from app.domain.caller import Caller


class GatewayError(Exception):
    """Base of all errors, which are answered in the dialect that the client speaks.

    Args:
        message: One or two sentences for whoever reads the client's log.
        param: The request field at fault, such as `messages[1].content`.
        code: Overrides the class's own code.
        retry_after: Seconds after which another attempt makes sense, where known.
        reason: For the operator, in a few words: why a connection failed. Names no host.
        server: For the operator: which server it was, as `host:port`. Clients are told neither.
    """

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: str | None = None
    # What the gateway's operator can do about it, where that is more than to wait.
    advice: ClassVar[str] = ""
    # Sent to the OpenAI SDKs as `x-should-retry`; None leaves it to their rule (408, 409, 429 and 5xx are retried).
    should_retry: bool | None = None
    # May another upstream be asked the same?
    try_elsewhere: ClassVar[bool] = False
    # False on a failure of an attempt for which nothing was sent to the upstream: nobody pays for it.
    was_sent: bool = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        reason: str = "",
        server: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.reason = reason
        self.server = server
        if code is not None:
            self.code = code


class InvalidRequest(GatewayError):
    """The request is malformed, or asks for something impossible; `param` names the field."""

    status = 400
    type = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    """The part of the conversation that must be sent exceeds the model's limit."""

    code = "context_length_exceeded"
    advice = "Shorten the message. If the site has lowered its limit, lower CONTEXT_MAX_LENGTH, too."
    try_elsewhere = True

    def __init__(self, details: str, *, param: str | None = None, limit: str | None = None) -> None:
        """Say what is too long.

        Args:
            details: What is said besides the limit.
            limit: Of the model, with its unit, where whoever notices knows it.
        """
        super().__init__(details, param=param)
        self._details = details
        self.limit: str | None = None
        if limit is not None:
            self.tell_limit(limit)

    def tell_limit(self, limit: str) -> None:
        """Begin the message with OpenAI's sentence, unless it does: by these words clients know what to do."""
        if self.limit is None:
            self.limit = limit
            self.message = f"This model's maximum context length is {limit}. {self._details}"


class MessageRefused(InvalidRequest):
    """The upstream's content filter refused the message, or withheld the whole answer."""

    code = "content_filter"
    advice = "If even a harmless message is refused, the filter may refuse everything at the moment."


class PreviousResponseNotFound(InvalidRequest):
    """The response named by `previous_response_id` is not stored, or has expired."""

    code = "previous_response_not_found"


class BodyTooLarge(InvalidRequest):
    """The request body is larger than `MAX_BODY_BYTES`, or an upload than `MAX_UPLOAD_BYTES`."""

    status = 413
    code = "request_too_large"


class UnsupportedCoding(InvalidRequest):
    """The request body is compressed in a way that can't be read; `Accept-Encoding` says which can."""

    status = 415
    code = "unsupported_content_encoding"


class HeadersTooLarge(InvalidRequest):
    """The request has more than `MAX_HEADERS` headers, or too large ones."""

    status = 431
    code = "headers_too_large"


class InvalidApiKey(GatewayError):
    """The API key is missing or unknown."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    # Whose key it is, if it is known and doesn't open any more.
    caller: "Caller | None" = None


class LoginExpired(GatewayError):
    """The cookie's login to the console has ended; of the admin API."""

    status = 401
    type = "invalid_request_error"
    code = "login_expired"


class MissingScope(GatewayError):
    """The API key, or the login to the console, may not do this; its scopes, or its role, say what it may."""

    status = 403
    type = "invalid_request_error"
    code = "missing_scope"


class CrossSiteRequest(GatewayError):
    """The request came by the console's cookie, and another site may have sent it: it lacks the login's token; of the
    admin API.
    """

    status = 403
    type = "invalid_request_error"
    code = "csrf_failed"


class ModelNotFound(GatewayError):
    """No provider serves this model."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class SessionNotFound(GatewayError):
    """The caller has no session of this id, or it has expired."""

    status = 404
    type = "invalid_request_error"
    code = "session_not_found"


class ResponseNotFound(GatewayError):
    """The caller has no stored response of this id, or it has expired."""

    status = 404
    type = "invalid_request_error"
    code = "response_not_found"


class UnknownUrl(GatewayError):
    """There is no such endpoint."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(GatewayError):
    """The endpoint does not take this HTTP method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The request's head or body took longer than `CLIENT_TIMEOUT_SECONDS` allows."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class NotFound(GatewayError):
    """There is no such key, request or other thing; of the admin API."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class RepeatedDifferently(GatewayError):
    """The `Idempotency-Key` was used for another request before; of the admin API."""

    status = 409
    type = "invalid_request_error"
    code = "idempotency_key_reused"


class StateConflict(GatewayError):
    """What is asked for can't be done in the state that the thing is in, such as a revoked key; of the admin API."""

    status = 409
    type = "invalid_request_error"
    code = "state_conflict"
    should_retry = False


class PreconditionFailed(GatewayError):
    """Somebody else has changed it since the version in `If-Match`; of the admin API."""

    status = 412
    type = "invalid_request_error"
    code = "precondition_failed"


class SessionBusy(GatewayError):
    """Another request of this session is still running."""

    status = 409
    type = "invalid_request_error"
    code = "session_busy"


class LimitReached(GatewayError):
    """The key, its project or the gateway has reached a limit of its own; `Retry-After` says when to try again."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    advice = "`main.py limits show` says who uses how much; `main.py limits set` changes it."

    def __init__(
        self,
        message: str,
        *,
        measure: str = "requests",
        headroom: Sequence[Headroom] = (),
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        """Say which limit it is.

        Args:
            measure: `requests` or `tokens`: the error's type, as OpenAI has it.
            headroom: What the caller's limits leave, for the headers.
        """
        super().__init__(message, retry_after=retry_after)
        self.type = measure
        self.headroom = headroom
        self.should_retry = should_retry


class QuotaSpent(LimitReached):
    """The key, its project or the gateway has used up a quota. Trying again is of no use until its period ends."""

    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, headroom: Sequence[Headroom] = (), retry_after: float | None = None) -> None:
        """Say which quota it is."""
        super().__init__(message, measure=self.type, headroom=headroom, retry_after=retry_after, should_retry=False)


class ClientClosedRequest(GatewayError):
    """The client disconnected before it was answered; appears in logs and metrics only."""

    status = 499
    type = "invalid_request_error"
    code = "client_closed_request"


class InternalError(GatewayError):
    """A fault of the gateway itself; its log has the details under the request id."""

    code = "internal_error"


class GatewayOverloaded(GatewayError):
    """The queue for the upstream is full, the wait in it was too long, or the event loop is too late."""

    status = 503
    code = "gateway_overloaded"
    advice = "Raise UPSTREAM_CONCURRENCY or UPSTREAM_QUEUE_SIZE, or run more workers."
    try_elsewhere = True
    was_sent = False


class GatewayStopping(GatewayError):
    """The process is shutting down and could not finish this answer."""

    status = 503
    code = "gateway_stopping"


class SessionStoreUnavailable(GatewayError):
    """The session store cannot be reached; an answer would have silently forgotten the conversation."""

    status = 503
    code = "session_store_unavailable"
    advice = "Check SESSION_STORE_URL (host, port, password, database) and that the Redis server runs."


class KeyStoreUnavailable(GatewayError):
    """The database of keys cannot be reached, so nobody knows whether this key opens. It says nothing about the key."""

    status = 503
    code = "key_store_unavailable"
    advice = "Check DATABASE_URL and the database server."


class LimitsUnavailable(GatewayError):
    """The database of limits cannot be reached, and `LIMITS_WITHOUT_DATABASE` is `refuse`."""

    status = 503
    code = "limits_unavailable"
    advice = "Check DATABASE_URL and the database server."


class UpstreamError(GatewayError):
    """Base of all errors for which an upstream is at fault."""

    try_elsewhere = True
    # Does it count against the upstream's health in the circuit breaker?
    is_outage: ClassVar[bool] = True
    # May the same request succeed if it is sent again in a moment?
    is_transient: ClassVar[bool] = False
    # Does it lock out every request, so that there is no point in sending another?
    shuts_out: ClassVar[bool] = False
    # Would a request for another model of the same upstream meet it, too?
    concerns_all_models: bool = False


class UpstreamModelMissing(UpstreamError):
    """The upstream does not know the model, or does not let this gateway use it."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"
    advice = "Check the names of the models that are configured for this provider."
    is_outage = False
    should_retry = False


class UpstreamRateLimited(UpstreamError):
    """The upstream asks for fewer requests; its `Retry-After` is passed on."""

    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"
    advice = "Wait, and lower the concurrency for this upstream (UPSTREAM_CONCURRENCY for the site)."
    is_outage = False


class UpstreamKeyRejected(UpstreamError):
    """The upstream rejects the API key that the operator has set for it."""

    status = 502
    code = "upstream_key_rejected"
    advice = "Set the right key, or remove this provider."
    is_outage = False
    concerns_all_models = True
    should_retry = False


class UpstreamQuotaExhausted(UpstreamError):
    """The operator's account at the upstream has no credit or quota left."""

    status = 502
    code = "upstream_quota_exhausted"
    advice = "Top up the account, or remove this provider."
    is_outage = False
    concerns_all_models = True
    should_retry = False


class UnexpectedReply(UpstreamError):
    """The upstream's reply makes no sense."""

    status = 502
    code = "unexpected_reply"
    is_outage = False


class SiteChanged(UnexpectedReply):
    """The upstream no longer works as the gateway expects."""

    code = "site_changed"
    advice = (
        "Check the upstream's address and models (for the site: UPSTREAM_URL and KNOWN_MODELS; the address of an API "
        "usually ends in /v1). If they are right, the upstream has changed."
    )
    should_retry = False


class UpstreamRefused(UnexpectedReply):
    """The upstream refuses this message without a reason, and would refuse it again."""

    code = "upstream_refused"
    advice = "The upstream takes no messages of this kind at the moment; its own words are in the message."
    should_retry = False


class MalformedAnswer(UnexpectedReply):
    """The model was asked twice for JSON or a tool call, and gave no valid one."""

    code = "invalid_json_from_upstream"
    should_retry = False


class EmptyReply(UnexpectedReply):
    """The upstream's reply contains no text."""

    code = "empty_reply"
    advice = "Try again. If it stays so, try another model."


class UpstreamUnavailable(UpstreamError):
    """The upstream cannot be reached, or says that it cannot serve now."""

    status = 503
    code = "upstream_unavailable"
    advice = "The upstream is down, or unreachable from here. Check its address, DNS and any proxy."
    is_transient = True


class UpstreamUnreachable(UpstreamUnavailable):
    """No connection to the upstream can be made."""

    concerns_all_models = True


class UpstreamBlocked(UpstreamUnavailable):
    """The upstream's firewall blocks this gateway; retrying at once makes it worse."""

    code = "upstream_blocked"
    advice = "The upstream's firewall blocks this machine's address, or what it sends. Wait, or ask its operators."
    is_transient = False
    concerns_all_models = True


class CloudflareChallenge(UpstreamError):
    """Cloudflare demands a browser before it lets anyone through."""

    status = 503
    code = "cloudflare_challenge"
    advice = "Cloudflare wants a browser. Wait, or use another network address: the gateway does not solve challenges."
    shuts_out = True
    concerns_all_models = True


class NonceMissing(UpstreamError):
    """The chat page loaded, but without the nonce that every message needs."""

    status = 503
    code = "nonce_missing"
    advice = "Open CHAT_PAGE_URL in a browser. If it is still the chat page, the site has changed."


class NonceRejected(UpstreamError):
    """The site rejects even a nonce that it issued a moment ago."""

    status = 503
    code = "nonce_rejected"
    advice = "Check that UPSTREAM_URL is on the same host as CHAT_PAGE_URL."


class BreakerOpen(UpstreamError):
    """The upstream has failed so often that nothing is sent to it for a while.

    Its code is that of the failure if it locks out every request.
    """

    status = 503
    code = "upstream_unavailable"
    is_outage = False
    was_sent = False


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer within the time that a request may take (`REQUEST_TIMEOUT`)."""

    status = 504
    code = "upstream_timeout"
    advice = "The upstream is slow. If this happens often, raise its timeout (REQUEST_TIMEOUT)."
