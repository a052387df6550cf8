"""The OpenAI SDK pointed at a running gateway, and the few words that the tests say through it."""

from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS, LiveGateway

MODEL = "kimi-k2-instruct-0905"


def connect(gateway: LiveGateway, key: str = ALICE_KEY, *, max_retries: int = 0) -> OpenAI:
    """The SDK's client; close it. It tries nothing again unless asked to, so that each error comes through at once."""
    return OpenAI(
        base_url=gateway.openai_url,
        api_key=key,
        max_retries=max_retries,
        timeout=WAIT_SECONDS,
        http_client=DefaultHttpxClient(verify=NO_TLS),
    )


def connect_async(gateway: LiveGateway, key: str = ALICE_KEY) -> AsyncOpenAI:
    """The same for asyncio."""
    return AsyncOpenAI(base_url=gateway.openai_url, api_key=key, max_retries=0, timeout=WAIT_SECONDS)


def said(text: str) -> list[ChatCompletionMessageParam]:
    """A conversation of one user turn."""
    return [{"role": "user", "content": text}]


def text_of(completion: ChatCompletion) -> str:
    """What was answered."""
    content = completion.choices[0].message.content
    assert content is not None
    return content


def ask(client: OpenAI, text: str, *, user: str | None = None, session_id: str | None = None) -> str:
    """The answer to one user turn, in a session if one is named."""
    completion = client.chat.completions.create(
        model=MODEL,
        messages=said(text),
        extra_body={"user": user} if user else None,
        extra_headers={"X-Session-Id": session_id} if session_id else None,
    )
    return text_of(completion)
