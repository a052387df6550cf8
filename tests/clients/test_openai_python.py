"""The official Python SDK against a running gateway, when all goes well."""

from collections.abc import Iterable
from urllib.parse import unquote

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from tests.clients.sdk import MODEL, ask, connect, connect_async, said, text_of
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, BOB_KEY, LiveGateway

FORTY_BYTES = "Forty bytes of text, or just ten tokens."


def joined(chunks: Iterable[ChatCompletionChunk]) -> str:
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_plain_completion(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A completion has the site's reply as its text, the asked model's name and one choice that stopped by itself."""
    site.site.update(reply=EMOJI_TEXT)
    completion = openai_client.chat.completions.create(model=MODEL, messages=said("Hello"))
    assert text_of(completion) == EMOJI_TEXT
    assert (completion.object, completion.model) == ("chat.completion", MODEL)
    assert [choice.finish_reason for choice in completion.choices] == ["stop"]
    assert completion.choices[0].message.role == "assistant"
    assert completion.id.startswith("chatcmpl-")
    assert [message.message for message in site.site.messages] == ["Hello"]


def test_a_stream_says_the_same_as_a_plain_completion(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A streamed answer, joined, is the plain answer to the character; its chunks share id, time and model."""
    site.site.update(reply=EMOJI_TEXT * 3)
    whole = text_of(openai_client.chat.completions.create(model=MODEL, messages=said("Hello")))
    chunks = list(openai_client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=True))
    assert joined(chunks) == whole == EMOJI_TEXT * 3
    assert len(chunks) > 10
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


async def test_the_async_client(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The asynchronous client gets the same text plain and streamed."""
    site.site.update(reply=EMOJI_TEXT)
    async with connect_async(gateway) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=said("Hello"))
        stream = await client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=True)
        chunks = [chunk async for chunk in stream]
    assert joined(chunks) == text_of(completion) == EMOJI_TEXT


def test_the_sdks_own_stream_helper_puts_the_answer_together(openai_client: OpenAI, site: LiveSimulator) -> None:
    """`chat.completions.stream()`, which accumulates strictly, ends with the whole answer and its finish reason."""
    site.site.update(reply=EMOJI_TEXT)
    with openai_client.chat.completions.stream(
        model=MODEL, messages=said("Hello"), stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == EMOJI_TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert kinds.count("content.done") == 1


def test_a_stream_that_is_left_early_costs_nothing(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A client that closes a stream after its first chunk can go on asking."""
    site.site.update(reply="word " * 200)
    with openai_client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=True) as stream:
        next(stream)
    site.site.update(reply="still here")
    assert ask(openai_client, "Hello") == "still here"


@pytest.mark.parametrize(
    ("prompt", "reply", "usage"),
    [("Hello there", FORTY_BYTES, (3, 10, 13)), ("你好", "好", (2, 1, 3)), ("x" * 400, "y" * 4001, (100, 1001, 1101))],
    ids=["english", "chinese", "long"],
)
def test_usage_is_reckoned_from_the_texts(
    openai_client: OpenAI, site: LiveSimulator, prompt: str, reply: str, usage: tuple[int, int, int]
) -> None:
    """Usage follows the sizes of what was really sent and received, the same plain and streamed, in a last chunk."""
    site.site.update(reply=reply)
    plain = openai_client.chat.completions.create(model=MODEL, messages=said(prompt)).usage
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL, messages=said(prompt), stream=True, stream_options={"include_usage": True}
        )
    )
    assert plain is not None
    assert (plain.prompt_tokens, plain.completion_tokens, plain.total_tokens) == usage
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_the_models(openai_client: OpenAI) -> None:
    """All models are listed, the alias `kimi` among them, and each can be looked up."""
    models = openai_client.models.list().data
    assert {model.id for model in models} == {"kimi", "kimi-k2-instruct", "kimi-k2-instruct-0905"}
    for model in models:
        assert openai_client.models.retrieve(model.id) == model
        assert (model.object, model.owned_by) == ("model", "moonshotai")


def test_an_alias_answers_under_its_own_name(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The alias `kimi` asks the default model; the answer is by whom the client asked, whoever it was in the end."""
    completion = openai_client.chat.completions.create(model="kimi", messages=said("Hello"))
    assert completion.model == "kimi"
    assert [message.model for message in site.site.messages] == ["moonshotai/Kimi-K2-Instruct-0905"]


def test_a_model_name_may_hold_a_slash(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """A model whose public name holds a slash can be looked up and asked."""
    name = "moonshotai/kimi-k2"
    models = {name: "moonshotai/Kimi-K2-Instruct"}
    with start_gateway(known_models=models, default_model=name) as gateway, connect(gateway) as client:
        assert client.models.retrieve(name).id == name
        assert client.chat.completions.create(model=name, messages=said("Hello")).model == name
    assert [message.model for message in site.site.messages] == ["moonshotai/Kimi-K2-Instruct"]


def test_a_session_by_user(openai_client: OpenAI) -> None:
    """Calls with the same `user` are one conversation, whether their answers are streamed or not."""
    stream = openai_client.chat.completions.create(
        model=MODEL, messages=said("My name is Mio."), user="mio", stream=True
    )
    assert "Mio" in joined(stream)
    ask(openai_client, "How are you?", user="mio")
    assert ask(openai_client, "What is my name?", user="mio") == "Your name is Mio."


def test_a_session_by_header(openai_client: OpenAI) -> None:
    """Calls with the same X-Session-Id are one conversation, and the header wins over `user`."""
    ask(openai_client, "My name is Mio.", session_id="table-7")
    assert ask(openai_client, "What is my name?", session_id="table-7", user="somebody") == "Your name is Mio."
    assert ask(openai_client, "What is my name?", user="somebody").startswith("You have not told me your name.")


async def test_a_session_through_the_async_client(gateway: LiveGateway) -> None:
    """The asynchronous client keeps a conversation over several calls."""
    async with connect_async(gateway) as client:
        for text in ("My name is Mio.", "How are you?"):
            await client.chat.completions.create(model=MODEL, messages=said(text), user="mio")
        last = await client.chat.completions.create(model=MODEL, messages=said("What is my name?"), user="mio")
    assert text_of(last) == "Your name is Mio."


def test_calls_without_a_session_remember_nothing(openai_client: OpenAI) -> None:
    """Without `user` and X-Session-Id each call stands alone."""
    ask(openai_client, "My name is Mio.")
    assert ask(openai_client, "What is my name?").startswith("You have not told me your name.")


def test_two_users_are_kept_apart(openai_client: OpenAI) -> None:
    """What one `user` tells, another of the same key never hears."""
    ask(openai_client, "My name is Mio.", user="one")
    ask(openai_client, "My name is Ana.", user="two")
    assert ask(openai_client, "What is my name?", user="three").startswith("You have not told me your name.")
    assert ask(openai_client, "What is my name?", user="two") == "Your name is Ana."
    assert ask(openai_client, "What is my name?", user="one") == "Your name is Mio."


@pytest.mark.parametrize("name", ["user", "session_id"])
def test_two_keys_are_kept_apart(gateway: LiveGateway, name: str) -> None:
    """The same session name under another API key is another session."""
    with connect(gateway, ALICE_KEY) as alice, connect(gateway, BOB_KEY) as bob:
        ask(alice, "My name is Mio.", **{name: "shared"})
        assert ask(bob, "What is my name?", **{name: "shared"}).startswith("You have not told me your name.")
        assert ask(alice, "What is my name?", **{name: "shared"}) == "Your name is Mio."


def test_a_turn_sent_again_is_answered_from_memory(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The same turn under the same Idempotency-Key gets the first answer again, and the site hears of it once."""
    answers = [
        openai_client.chat.completions.with_raw_response.create(
            model=MODEL, messages=said("Hello"), user="mio", extra_headers={"Idempotency-Key": "turn-1"}
        )
        for _ in range(2)
    ]
    assert [answer.headers["x-session-action"] for answer in answers] == ["new", "replayed"]
    assert len({text_of(answer.parse()) for answer in answers}) == 1
    assert site.site.counters.messages == 1


def test_a_session_name_in_any_script(openai_client: OpenAI) -> None:
    """A `user` in Chinese is a session like any other; the header, which can't hold it, has it percent-encoded."""
    ask(openai_client, "My name is Mio.", user="七号桌")
    raw = openai_client.chat.completions.with_raw_response.create(
        model=MODEL, messages=said("What is my name?"), user="七号桌"
    )
    assert text_of(raw.parse()) == "Your name is Mio."
    assert unquote(raw.headers["x-session-id"]) == "七号桌"


def test_a_client_that_sends_the_whole_history(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A client that sends all turns itself is understood without a session, and nothing is added to them."""
    history: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "My name is Mio."},
        {"role": "assistant", "content": "Nice to meet you."},
        {"role": "user", "content": "What is my name?"},
    ]
    completion = openai_client.chat.completions.create(model=MODEL, messages=history, user="mio")
    assert text_of(completion) == "Your name is Mio."
    assert [message.message for message in site.site.messages] == [
        "[User]: My name is Mio.\n[Assistant]: Nice to meet you.\n[User]: What is my name?"
    ]


def test_the_response_headers(openai_client: OpenAI) -> None:
    """The raw response shows request id, processing time, what became of the session and which fields were ignored."""
    raw = openai_client.chat.completions.with_raw_response.create(
        model=MODEL, messages=said("Hello"), user="mio", temperature=0.2, seed=7, metadata={"a": "b"}
    )
    completion = raw.parse()
    assert raw.headers["x-request-id"] == raw.request_id == completion._request_id
    assert raw.headers["openai-processing-ms"].isdigit()
    assert raw.headers["x-session-action"] == "new"
    assert raw.headers["x-session-id"] == "mio"
    assert raw.headers["x-ignored-params"] == "seed, temperature"
    assert raw.headers["x-prompt-chars"] == "5/1000"


def test_a_stream_has_the_same_headers(openai_client: OpenAI) -> None:
    """A streamed response tells the same in its headers, and is not to be buffered on its way."""
    ask(openai_client, "Hello", user="mio")
    with openai_client.chat.completions.create(
        model=MODEL, messages=said("And now?"), user="mio", stream=True, top_p=0.5
    ) as stream:
        headers = stream.response.headers
        list(stream)
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert headers["x-session-action"] == "continued"
    assert headers["x-ignored-params"] == "top_p"
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-processing-ms"].isdigit()


@pytest.mark.parametrize("stop", [" three", ["nowhere", " three", " four"]], ids=["text", "list"])
def test_stop(openai_client: OpenAI, site: LiveSimulator, stop: str | list[str]) -> None:
    """An answer ends before the first stop text, plain and streamed, with the finish reason `stop`."""
    site.site.update(reply="one two three four five")
    plain = openai_client.chat.completions.create(model=MODEL, messages=said("Count"), stop=stop)
    chunks = list(openai_client.chat.completions.create(model=MODEL, messages=said("Count"), stop=stop, stream=True))
    assert text_of(plain) == joined(chunks) == "one two"
    assert plain.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(openai_client: OpenAI, site: LiveSimulator, name: str) -> None:
    """An answer ends after so many tokens, plain and streamed, with the finish reason `length` and usage to match."""
    site.site.update(reply=FORTY_BYTES)
    limit = {name: 4}
    plain = openai_client.chat.completions.create(model=MODEL, messages=said("Write"), extra_body=limit)
    chunks = list(
        openai_client.chat.completions.create(model=MODEL, messages=said("Write"), extra_body=limit, stream=True)
    )
    assert text_of(plain) == joined(chunks) == FORTY_BYTES[:16]
    assert plain.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "length"
    assert plain.usage is not None
    assert plain.usage.completion_tokens == 4


def test_content_parts(openai_client: OpenAI, site: LiveSimulator) -> None:
    """Text parts are one text, each part on a line of its own."""
    content: ChatCompletionMessageParam = {
        "role": "user",
        "content": [{"type": "text", "text": "Repeat after me: one"}, {"type": "text", "text": "two"}],
    }
    completion = openai_client.chat.completions.create(model=MODEL, messages=[content])
    assert text_of(completion) == "one\ntwo"
    assert [message.message for message in site.site.messages] == ["Repeat after me: one\ntwo"]


@pytest.mark.parametrize("role", ["developer", "system"])
def test_developer_equals_system(openai_client: OpenAI, site: LiveSimulator, role: str) -> None:
    """A developer message reaches the site as a system message does."""
    instruction: ChatCompletionMessageParam = (
        {"role": "developer", "content": "Be brief."}
        if role == "developer"
        else {"role": "system", "content": "Be brief."}
    )
    openai_client.chat.completions.create(model=MODEL, messages=[instruction, *said("Hello")])
    assert [message.message for message in site.site.messages] == ["[System]: Be brief.\n[User]: Hello"]
