"""What the site answers to a message. Pure."""

from app.domain.errors import EmptyReply, NonceRejected, SiteChanged
from app.domain.json import read_json_object
from app.providers.http import HttpReply
from app.providers.kimi.failure import http_failure, refusal


def read_reply(reply: HttpReply, *, nonce: str) -> str:
    """The assistant's text.

    Args:
        reply: The site's answer.
        nonce: The nonce that was sent; it is removed from anything that an error quotes.

    Raises:
        NonceRejected, CloudflareChallenge: Worth another try with a fresh page.
        GatewayError: Any other failure or refusal.
    """
    body = reply.body.strip()
    if body == b"-1" and reply.status in (200, 403):
        raise NonceRejected("The Kimi site rejected the nonce.")
    failed = http_failure(reply)
    if body.startswith(b"<"):
        # PHP may print its notices, as HTML, in front of the answer.
        body = body[max(0, body.find(b'{"success"')) :]
    document = read_json_object(body, bad_utf8="strict")
    if document is not None and document.get("success") is False:
        raise refusal(reply, document.get("data"), nonce)
    if failed is not None:
        raise failed
    if document is None:
        raise SiteChanged("The Kimi site's answer is not the expected JSON: the site may have changed.")
    return _text(document)


def _text(document: dict[str, object]) -> str:
    data = document.get("data")
    message = data.get("message") if isinstance(data, dict) else None
    if document.get("success") is not True or not isinstance(message, str):
        raise SiteChanged("The Kimi site's answer does not have the expected fields: the site may have changed.")
    if not message.strip():
        raise EmptyReply("The Kimi site answered with an empty message.")
    if message.isascii():
        return message
    # Half a surrogate pair (from a cut-off \\ud83d escape) can't be encoded as UTF-8.
    return message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
