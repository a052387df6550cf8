"""The site's failures, one by one: of its plugin, of WordPress around it and of Cloudflare in front of it."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
    EmptyReply,
    GatewayError,
    InvalidRequest,
    MessageRefused,
    NonceRejected,
    SiteChanged,
    UpstreamBlocked,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.providers.http import HttpReply, retry_after
from app.providers.kimi.failure import http_failure
from app.providers.kimi.reply import read_reply
from tests.domain.strategies import UNTIMED, wild_texts

NONCE = "0a1b2c3d4e"
HTML = b"<!DOCTYPE html><html><head><title>Oops</title></head><body><p>Secret plans</p></body></html>"
JUST_A_MOMENT = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"
FATAL = b"<p>There has been a critical error on this website.</p>"


def _read(status: int, body: bytes, **headers: str) -> str:
    lowered = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_reply(HttpReply(status, lowered, body), nonce=NONCE)


def _error(status: int, body: bytes, **headers: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        _read(status, body, **headers)
    return caught.value


def _success(message: object) -> bytes:
    return json.dumps({"success": True, "data": {"message": message}}).encode()


def _refused(data: object) -> bytes:
    return json.dumps({"success": False, "data": data}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # WordPress's own refusals
        (403, b"-1", NonceRejected),
        (403, b"-1\n", NonceRejected),
        (200, b"-1", NonceRejected),
        (400, b"0", SiteChanged),
        (200, b"0", SiteChanged),
        # Something else than an answer
        (200, HTML, SiteChanged),
        (200, b"", SiteChanged),
        (200, b"null", SiteChanged),
        (200, b"[1, 2]", SiteChanged),
        (200, b'"text"', SiteChanged),
        (200, b"{}", SiteChanged),
        (200, b'{"message": "Hello"}', SiteChanged),
        (200, b'{"data": {"message": "Hello"}}', SiteChanged),
        (200, b'{"success": true}', SiteChanged),
        (200, b'{"success": true, "data": "Hello"}', SiteChanged),
        (200, b'{"success": true, "data": {"text": "Hello"}}', SiteChanged),
        (200, b'{"success": "true", "data": {"message": "Hello"}}', SiteChanged),
        (200, _success(5), SiteChanged),
        (200, _success(None), SiteChanged),
        (200, b'{"success": true, "data": {"message": "Hel', SiteChanged),
        (200, b'{"success": true, "data": {"message": "Hel\xfflo"}}', SiteChanged),
        (200, b"[" * 100_000, SiteChanged),
        (200, b'{"a": ' + b"1" * 5000 + b"}", SiteChanged),
        (301, b"", SiteChanged),
        (404, HTML, SiteChanged),
        (405, b"", SiteChanged),
        # Leniency invents nothing: a part of something else is no answer
        (200, b'{"ok": true, "result": {"success": true, "data": {"message": "Hello"}}}', SiteChanged),
        (200, b'{"ok": true, "result": {"success": true, "data": {"message": "Hello"}}', SiteChanged),
        (200, b'[{"success": true, "data": {"message": "Hello"}}]', SiteChanged),
        (200, b'[1, {"success": true, "data": {"message": "Hello"}}]', SiteChanged),
        (200, b'<!-- {"success": true, "data": {"message": "Hello"}} -->', SiteChanged),
        (200, b'<html><script>x({"success": true, "data": {"message": "Hello"}})</script></html>', SiteChanged),
        (200, b'<p data-x=\'{"success": true, "data": {"message": "Hello"}}\'></p>', SiteChanged),
        (200, b'<p>Oops</p>{"ok": true, "reply": "Hello"}', SiteChanged),
        (200, b'{"' * 100_000, SiteChanged),
        # WordPress's refusal in the same dirt
        (403, b"-1\n<!-- Page supported by LiteSpeed Cache -->", NonceRejected),
        (403, b"\xef\xbb\xbf\xef\xbb\xbf-1", NonceRejected),
        (200, b"<br />\n<b>Warning</b>: x<br />\n-1", NonceRejected),
        (200, b'<b>Notice</b>: x<br />{"success": false, "data": "Invalid nonce"}<!-- cached -->', NonceRejected),
        # The same in other forms
        (200, b'{"success": false, "message": "Invalid nonce"}', NonceRejected),
        (200, b'{"success": false, "data": null, "error": {"message": "Too many requests"}}', UpstreamRateLimited),
        (200, b'{"success": 0, "data": "Too many requests"}', UpstreamRateLimited),
        (200, b'{"success": "false", "data": "Too many requests"}', UpstreamRateLimited),
        (403, b'{"code": "rest_cookie_invalid_nonce", "message": "No.", "data": {"status": 403}}', NonceRejected),
        (403, b'<div class="wp-die-message">The link you followed has expired.</div>', NonceRejected),
        (403, b'<div class="wp-die-message">Blocked for security reasons.</div>', UpstreamBlocked),
        (200, JUST_A_MOMENT, CloudflareChallenge),
        # Nothing said
        (200, _success(""), EmptyReply),
        (200, _success(" \n\t"), EmptyReply),
        # Trouble
        (500, FATAL, UpstreamUnavailable),
        (502, HTML, UpstreamUnavailable),
        (503, HTML, UpstreamUnavailable),
        (520, HTML, UpstreamUnavailable),
        (523, HTML, UpstreamUnavailable),
        # Nobody knows whether the model was asked
        (504, HTML, UpstreamTimeout),
        (522, HTML, UpstreamTimeout),
        (524, HTML, UpstreamTimeout),
        (504, b'{"success": false}', UpstreamTimeout),
        (408, b"", UpstreamUnavailable),
        (500, _success("Hello"), UpstreamUnavailable),
        (429, HTML, UpstreamRateLimited),
        (413, HTML, ContextTooLong),
        (401, HTML, UpstreamBlocked),
        (403, HTML, UpstreamBlocked),
        (451, HTML, UpstreamBlocked),
        # The plugin's refusals that say nothing
        (200, b'{"success": false}', UpstreamRefused),
        (200, _refused(None), UpstreamRefused),
        (200, _refused(""), UpstreamRefused),
        (200, _refused([]), UpstreamRefused),
        (200, _refused(5), UpstreamRefused),
        (200, _refused({"message": {"a": 1}}), UpstreamRefused),
        (403, b'{"success": false}', UpstreamRefused),
        (429, b'{"success": false}', UpstreamRateLimited),
        (500, b'{"success": false}', UpstreamUnavailable),
    ],
)
def test_each_answer_means_what_it_means(status: int, body: bytes, kind: type[GatewayError]) -> None:
    """The whole table of failures: status and body decide what went wrong."""
    assert type(_error(status, body)) is kind


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("Invalid nonce.", NonceRejected, "nonce_rejected"),
        ("Security check failed", NonceRejected, "nonce_rejected"),
        ("Your session has expired.", NonceRejected, "nonce_rejected"),
        ("安全验证失败，请刷新页面", NonceRejected, "nonce_rejected"),
        ("页面已过期", NonceRejected, "nonce_rejected"),
        ("Rate limit exceeded", UpstreamRateLimited, "upstream_rate_limited"),
        ("Too many requests, slow down", UpstreamRateLimited, "upstream_rate_limited"),
        ("Daily limit reached", UpstreamRateLimited, "upstream_rate_limited"),
        ("请求过于频繁", UpstreamRateLimited, "upstream_rate_limited"),
        ("Message is too long", ContextTooLong, "context_length_exceeded"),
        ("The maximum message length is 1000", ContextTooLong, "context_length_exceeded"),
        ("消息过长", ContextTooLong, "context_length_exceeded"),
        ("Invalid model", SiteChanged, "site_changed"),
        ("The model x/y does not exist", SiteChanged, "site_changed"),
        ("Service temporarily unavailable", UpstreamUnavailable, "upstream_unavailable"),
        ("The server is busy, please try again", UpstreamUnavailable, "upstream_unavailable"),
        ("Request timed out", UpstreamTimeout, "upstream_timeout"),
        ("cURL error 28: Operation timed out after 60000 milliseconds", UpstreamTimeout, "upstream_timeout"),
        ("请求超时，请稍后再试", UpstreamTimeout, "upstream_timeout"),
        ("服务器繁忙", UpstreamUnavailable, "upstream_unavailable"),
        ("This violates our content policy", MessageRefused, "content_filter"),
        ("内容违规", MessageRefused, "content_filter"),
        ("Message cannot be empty", InvalidRequest, None),
        ("消息不能为空", InvalidRequest, None),
        ("Character limit exceeded", ContextTooLong, "context_length_exceeded"),
        ("Too many characters, maximum 1000", ContextTooLong, "context_length_exceeded"),
        ("模型繁忙，请稍后再试", UpstreamUnavailable, "upstream_unavailable"),
        ("The model could not answer in time", UpstreamTimeout, "upstream_timeout"),
        ("Your message violates our security policy", MessageRefused, "content_filter"),
        ("Login required", UpstreamRefused, "upstream_refused"),
        ("Kaputt", UpstreamRefused, "upstream_refused"),
        ("Cookie check failed", NonceRejected, "nonce_rejected"),
        ("Please reload the page and try again", NonceRejected, "nonce_rejected"),
        ("安全驗證失敗，請重新整理頁面", NonceRejected, "nonce_rejected"),
        ("Sicherheitsprüfung fehlgeschlagen", NonceRejected, "nonce_rejected"),
        ("Le lien a expiré", NonceRejected, "nonce_rejected"),
        ("Fallo de seguridad: el enlace ha caducado", NonceRejected, "nonce_rejected"),
        ("Проверка безопасности не пройдена", NonceRejected, "nonce_rejected"),
        ("セキュリティチェックに失敗しました", NonceRejected, "nonce_rejected"),
        ("請求過於頻繁", UpstreamRateLimited, "upstream_rate_limited"),
        ("操作太快，请稍后再试", UpstreamRateLimited, "upstream_rate_limited"),
        ("Sie haben zu viele Anfragen gesendet", UpstreamRateLimited, "upstream_rate_limited"),
        ("Trop de requêtes, réessayez plus tard", UpstreamRateLimited, "upstream_rate_limited"),
        ("Demasiadas solicitudes", UpstreamRateLimited, "upstream_rate_limited"),
        ("Слишком много запросов", UpstreamRateLimited, "upstream_rate_limited"),
        ("リクエストが多すぎます", UpstreamRateLimited, "upstream_rate_limited"),
        ("요청이 너무 많습니다", UpstreamRateLimited, "upstream_rate_limited"),
        ("Ihre Nachricht ist zu lang", ContextTooLong, "context_length_exceeded"),
        ("Ihre Nachricht hat zu viele Zeichen", ContextTooLong, "context_length_exceeded"),
        ("訊息過長", ContextTooLong, "context_length_exceeded"),
        ("Das verstößt gegen unsere Sicherheitsrichtlinien", MessageRefused, "content_filter"),
        ("系統忙碌，請稍後再試", UpstreamUnavailable, "upstream_unavailable"),
    ],
)
def test_a_refusal_is_understood_by_its_words(said: str, kind: type[GatewayError], code: str | None) -> None:
    """What the plugin says decides what becomes of the request, and is told to the client."""
    error = _error(200, _refused(said))
    assert type(error) is kind
    assert error.code == code
    assert kind is NonceRejected or said in error.message
    assert error.param == ("messages" if error.status == 400 else None)


@pytest.mark.parametrize(
    "data",
    [
        "Invalid nonce",
        {"message": "Invalid nonce"},
        {"message": "Invalid nonce", "code": 403},
        [{"code": "bad", "message": "Invalid nonce"}, {"code": "x", "message": "y"}],
        ["Invalid nonce"],
        {"code": "invalid_nonce"},
        {"code": "invalid_nonce", "message": "No."},
        [{"code": "rest_cookie_invalid_nonce", "message": ""}],
        {"error": "Invalid nonce"},
        {"msg": "Invalid nonce"},
        {"message": {"error": {"message": "Invalid nonce"}}},
    ],
)
@pytest.mark.parametrize("status", [200, 403, 500])
def test_a_refusal_is_read_in_all_its_forms(data: object, status: int) -> None:
    """WordPress's error data may be a text, an object or a list of errors, with different statuses."""
    assert type(_error(status, _refused(data))) is NonceRejected


def test_a_challenge_is_told_as_one_with_a_time_to_wait() -> None:
    """By its header with any status, and by its page."""
    for error in (_error(200, HTML, cf_mitigated="challenge"), _error(403, JUST_A_MOMENT)):
        assert type(error) is CloudflareChallenge
        assert error.retry_after


@pytest.mark.parametrize(
    ("status", "body", "headers", "wait"),
    [
        (429, HTML, {"retry_after": "7"}, 7.0),
        (429, HTML, {"retry_after": "0"}, 0.0),
        (429, HTML, {}, 5.0),
        (503, HTML, {"retry_after": "600"}, 600.0),
        (503, HTML, {}, None),
        (200, _refused("Too many requests"), {"retry_after": "7"}, 7.0),
        (200, _refused("Too many requests"), {}, 5.0),
        (500, _refused("busy"), {"retry_after": "3"}, 3.0),
        (403, HTML, {"retry_after": "9"}, 9.0),
        (503, JUST_A_MOMENT, {"retry_after": "x"}, 10.0),
    ],
)
def test_the_wait_that_the_site_asks_for_is_passed_on(
    status: int, body: bytes, headers: dict[str, str], wait: float | None
) -> None:
    """`Retry-After` becomes part of the error, and a rate limit always tells some time to wait."""
    assert _error(status, body, **headers).retry_after == wait


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504])
def test_pages_of_the_site_are_never_quoted(status: int) -> None:
    """No error shows a page that came in place of an answer."""
    error = _error(status, HTML)
    assert not re.search(r"[<>]|html|Oops|Secret", error.message)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<b>Kaputt</b>", "Kaputt"),
        ("<p>Ka<br/>putt</p>\n\n\t<i>!</i>", "Ka putt !"),
        ("&lt;b&gt;Kaputt&lt;/b&gt; &amp; more", "Kaputt & more"),
        ("<script>alert('x')</script>Kaputt", "Kaputt"),
        ("Kaputt<script>alert('x')", "Kaputt"),
        ("&lt;script&gt;alert('x')&lt;/script&gt;Kaputt", "Kaputt"),
        ("<style>p { color: red }</style>Kaputt", "Kaputt"),
        ("<a href='https://x'", ""),
        (f"Kaputt {NONCE}", "Kaputt …"),
        (f"Kaputt <b>{NONCE}</b>.", "Kaputt … ."),
        (f"Kaputt &#48;{NONCE[1:]}", "Kaputt …"),
        ("Ka\x00putt\x1b[31m", "Ka putt [31m"),
        ("Ka\ud83dputt", "Ka?putt"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "…"),
    ],
)
def test_what_the_site_says_is_cleaned_before_it_is_shown(said: str, shown: str) -> None:
    """No markup, nonce, control character or endless text gets from a refusal into an error."""
    quoted = f": {shown}" if shown else "."
    assert _error(200, _refused(said)).message == f"The Kimi site refused this message{quoted}"


_MARKUP = ("<b>", "</b>", "<script>", "</script>", "<p class='x'", "<!--", "&lt;i&gt;", "&#60;", NONCE, "busy ", "\x1b")


@UNTIMED
@given(
    said=st.lists(st.sampled_from(_MARKUP) | wild_texts, max_size=12).map("".join),
    status=st.sampled_from([200, 403, 429, 500]),
)
def test_no_refusal_leaks_markup_or_the_nonce(said: str, status: int) -> None:
    """Whatever a refusal holds, its error opens no tag, shows no nonce, has one line and a bounded size."""
    message = _error(status, _refused({"message": said})).message
    assert "<" not in message
    assert NONCE not in message
    assert not re.search(r"[\x00-\x1f\x7f]", message)
    assert len(message) < 400
    assert message.encode().decode() == message


@UNTIMED
@given(body=st.binary(max_size=60) | wild_texts.map(_success) | wild_texts.map(_refused), status=st.integers(200, 599))
def test_no_answer_is_beyond_understanding(body: bytes, status: int) -> None:
    """Any bytes with any status are an answer or one of the errors that clients know, never a crash."""
    try:
        outcome = "answer" if _read(status, body) else "nothing"
    except GatewayError as error:
        outcome = "error" if error.message else "nothing"
    assert outcome != "nothing"


@pytest.mark.parametrize(
    ("status", "kind"), [(200, None), (429, UpstreamRateLimited), (503, UpstreamUnavailable), (404, SiteChanged)]
)
def test_the_page_has_the_same_troubles(status: int, kind: type[GatewayError] | None) -> None:
    """Status and headers alone tell what is wrong with a page, too; a page that came is no trouble."""
    failed = http_failure(HttpReply(status, {}, HTML))
    assert (None if failed is None else type(failed)) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 3600.0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("86400", 3600.0),
        ("9" * 400, 3600.0),
    ],
)
def test_a_wait_is_given_in_seconds(value: str, seconds: float | None) -> None:
    """`Retry-After` as a number is that many seconds, a date gone by is none, and nonsense is no answer."""
    assert retry_after({"retry-after": value}) == seconds


def test_no_wait_is_given() -> None:
    """Without the header nothing is known."""
    assert retry_after({}) is None


def test_a_wait_is_given_as_a_date() -> None:
    """A date to come is the time from now until then."""
    moment = datetime.now(UTC) + timedelta(minutes=40)
    seconds = retry_after({"retry-after": format_datetime(moment, usegmt=True)})
    assert seconds == pytest.approx(2400, abs=600)


@UNTIMED
@given(
    value=st.text(max_size=80)
    | st.from_regex(r"\A\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ [+-]?\w+\Z")
    | st.from_regex(r"\A\d+\Z")
)
def test_no_wait_is_beyond_understanding(value: str) -> None:
    """Whatever the header says, it is a time of at most an hour or none."""
    seconds = retry_after({"retry-after": value})
    assert seconds is None or 0 <= seconds <= 3600
