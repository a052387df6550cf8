"""Answers as different upstreams word them, through the real provider over a real socket."""

import asyncio

import pytest

from app.domain.chat import Completion, ToolCall, Usage
from app.domain.errors import (
    EmptyReply,
    GatewayError,
    MessageRefused,
    UnexpectedReply,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.providers.openai_compatible.upstream import (
    DONE,
    LAST_CHUNK,
    chunked,
    delta,
    event,
    joined,
    make_guard,
    provider_at,
    raw_upstream,
    reply,
    stream,
    streamed,
    wanted,
)

ROLE = delta(role="assistant", content="")
COUNTED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
SECOND_HALF = delta("stop", content="?!").replace(b"?", b"\\ude00")
FAMILY = "Hi 👩‍👧, 你好"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(
            [ROLE, delta(content="Hello"), delta("stop"), event({"choices": [], "usage": COUNTED}), DONE],
            Completion("Hello", usage=Usage(5, 2)),
            id="openai",
        ),
        pytest.param(
            [delta(content="Hel"), delta(content="lo"), delta("stop")], Completion("Hello"), id="no-done"
        ),
        pytest.param([delta(content="Hello"), DONE], Completion("Hello"), id="no-finish-reason"),
        pytest.param([delta("stop", content="Hello"), b"data: [DONE]"], Completion("Hello"), id="unended-done"),
        pytest.param(
            [b": PROCESSING\r\n\r\n", delta(content="Hello").replace(b"\n", b"\r\n"), delta("stop"), DONE],
            Completion("Hello"),
            id="comments-and-crlf",
        ),
        pytest.param(
            [bytes([byte]) for byte in b"\xef\xbb\xbf" + delta(content=FAMILY) + delta("stop") + DONE],
            Completion(FAMILY),
            id="byte-by-byte",
        ),
        pytest.param(
            [b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', SECOND_HALF, DONE],
            Completion("😀!"),
            id="split-surrogates",
        ),
        pytest.param(
            [event({"id": "x", "usage": None}), event({"choices": None}), delta(content=None), delta(), ROLE,
             event({"choices": [{"index": 1, "delta": {"content": "no"}}]}), delta("stop", content="Hello"), DONE],
            Completion("Hello"),
            id="chunks-with-nothing-in-them",
        ),
        pytest.param(
            [delta(content=None, reasoning_content="Hm"), delta(reasoning="..."), delta("stop", content="So"), DONE],
            Completion("So", reasoning="Hm..."),
            id="reasoning",
        ),
        pytest.param(
            [delta(content=[{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]), delta("eos"), DONE],
            Completion("Hello"),
            id="parts",
        ),
        pytest.param(
            [event({"choices": [{"delta": {"content": "Hello"}, "logprobs": {"content": []}}]}),
             event({"choices": [{"delta": {}, "finish_reason": "max_tokens",
                                 "usage": {**COUNTED, "cached_tokens": 3}}]}), DONE],
            Completion("Hello", "length", Usage(5, 2, cached_tokens=3)),
            id="usage-in-the-choice",
        ),
        pytest.param(
            [event({"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}),
             delta("stop"),
             event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9, "prompt_cache_hit_tokens": 4,
                                             "completion_tokens_details": {"reasoning_tokens": 7}}}), DONE],
            Completion("Hi", usage=Usage(5, 9, 4, 7)),
            id="usage-in-every-chunk",
        ),
        pytest.param(
            [event({"choices": [], "usage": {"prompt_tokens": 5, "total_tokens": 7}}), delta("stop", content="x"),
             event({"choices": [], "usage": {"prompt_tokens": "many"}}), DONE],
            Completion("x", usage=Usage(5, 2)),
            id="half-a-usage",
        ),
        pytest.param(
            [b"data: " + delta(content="a")[6:-1] + delta("stop", content="b"), DONE],
            Completion("ab"),
            id="no-blank-line-between-events",
        ),
        pytest.param([delta("content_filter", content="Wel"), DONE], Completion("Wel", "content_filter"), id="filter"),
        pytest.param([delta("length"), DONE], Completion("", "length"), id="nothing-but-length"),
    ],
)  # fmt: skip
async def test_streams_in_every_dialect(pieces: list[bytes], expected: Completion) -> None:
    """The same words, reasons and counts come out, however an upstream writes its stream."""
    assert joined(await streamed(*stream(*pieces))) == expected


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
             {"index": 0, "function": {"arguments": '{"x"'}}, {"index": 0, "function": {"arguments": ":1}"}},
             {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
            id="openai",
        ),
        pytest.param(
            [{"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
             {"id": "b", "function": {"name": "g", "arguments": "{}"}}],
            id="no-index",
        ),
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
             {"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
            id="always-index-0",
        ),
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}},
             {"index": 0, "id": "a", "function": {"name": "f", "arguments": ":1}"}},
             {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}},
             {"index": 1, "id": "b", "function": {"name": "g", "arguments": "}"}}],
            id="repeated-ids",
        ),
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}},
             {"index": 0, "id": "other", "function": {"arguments": ":1}"}},
             {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
            id="an-id-for-each-part",
        ),
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f"}},
             {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}},
             {"index": 0, "function": {"arguments": '{"x":1}'}}, {"index": 1, "function": {"arguments": "}"}}],
            id="interleaved",
        ),
        pytest.param(
            [{"index": 3, "id": "a"}, {"index": 3, "function": {"name": "f", "arguments": {"x": 1}}},
             {"index": 7, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
            id="odd-indexes-late-name-object",
        ),
    ],
)  # fmt: skip
async def test_tool_calls_in_every_dialect(parts: list[dict[str, object]]) -> None:
    """Two calls come out one after the other, each with its id and name once, at its beginning."""
    pieces = [delta(tool_calls=[part]) for part in parts]
    answer = joined(await streamed(*stream(ROLE, *pieces, delta("tool_calls"), DONE)))
    found = [(call.id, call.name, call.arguments.replace(" ", "")) for call in answer.tool_calls]
    assert found == [("a", "f", '{"x":1}'), ("b", "g", "{}")]
    assert answer.finish_reason == "tool_calls"


async def test_a_tool_call_without_id_or_reason_gets_both() -> None:
    """The legacy `function_call`, and an upstream that ends with `stop`: the client still finds a call to answer."""
    pieces = [delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})]
    answer = joined(await streamed(*stream(*pieces, delta("stop"), DONE)))
    assert answer.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("f", "{}")]
    assert answer.tool_calls[0].id.startswith("call_")


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        pytest.param([ROLE, delta(content="Hel")], UpstreamUnavailable, id="cut-off"),
        pytest.param([ROLE], UpstreamUnavailable, id="cut-off-before-a-word"),
        pytest.param([], UpstreamUnavailable, id="no-event-at-all"),
        pytest.param([delta("error", content="Hel"), DONE], UpstreamUnavailable, id="reason-error"),
        pytest.param([delta("insufficient_system_resource", content="x")], UpstreamUnavailable, id="deepseek"),
        pytest.param([delta(content="Hel"), b"data: {oops\n\n", DONE], UnexpectedReply, id="garbage"),
        pytest.param([delta(content="x" * 2000), delta("stop"), DONE], UnexpectedReply, id="too-long"),
        pytest.param([ROLE, delta("stop"), DONE], EmptyReply, id="empty"),
        pytest.param([DONE], EmptyReply, id="nothing-but-done"),
        pytest.param([delta("content_filter"), DONE], MessageRefused, id="filtered-whole"),
    ],
)
async def test_what_is_no_complete_answer_is_an_error(pieces: list[bytes], kind: type[GatewayError]) -> None:
    """A stream that breaks off, makes no sense or says nothing never looks like an answer."""
    with pytest.raises(kind) as error:
        await streamed(*stream(*pieces), max_reply_bytes=1000)
    assert type(error.value) is kind


async def test_a_connection_that_is_lost_is_a_broken_off_answer() -> None:
    """Without its last chunk a chunked reply is not whole; after `finish_reason` nobody minds."""
    with pytest.raises(UpstreamUnavailable):
        await streamed(*chunked(delta(content="Hel")))
    assert joined(await streamed(*chunked(delta(content="Hello"), delta("stop")))).text == "Hello"


async def test_an_answer_whose_end_never_comes_is_an_error() -> None:
    """Reason and usage end nothing. Who waits in vain for the end has no answer that looks whole."""
    end = event({"choices": [], "usage": COUNTED})
    answer = chunked(delta("stop", content="Hi"), end)
    async with (
        raw_upstream(answer, hold=True) as upstream,
        provider_at(upstream.base_url, guard=make_guard(idle_timeout=0.2)) as provider,
    ):
        parts = provider.stream_completion(wanted())
        assert (await anext(parts)).text == "Hi"
        with pytest.raises(UpstreamTimeout):
            await anext(parts)


@pytest.mark.parametrize("streaming", [False, True])
async def test_whole_answers_are_understood_also_in_place_of_a_stream(streaming: bool) -> None:
    """Text, thoughts, calls, usage: whole, also from an upstream that doesn't stream."""
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
    }
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": COUNTED}
    expected = Completion("", "tool_calls", Usage(5, 2), (ToolCall("a", "f", '{"x":1}'),), "Hm.")
    async with raw_upstream(reply(document)) as upstream, provider_at(upstream.base_url) as provider:
        if streaming:
            assert joined([part async for part in provider.stream_completion(wanted())]) == expected
        else:
            assert await provider.create_completion(wanted()) == expected


async def test_a_connection_is_used_again() -> None:
    """Two calls, one connection: also after a stream, whose end has been read."""
    answer = [*chunked(delta(content="Hi"), delta("stop"), DONE), LAST_CHUNK]
    async with raw_upstream(answer) as upstream, provider_at(upstream.base_url) as provider:
        for _ in range(2):
            assert joined([part async for part in provider.stream_completion(wanted())]).text == "Hi"
    assert (len(upstream.requests), upstream.connections) == (2, 1)


async def test_who_leaves_a_stream_ends_it_at_the_upstream_and_frees_its_slot() -> None:
    """Closing the stream closes the connection at once."""
    guard = make_guard(slots=1)
    async with (
        raw_upstream(chunked(delta(content="Hel")), hold=True) as upstream,
        provider_at(upstream.base_url, guard=guard) as provider,
    ):
        parts = provider.stream_completion(wanted())
        assert (await anext(parts)).text == "Hel"
        assert guard.bulkhead.free == 0
        await parts.aclose()
        await asyncio.wait_for(upstream.left.wait(), 10)
        assert guard.bulkhead.free == 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_who_leaves_before_a_word_ends_the_call_too(streaming: bool) -> None:
    """A cancelled task aborts the call while the upstream is still silent."""
    async with (
        raw_upstream([b"HTTP/1.1 200 OK\r\n"], hold=True) as upstream,
        provider_at(upstream.base_url) as provider,
    ):
        ask = anext(provider.stream_completion(wanted())) if streaming else provider.create_completion(wanted())
        task = asyncio.ensure_future(ask)
        await asyncio.wait_for(upstream.asked.wait(), 10)
        task.cancel()
        await asyncio.wait_for(upstream.left.wait(), 10)
        with pytest.raises(asyncio.CancelledError):
            await task
