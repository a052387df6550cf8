"""The front page: what this is, whether it works, and how to call it, in English and Chinese. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from app.api.pages.browsers import hash_source, page_headers

LANGUAGES: Final = ("en", "zh")


class State(Struct, frozen=True):
    """Whether the gateway can serve, as `/ready` says it.

    Args:
        status: `ready`, `degraded` or `not_ready`.
        stopping: Whether the process is about to end.
        failing: The upstreams that can't be asked, each with the code of its failure; empty for an unknown one.
    """

    status: str
    stopping: bool
    failing: Sequence[tuple[str, str]]


class _Texts(Struct, frozen=True):
    tongue: str
    purpose: str
    ready: str
    degraded: str
    not_ready: str
    stopping: str
    unusable: str
    address_title: str
    openai: str
    anthropic: str
    key_hint: str
    try_title: str
    greeting: str
    more_title: str
    reference: str
    description: str
    readiness: str
    manual: str
    reasons: Mapping[str, str]
    other_reason: str


_ENGLISH = _Texts(
    tongue="en",
    purpose="A self-hosted gateway that puts the APIs of OpenAI, Anthropic and Gemini in front of the Kimi web chat.",
    ready="Ready: requests are answered.",
    degraded="Ready, but sessions can't be read or stored at the moment. Requests without a session are answered.",
    not_ready="Not ready: no upstream can be asked at the moment. The gateway goes on trying.",
    stopping="Stopping: the gateway is about to end or to restart.",
    unusable="These upstreams can't be asked at the moment:",
    address_title="Connect",
    openai="Base URL for OpenAI SDKs and chat apps",
    anthropic="Base URL for Anthropic's and Google's SDKs and Claude Code",
    key_hint="Every call needs an API key. Ask whoever runs this gateway; the demo prints its key in the terminal.",
    try_title="Try it",
    greeting="Hello!",
    more_title="More",
    reference="API reference, with examples to execute",
    description="OpenAPI description",
    readiness="State as JSON",
    manual="The manual is in README.md and the folder docs of the source code.",
    reasons=MappingProxyType(
        {
            "cloudflare_challenge": "Cloudflare wants to see a browser there.",
            "nonce_missing": "its page is not what the gateway expects.",
            "site_changed": "it no longer works as the gateway expects.",
            "nonce_rejected": "it refuses every message.",
            "upstream_blocked": "its firewall blocks this gateway.",
            "upstream_rate_limited": "it asks for fewer requests.",
            "upstream_timeout": "it does not answer in time.",
            "upstream_unavailable": "it is down, or can't be reached from here.",
        }
    ),
    other_reason="it failed several times in a row, and is left alone for a while.",
)
_CHINESE = _Texts(
    tongue="zh-CN",
    purpose="自托管网关：为 Kimi 网页聊天提供兼容 OpenAI、Anthropic 和 Gemini 的 API。",
    ready="就绪：可以处理请求。",
    degraded="就绪，但目前无法读取或保存会话；不带会话的请求不受影响。",
    not_ready="未就绪：目前没有可用的上游。网关会继续尝试。",
    stopping="正在停止：网关即将退出或重启。",
    unusable="以下上游目前不可用：",
    address_title="接入",
    openai="Base URL，用于 OpenAI SDK 和聊天应用",
    anthropic="Base URL，用于 Anthropic 和 Google 的 SDK 以及 Claude Code",
    key_hint="每次调用都需要 API 密钥，请向网关的管理者索取；演示会把密钥打印在终端里。",
    try_title="试一试",
    greeting="你好！",
    more_title="更多",
    reference="API 参考，示例可以直接执行",
    description="OpenAPI 描述",
    readiness="JSON 格式的状态",
    manual="使用手册见源代码中的 README.zh-CN.md 和 docs 目录。",
    reasons=MappingProxyType(
        {
            "cloudflare_challenge": "Cloudflare 要求使用浏览器访问。",
            "nonce_missing": "页面与网关的预期不符。",
            "site_changed": "工作方式与网关的预期不符。",
            "nonce_rejected": "拒绝所有消息。",
            "upstream_blocked": "防火墙拦截了本网关。",
            "upstream_rate_limited": "要求减少请求。",
            "upstream_timeout": "没有及时回答。",
            "upstream_unavailable": "已停止服务，或者从这里无法访问。",
        }
    ),
    other_reason="连续多次失败，暂停使用一段时间。",
)

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6570;--ground:#fbfcfd;--card:#fff;--line:#dde2e8;--link:#0a58ca;
--good:#18794e;--fair:#8a5a00;--bad:#c62a2f}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--ground:#111417;--card:#191d22;--line:#2e353d;
--link:#7ab4ff;--good:#4cc38a;--fair:#f1a10d;--bad:#ff6369}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.55 system-ui,sans-serif}
main{max-width:46rem;margin:0 auto;padding:2.5rem 1.25rem}
h1{font-size:1.7rem;line-height:1.2;margin:0}
h1 small{font-size:.95rem;font-weight:400;color:var(--soft)}
h2{font-size:1.05rem;margin:0 0 .5rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.15rem;margin-top:1rem}
p,ul{margin:.4rem 0}
ul{padding-left:1.2rem}
dl{margin:0}
dt{color:var(--soft);font-size:.9rem;margin-top:.4rem}
dd{margin:0;overflow-x:auto}
code,pre{font:.9rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{margin:0;overflow-x:auto;user-select:all}
dd code{user-select:all}
a{color:var(--link)}
.soft{color:var(--soft);font-size:.9rem}
.state{border-left-width:.35rem}
.ready{border-left-color:var(--good)}
.degraded{border-left-color:var(--fair)}
.not_ready{border-left-color:var(--bad)}
"""
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' "
    "rx='4' fill='%230a58ca'/%3E"
    "%3Cpath d='M5 4v8M11 4l-5 4 5 4' fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E"
)
FRONT_PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {**page_headers(style_src=hash_source(_STYLE), img_src="data:"), "vary": "accept, accept-language"}
)


def front_page(name: str, version: str, address: str, prefix: str, state: State, language: str) -> str:
    """The page.

    Args:
        address: Of the gateway as the browser sees it, without a slash at its end.
        prefix: The path below which a proxy serves the gateway.
        language: One of `LANGUAGES`.
    """
    texts = _CHINESE if language == "zh" else _ENGLISH
    base_url = f"{address}/v1"
    links = (("/docs", texts.reference), ("/openapi.json", texts.description), ("/ready", texts.readiness))
    rows = "".join(f'<li><a href="{escape(prefix + path)}">{escape(text)}</a></li>' for path, text in links)
    return f"""<!DOCTYPE html>
<html lang="{texts.tongue}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}</title>
<link rel="icon" href="{_ICON}">
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(name)} <small>{escape(version)}</small></h1>
<p>{escape(texts.purpose)}</p>
{_state_section(state, texts)}
<section>
<h2>{escape(texts.address_title)}</h2>
<dl>
<dt>{escape(texts.openai)}</dt><dd><code>{escape(base_url)}</code></dd>
<dt>{escape(texts.anthropic)}</dt><dd><code>{escape(address)}</code></dd>
</dl>
<p class="soft">{escape(texts.key_hint)}</p>
</section>
<section>
<h2>{escape(texts.try_title)}</h2>
<pre><code>{escape(_curl_line(base_url, texts))}</code></pre>
</section>
<section>
<h2>{escape(texts.more_title)}</h2>
<ul>{rows}</ul>
<p class="soft">{escape(texts.manual)}</p>
</section>
</main>
</body>
</html>
"""


def _state_section(state: State, texts: _Texts) -> str:
    sentences = {"ready": texts.ready, "degraded": texts.degraded}
    sentence = texts.stopping if state.stopping else sentences.get(state.status, texts.not_ready)
    failing = "".join(
        f"<li>{escape(name)}: {escape(texts.reasons.get(code, texts.other_reason))}</li>"
        for name, code in state.failing
    )
    details = f'<p class="soft">{escape(texts.unusable)}</p><ul class="soft">{failing}</ul>' if failing else ""
    kind = state.status if state.status in sentences else "not_ready"
    return f'<section class="state {kind}"><strong>{escape(sentence)}</strong>{details}</section>'


def _curl_line(base_url: str, texts: _Texts) -> str:
    return (
        f"curl -N {base_url}/chat/completions \\\n"
        '  -H "Authorization: Bearer YOUR_API_KEY" \\\n'
        '  -d \'{"model": "kimi", "stream": true,\n'
        f'       "messages": [{{"role": "user", "content": "{texts.greeting}"}}]}}\''
    )
