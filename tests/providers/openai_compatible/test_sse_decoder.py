"""The decoder of event streams."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import UnexpectedReply
from app.providers.api_upstream.sse_decoder import SseDecoder

_LINES = st.sampled_from(
    ["data: {}", "data:x", "data:  two", ": comment", "event: ping", "id: 7", "retry: 5", "data", '{"bare": 1}', "",
     "", "data: 你好 👩‍👧", "data: [DONE]", ":", "unknown"]
)  # fmt: skip
_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def decoder(longest_event: int = 10_000, longest_stream: int = 100_000) -> SseDecoder:
    return SseDecoder(longest_event=longest_event, longest_stream=longest_stream)


def decoded(*parts: bytes) -> list[bytes]:
    sse = decoder()
    return [*(event for part in parts for event in sse.feed(part)), *sse.finish()]


def feed_often(sse: SseDecoder, part: bytes) -> None:
    for _ in range(1000):
        sse.feed(part)


@given(st.lists(st.tuples(_LINES, _ENDS), max_size=12), st.booleans(), st.lists(st.integers(0, 300), max_size=12))
def test_however_the_bytes_are_split_the_events_are_the_same(
    lines: list[tuple[str, str]], mark: bool, cuts: list[int]
) -> None:
    """Any split of any stream, within a character or a line end too, gives the same events."""
    whole = ("\ufeff" * mark + "".join(line + end for line, end in lines)).encode()
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    parts = [whole[start:end] for start, end in pairwise(places)]
    one_by_one = [bytes([byte]) for byte in whole]
    # As upstreams mostly send them.
    blocks = [block + b"\n\n" for block in whole.split(b"\n\n")]
    blocks[-1] = blocks[-1].removesuffix(b"\n\n")
    assert decoded(*parts) == decoded(whole) == decoded(*one_by_one) == decoded(*blocks)


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": OPENROUTER PROCESSING\n\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"event: message\nid: 1\ndata: a\nretry: 9\n\n", [b"a"]),
        (b"data: a", [b"a"]),
        (b'{"error": "x"}', [b'{"error": "x"}']),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says_and_a_little_beyond(wire: bytes, events: list[bytes]) -> None:
    """Line ends, comments, marks, several data lines, an end without a blank line, and bare JSON."""
    assert decoded(wire) == events


def test_lines_events_and_streams_without_an_end_are_cut_off() -> None:
    """Neither a long line, nor a long event of short lines, nor endless comments fill the memory."""
    endless: list[tuple[SseDecoder, bytes]] = [
        (decoder(longest_event=100), b"data: xxxxxxxx"),
        (decoder(longest_event=100), b"data: xxxxxxxx\n"),
        (decoder(longest_stream=1000), b": xxxxxxxx\n\n"),
    ]
    for sse, part in endless:
        with pytest.raises(UnexpectedReply):
            feed_often(sse, part)
