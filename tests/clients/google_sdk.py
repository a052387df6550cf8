"""Google's Python SDK pointed at a running gateway."""

from collections.abc import Sequence

from google import genai
from google.genai import types

from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS, LiveGateway


def connect(gateway: LiveGateway, key: str = ALICE_KEY, *, attempts: int = 1) -> genai.Client:
    """The SDK's client; close it. It tries nothing again unless asked to, so that each error comes through at once."""
    options = types.HttpOptions(
        base_url=gateway.base_url,
        timeout=int(WAIT_SECONDS * 1000),
        retry_options=types.HttpRetryOptions(attempts=attempts, initial_delay=0.01, max_delay=0.01),
        client_args={"verify": NO_TLS},
        async_client_args={"verify": NO_TLS},
    )
    return genai.Client(api_key=key, http_options=options)


def parts_of(answer: types.GenerateContentResponse) -> list[types.Part]:
    """The parts of the first answer."""
    assert answer.candidates
    content = answer.candidates[0].content
    assert content is not None
    return content.parts or []


def texts_of(answers: Sequence[types.GenerateContentResponse], *, thought: bool = False) -> str:
    """What is said, or thought, in all parts of a streamed answer."""
    parts = [part for answer in answers for part in parts_of(answer)]
    return "".join([part.text for part in parts if part.text and bool(part.thought) is thought])
