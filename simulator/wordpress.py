"""How WordPress prints things: PHP's JSON, the answers of `wp_send_json_*`, and the chat page. Pure."""

import json
from typing import Any, Final

_FOREIGN_AJAX_URL: Final = "https://evil.example/wp-admin/admin-ajax.php"

# Other plugins have nonces, too: whoever takes the first one of the page takes the wrong one.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en-US">
<head>
<meta charset="UTF-8">
<title>Kimi Chat (simulator)</title>
<script type="application/ld+json">{"@context":"https://schema.org","@type":"WebPage","name":"Kimi Chat"}</script>
<script id="wp-api-request-js-extra">
var wpApiSettings = {"root":"\\/wp-json\\/","nonce":"1111111111","versionString":"wp\\/v2\\/"};
</script>
</head>
<body class="page page-id-42">
<div id="kimi-chat"><textarea name="message"></textarea><button>Send</button></div>
%SETTINGS%
<script id="kimi-chat-js">
jQuery(function ($) { $("#kimi-chat button").on("click", function () { $.post(kimi_ajax.ajax_url, {}); }); });
</script>
</body>
</html>
"""


def encode_json(value: Any, indent: int | None = None) -> str:
    r"""JSON as PHP's `json_encode` prints it: ASCII with \uXXXX, no spaces, slashes escaped."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, separators=separators, indent=indent).replace("/", "\\/")


def send_json_success(message: str) -> str:
    """The body of a message that was answered."""
    return encode_json({"success": True, "data": {"message": message}})


def send_json_error(data: Any) -> str:
    """The body of a refusal; plugins put a text, an object or a list into `data`."""
    return encode_json({"success": False, "data": data})


def render_page(settings_script: str) -> str:
    """The chat page around the script that holds its settings; that may be empty."""
    return _PAGE.replace("%SETTINGS%", settings_script)


def localize_script(variable: str) -> str:
    """A script as `wp_localize_script` prints it; `variable` is the JavaScript after the equals sign."""
    return f'<script id="kimi-chat-js-extra">\n/* <![CDATA[ */\nvar kimi_ajax = {variable};\n/* ]]> */\n</script>'


def settings_script(ajax_url: str, nonce: str, style: str) -> str:
    """The script with the page's settings, in one of the styles that are met in the wild (`PAGE_STYLES`)."""
    url = _FOREIGN_AJAX_URL if style == "foreign_ajax_url" else ajax_url
    settings: dict[str, Any] = {"ajax_url": url, "nonce": nonce}
    if style == "minified":
        return (
            '<script id="kimi-chat-js-extra">!function(w){w.k={"v":"1"}}(window);'
            f'var q={{"a":{{}}}},kimi_ajax={encode_json(settings)},z=function(){{return q}};</script>'
        )
    if style == "nested":
        settings = {
            "strings": {"hint": "<b>Type here</b> {or there};", "limit": "1000"},
            "rest": {"url": "/wp-json/", "nonce": "2222222222"},
        } | settings
    return localize_script(encode_json(settings, indent=4 if style == "multiline" else None))
