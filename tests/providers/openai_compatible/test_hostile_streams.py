"""Streams that were made to take long: each ends with an error, in a time that grows with its bytes, and nobody waits.

`benchmarks/hostile_streams.py` measures how long others wait.
"""

import asyncio
import gzip
import json
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from app.domain.errors import UnexpectedReply
from app.domain.json import object_text, read_json_list, read_json_object
from app.providers.api_upstream.object_end import ObjectEnd
from app.providers.api_upstream.sse_decoder import SseDecoder
from app.providers.base import BaseProvider
from app.providers.openai_compatible.reply import ReplyReader
from tests.providers.openai_compatible.upstream import delta, provider_at, raw_upstream, stream, wanted

MEGABYTE = 1024 * 1024
# Reading all that came so far after each of so many parts would take hours.
MANY = 100_000
HELLO = delta(content="Hello")

# What a stream begins with, and what comes over and over after it.
ENDLESS = {
    "empty lines": (HELLO, b"\n"),
    "carriage returns": (HELLO, b"\r"),
    "empty lines from the start": (b"", b"\n"),
    "a line, then blanks": (b'{"a": 1}\n', b" "),
    "comments": (HELLO, b":\n"),
    "events that say nothing": (HELLO, b"data: {}\n\n"),
    "a line": (HELLO + b"data: ", b"x"),
    "an event's lines": (HELLO, b"data: x\n"),
    "an object's lines": (HELLO + b'data: {"a":[\n', b"data: }\n"),
    "objects that have run together": (HELLO + b"data: ", b"{}"),
    "choices": (HELLO, b'data: {"choices":[' + b'{"index":1000000000,"delta":{"content":"x"}},' * 999 + b"{}]}\n\n"),
    "a document's lists": (b'{"choices":[', b"[],"),
    "what vendors add": (HELLO, delta(annotations=["x" * 100])),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_ends_is_given_up(name: str, packed: bool) -> None:
    """However little a stream says, only so many bytes of it are read, packed ones as they are when unpacked."""
    begin, more = ENDLESS[name]
    said = begin + more * (10 * MEGABYTE // len(more))
    kind = "text/event-stream" + ("\r\nContent-Encoding: gzip" if packed else "")
    pieces = [gzip.compress(said)] if packed else [said]
    async with raw_upstream(stream(*pieces, kind=kind)) as upstream, provider_at(upstream.base_url) as provider:
        with pytest.raises(UnexpectedReply):
            async for _ in provider.stream_completion(wanted()):
                pass


async def _rounds(turns: list[int]) -> None:
    while True:
        turns[0] += 1
        await asyncio.sleep(0)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("more", [b"\n", b"data: {}\n\n", b"data: " + b"{}" * 1000 + b"\n\n", b": " + b"x" * 10_000])
async def test_others_have_their_turn_while_a_small_part_is_unpacked(more: bytes, whole: bool) -> None:
    """A few kilobytes that hold megabytes arrive at once; the event loop turns all the same, once for a few of them."""
    said = HELLO + more * (3 * MEGABYTE // len(more)) + b"\ndata: [DONE]\n\n"
    kind = "text/event-stream\r\nContent-Encoding: gzip"
    answer = stream(gzip.compress(said), kind=kind)
    async with (
        raw_upstream(answer) as upstream,
        provider_at(upstream.base_url, max_reply_bytes=4 * MEGABYTE) as provider,
    ):
        turns = [0]
        others = asyncio.create_task(_rounds(turns))
        if whole:
            assert (await provider.create_completion(wanted())).text == "Hello"
        else:
            assert "".join([part.text async for part in provider.stream_completion(wanted())]) == "Hello"
        others.cancel()
    assert turns[0] > len(said) / (64 * 1024)


async def test_a_stream_as_a_whole_answer_is_read_in_turns() -> None:
    """Unpacked or not: each of many events is work, and others come in between."""
    said = HELLO + delta(content="x") * 20_000 + b"data: [DONE]\n\n"
    async with (
        raw_upstream(stream(said)) as upstream,
        provider_at(upstream.base_url, max_reply_bytes=4 * MEGABYTE) as (provider),
    ):
        turns = [0]
        others = asyncio.create_task(_rounds(turns))
        assert len((await provider.create_completion(wanted())).text) == 20_005
        others.cancel()
    assert turns[0] > 20_000 * 512 / (64 * 1024)


def _document(**message: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": message}]}


def _part(arguments: str, **more: str) -> dict[str, object]:
    function = {"arguments": arguments, **{name: value for name, value in more.items() if name == "name"}}
    call = {"function": function, **{name: value for name, value in more.items() if name != "name"}}
    return _document(tool_calls=[call])


LARGE = '{"a": "' + "x" * (2 * MEGABYTE) + '"}'
MESSAGE = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
LONG: dict[str, object] = _document(content="long " * 200_000)
END: dict[str, object] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

# What a reader is told first, and then many times.
REPEATED: dict[str, tuple[list[dict[str, object]], dict[str, object]]] = {
    "arguments without a name": ([], _part("x")),
    "arguments that are no object": ([_part("", name="f")], _part("x")),
    "braces": ([_part('{"a":[', name="f")], _part("}")),
    "braces with an id": ([_part('{"a":[', name="f")], _part("}", id="z")),
    "blanks": ([_part("", name="f")], _part(" ")),
    "large arguments once more, but for a letter": ([_part(LARGE, name="f", id="c")], _part('{"a": "x"}', id="c")),
    "sums of large calls": ([_part(LARGE, name="f", id="c")], {"choices": [{"index": 0, "message": MESSAGE}]}),
    "sums of a long text": ([LONG], {"choices": [{"index": 0, "message": {"content": "long " * 5}}]}),
    "messages in place of deltas": ([], {"choices": [{"index": 0, "message": {"content": "long " * 5}}]}),
    "repeats at the end": ([LONG, END], _document(content="long " * 5)),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_part_is_read_in_a_time_of_its_own(name: str) -> None:
    """However much came before it: no part makes a reader look at everything once more."""
    begin, again = REPEATED[name]
    reader = ReplyReader("acme", 100 * MEGABYTE)
    for document in begin:
        reader.feed(document)
    try:
        for _ in range(MANY):
            reader.feed(again)
    except UnexpectedReply as error:
        assert "more than 128 tool calls" in error.message  # noqa: PT017 - one of two good ends


def test_arguments_that_are_held_back_count() -> None:
    """A call without a name is told to nobody; its length is bounded all the same."""
    reader = ReplyReader("acme", 1000)
    for _ in range(1000):
        reader.feed(_part("x"))
    with pytest.raises(UnexpectedReply, match="longer than 1000"):
        reader.feed(_part("x"))


@pytest.mark.parametrize("lines", [[b"data: {"], [b'data: {"a":['], [b'data: {"a": [1,', b"data: 2,"]])
def test_lines_of_an_object_are_read_in_linear_time(lines: Sequence[bytes]) -> None:
    """An event's lines are put together now and then, not after each of them."""
    decoder = SseDecoder(longest_event=8 * MEGABYTE, longest_stream=80 * MEGABYTE)
    decoder.feed(b"\n".join([*lines, b""]))
    for _ in range(MANY):
        decoder.feed(b'data: "}": "}\n')
    assert sum(map(len, decoder.finish())) > MANY


def test_what_is_odd_about_an_answer_is_logged_once() -> None:
    """A stream that is odd a thousand times doesn't fill the log."""
    reader = ReplyReader("acme", MEGABYTE)
    reader.feed(LONG)
    with capture_logs() as lines:
        for _ in range(1000):
            reader.feed({"choices": [{"index": 0, "message": {"content": "other"}, "finish_reason": "whatever"}]})
    assert sorted(line["event"] for line in lines) == ["upstream.summary_differs", "upstream.unknown_finish_reason"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "}"}',
        '{"a": "\\"}"}',
        '{"a": {"b": "\\\\"}}',
        '  {"a": [{}, {"}": "{"}]} ',
        "{}",
        '{"\\u007d": "\\\\\\""}',
    ],
)
def test_the_end_of_an_object_is_found_however_it_is_cut(text: str) -> None:
    """Braces and quotes within texts don't count; it is over at its last brace, neither before nor after."""
    for size in range(1, len(text) + 1):
        end, so_far = ObjectEnd(), ""
        for start in range(0, len(text), size):
            end.feed(text[start : start + size])
            so_far += text[start : start + size]
            assert end.is_over == (object_text(so_far) is not None and so_far.strip() != "")
        assert end.begins
        end.feed(" \n")
        assert end.is_over
        end.feed("{")
        assert not end.is_over


@pytest.mark.parametrize("what", [b"[]", b"{}", b"0", b"[0]"])
@pytest.mark.parametrize("cut", [b"", b"]}"])
def test_a_document_of_a_million_values_is_not_decoded(what: bytes, cut: bytes) -> None:
    """It would take longer than others may wait; a long text with as many commas and braces is."""
    many = b",".join([what] * MEGABYTE)
    assert read_json_object(b'{"a":[' + many + cut) is None
    assert read_json_list(b"[" + many + cut) is None
    assert read_json_object(json.dumps({"a": many.decode()}).encode()) == {"a": many.decode()}


@pytest.mark.parametrize("text", ["1" * MEGABYTE, '1\\"' * MEGABYTE, "\\" * MEGABYTE + '"' + "1" * MEGABYTE])
def test_a_number_of_absurd_length_is_not_decoded(text: str) -> None:
    """It takes a time that grows with its square; a text of digits is but a text."""
    assert read_json_object(b'{"a": ' + b"1" * MEGABYTE + b"}") is None
    assert read_json_object(json.dumps({"a": text, "b": 1}).encode()) == {"a": text, "b": 1}


async def test_a_hundred_megabytes_are_not_kept() -> None:
    """An answer may be as long as MAX_REPLY_BYTES says, in characters, and no longer."""
    text = delta(content="x" * 1000)
    async with raw_upstream(stream(*[text * 1000] * 4)) as upstream, provider_at(upstream.base_url) as provider:
        heard = [0]
        with pytest.raises(UnexpectedReply, match="longer than 1000000 characters"):
            await _hear(provider, heard)
    assert heard == [1_000_000]


async def _hear(provider: BaseProvider, heard: list[int]) -> None:
    async for part in provider.stream_completion(wanted()):
        heard[0] += len(part.text)
