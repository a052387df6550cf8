"""Everything that can go wrong on the way of a request, as one tree.

    GatewayError
    ├── InvalidRequest              400  the request itself is wrong
    │   ├── ContextTooLong          400  what must be sent is larger than the model takes
    │   ├── MessageRefused          400  the upstream won't answer this message
    │   ├── BodyTooLarge            413
    │   └── HeadersTooLarge         431
    ├── InvalidApiKey               401
    ├── ModelNotFound               404
    ├── SessionNotFound             404
    ├── ResponseNotFound            404
    ├── UnknownUrl                  404
    ├── MethodNotAllowed            405
    ├── SessionBusy                 409
    ├── ClientClosedRequest         499  never seen by anyone: the client has left
    ├── InternalError               500
    ├── GatewayOverloaded           503  too many requests wait for the upstream
    ├── GatewayStopping             503  the process ends before it could answer
    ├── SessionStoreUnavailable     503  what was said before can't be looked up
    └── UpstreamError
        ├── UpstreamModelMissing    404  the upstream has no model of the name that it was asked for
        ├── UpstreamRateLimited     429
        ├── UpstreamKeyRejected     502  the operator's key for the upstream is wrong
        ├── UpstreamQuotaExhausted  502  the operator's account there is empty
        ├── UnexpectedReply         502  the upstream answered something that makes no sense
        │   ├── SiteChanged         502
        │   ├── UpstreamRefused     502
        │   ├── MalformedAnswer     502
        │   └── EmptyReply          502
        ├── UpstreamUnavailable     503
        │   └── UpstreamBlocked     503
        ├── CloudflareChallenge     503
        ├── NonceMissing            503
        ├── NonceRejected           503
        ├── BreakerOpen             503
        └── UpstreamTimeout         504

Each class knows the HTTP status, the `type` and the `code` of the OpenAI error object. What is said to the client is
the message: it never holds a key, a nonce, a stack trace or a page of the upstream.
"""

from typing import ClassVar


class GatewayError(Exception):
    """Base of all errors that are answered to the client in the dialect it speaks.

    Args:
        message: One or two sentences for the person who reads the client's log.
        param: The field of the request that is at fault, such as `messages[1].content`.
        code: Overrides the class's own code.
        retry_after: Seconds after which another try makes sense, where known.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    # Said to the OpenAI SDKs in `x-should-retry`; None leaves it to their rule (408, 409, 429 and 5xx are retried).
    should_retry: ClassVar[bool | None] = None
    # May another upstream answer the same request all the same?
    try_elsewhere: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(GatewayError):
    """The request can't be understood or asks for something impossible; `param` names the field."""

    status = 400
    type = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    """The part of the conversation that must be sent is larger than the model's limit."""

    code = "context_length_exceeded"
    try_elsewhere = True


class MessageRefused(InvalidRequest):
    """The upstream read the message and won't answer it; sending it again changes nothing."""

    code = "message_refused"


class BodyTooLarge(InvalidRequest):
    """The request's body is larger than the gateway takes."""

    status = 413
    code = "request_too_large"


class HeadersTooLarge(InvalidRequest):
    """The request has more headers than the gateway takes."""

    status = 431
    code = "headers_too_large"


class InvalidApiKey(GatewayError):
    """The API key is missing or unknown."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class ModelNotFound(GatewayError):
    """No provider serves a model of that name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class SessionNotFound(GatewayError):
    """The caller has no session of that id, or it has expired."""

    status = 404
    type = "invalid_request_error"
    code = "session_not_found"


class ResponseNotFound(GatewayError):
    """The caller has no response of that id that is kept, or it has expired."""

    status = 404
    type = "invalid_request_error"
    code = "response_not_found"


class UnknownUrl(GatewayError):
    """There is nothing at this address."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(GatewayError):
    """The address exists, but not for this HTTP method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class SessionBusy(GatewayError):
    """Another request of the same session has been running for longer than this one may wait."""

    status = 409
    type = "invalid_request_error"
    code = "session_busy"


class ClientClosedRequest(GatewayError):
    """The client has gone; the status exists for logs only."""

    status = 499
    type = "invalid_request_error"
    code = "client_closed_request"


class InternalError(GatewayError):
    """A fault of the gateway itself."""

    code = "internal_error"


class GatewayOverloaded(GatewayError):
    """The queue in front of the upstream is full, or the request waited in it for too long."""

    status = 503
    code = "gateway_overloaded"
    try_elsewhere = True


class GatewayStopping(GatewayError):
    """The process is being stopped and could not wait for this answer."""

    status = 503
    code = "gateway_stopping"


class SessionStoreUnavailable(GatewayError):
    """The session store can't be reached; going on would mean to forget silently."""

    status = 503
    code = "session_store_unavailable"


class UpstreamError(GatewayError):
    """The upstream is at fault, or in trouble."""

    try_elsewhere = True
    # Does this count against the upstream's health in the circuit breaker?
    is_outage: ClassVar[bool] = True
    # May the same request succeed when it is sent again in a moment?
    is_transient: ClassVar[bool] = False
    # Is nobody let in, so that it makes no sense to find out by further requests?
    shuts_out: ClassVar[bool] = False


class UpstreamRateLimited(UpstreamError):
    """The upstream asks for fewer requests; its `Retry-After` is passed on."""

    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"
    is_outage = False


class UpstreamModelMissing(UpstreamError):
    """The upstream doesn't know the model, or won't let this gateway use it."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"
    is_outage = False
    should_retry = False


class UpstreamKeyRejected(UpstreamError):
    """The upstream won't take the key that the gateway's operator has set for it; no client can mend that."""

    status = 502
    code = "upstream_key_rejected"
    is_outage = False
    should_retry = False


class UpstreamQuotaExhausted(UpstreamError):
    """The operator's account at the upstream has no money or quota left: waiting a moment changes nothing."""

    status = 502
    code = "upstream_quota_exhausted"
    is_outage = False
    should_retry = False


class UnexpectedReply(UpstreamError):
    """The upstream answered, but not in a way that can be understood."""

    status = 502
    code = "unexpected_reply"
    is_outage = False


class SiteChanged(UnexpectedReply):
    """The upstream no longer works as this gateway knows it: a matter for the operator, not for another try."""

    code = "site_changed"
    should_retry = False


class UpstreamRefused(UnexpectedReply):
    """The upstream refuses this message and doesn't say why; sent again, it would be refused again."""

    code = "upstream_refused"
    should_retry = False


class MalformedAnswer(UnexpectedReply):
    """The model was asked for an answer of a certain form (JSON, a tool call), twice, and gave another."""

    code = "invalid_json_from_upstream"


class EmptyReply(UnexpectedReply):
    """The upstream answered with no text at all."""

    code = "empty_reply"


class UpstreamUnavailable(UpstreamError):
    """The upstream can't be reached, or says that it can't serve now."""

    status = 503
    code = "upstream_unavailable"
    is_transient = True


class UpstreamBlocked(UpstreamUnavailable):
    """The upstream's firewall refuses this gateway; trying again at once only makes it worse."""

    code = "upstream_blocked"
    is_transient = False


class CloudflareChallenge(UpstreamError):
    """Cloudflare wants to see a browser before it lets anyone through."""

    status = 503
    code = "cloudflare_challenge"
    shuts_out = True


class NonceMissing(UpstreamError):
    """The chat page came, but without the nonce that each message needs."""

    status = 503
    code = "nonce_missing"


class NonceRejected(UpstreamError):
    """The site refuses even a nonce that was fetched a moment ago."""

    status = 503
    code = "nonce_rejected"


class BreakerOpen(UpstreamError):
    """The upstream has failed so often that nothing is sent to it for a while."""

    status = 503
    code = "upstream_unavailable"
    is_outage = False


class UpstreamTimeout(UpstreamError):
    """The answer didn't come within the time that a request may take."""

    status = 504
    code = "upstream_timeout"
