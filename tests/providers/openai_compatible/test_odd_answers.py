"""Answers that are odd: what is lost, told twice or cut in them is noticed, through the real provider over a socket."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from app.chat.deltas import gather
from app.domain.chat import Completion, ToolCall, Usage
from app.domain.errors import EmptyReply, UnexpectedReply, UpstreamUnavailable
from tests.providers.openai_compatible.upstream import (
    DONE,
    chunked,
    delta,
    event,
    joined,
    provider_at,
    raw_upstream,
    reply,
    stream,
    streamed,
    wanted,
)

TEXT = "Rain on the roof."
PIECES = (delta(content="Rain "), delta(content="on the "), delta(content="roof."))
STOP = delta("stop")


def chunk(**choice: object) -> bytes:
    """The event of a chunk whose choice has these fields."""
    return event({"choices": [{"index": 0} | choice]})


def message(finish_reason: str = "stop", **fields: object) -> dict[str, object]:
    """A whole answer."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish_reason}]}


def call(call_id: str | None, name: str | None, arguments: object, **fields: object) -> dict[str, object]:
    """A part of a call, or a whole one."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**({"id": call_id} if call_id else {}), "function": function, **fields}


def calls_of(answer: Completion) -> list[tuple[str, object]]:
    """Name and arguments of the calls, whose ids all differ."""
    assert len({found.id for found in answer.tool_calls}) == len(answer.tool_calls)
    return [(found.name, json.loads(found.arguments)) for found in answer.tool_calls]


async def whole(body: object) -> Completion:
    """The answer of an upstream that is asked for a whole one."""
    async with raw_upstream(reply(body)) as upstream, provider_at(upstream.base_url) as provider:
        return await provider.create_completion(wanted())


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([delta("stop", content="Rain "), *PIECES[1:], DONE], id="text-after-the-reason"),
        pytest.param([*PIECES[:2], STOP, event({"choices": [], "usage": {"prompt_tokens": 1}}), PIECES[2], DONE],
                     id="text-after-reason-and-usage"),
        pytest.param([delta("stop", content=piece) for piece in ("Rain ", "on the ", "roof.")], id="reason-in-each"),
        pytest.param([*PIECES, chunk(message={"content": TEXT}, finish_reason="stop"), DONE], id="message-at-the-end"),
        pytest.param([*PIECES, chunk(delta={}, message={"content": TEXT}, finish_reason="stop"), DONE],
                     id="message-beside-an-empty-delta"),
        pytest.param([*PIECES, STOP, event(message(content=f" {TEXT}\n"))], id="summary-with-other-spaces"),
        pytest.param([*PIECES[:2], event(message(content=TEXT)), DONE], id="summary-with-something-new"),
        pytest.param([*PIECES, delta("stop", content=TEXT), DONE], id="last-delta-has-it-all"),
        pytest.param([*PIECES, STOP, delta(content=TEXT), DONE], id="a-delta-behind-the-reason-has-it-all"),
        pytest.param([chunk(message={"content": "Rain "}), chunk(message={"content": "Rain on the "}),
                      chunk(message={"content": TEXT}, finish_reason="stop")], id="messages-that-grow"),
        pytest.param([chunk(message={"content": "Rain "}), chunk(message={"content": "on the roof."}), STOP],
                     id="messages-for-deltas"),
        pytest.param([b"".join([*PIECES, STOP, DONE]).replace(b"\n\n", b"\n")], id="one-line-end"),
        pytest.param([piece.replace(b"\n\n", b"\r") for piece in (*PIECES, STOP, DONE)], id="one-carriage-return"),
        pytest.param([b"".join([*PIECES, STOP, DONE]).replace(b"\n\n", b"")], id="no-line-end-at-all"),
        pytest.param([b"data:\n\n", *PIECES, b"data: ping\n\n", b"data: null\n\n", STOP, DONE], id="signs-of-life"),
        pytest.param([b"data: " + piece for piece in (*PIECES, STOP, DONE)], id="data-twice"),
        pytest.param([piece.removeprefix(b"data: ").replace(b"\n\n", b"\n") for piece in (*PIECES, STOP)],
                     id="lines-of-json"),
        pytest.param([*PIECES, STOP, b"[DONE]\n"], id="done-without-data"),
        pytest.param([b"data: {\ndata: " + PIECES[0][7:], *PIECES[1:], STOP], id="json-over-two-lines"),
        pytest.param([b"\0" + PIECES[0], b" " + PIECES[1], b"\xef\xbb\xbf" + PIECES[2], STOP], id="dirt-before-data"),
        pytest.param([piece.replace(b"data:", b"Data :") for piece in (*PIECES, STOP)], id="data-in-other-letters"),
        pytest.param([chunk(delta={"content": {"type": "text", "text": TEXT}}), STOP], id="a-part-without-its-list"),
        pytest.param([chunk(delta={"content": [{"type": ["x"]}, {"type": {}}, {"text": TEXT}]}), STOP], id="odd-types"),
        pytest.param([chunk(index="0", delta={"content": TEXT}), STOP], id="a-text-for-the-index"),
        pytest.param([*PIECES, chunk(delta={}, finishReason="stop")], id="the-reason-in-camel-case"),
        pytest.param([event({"status": "ok", "message": "Routed."}), *PIECES, STOP,
                      event({"code": 0, "msg": "success"}), DONE], id="all-is-well-in-the-envelope"),
    ],
)  # fmt: skip
async def test_the_text_comes_whole_and_once(pieces: Sequence[bytes]) -> None:
    """Whatever comes after a reason counts, what is said again doesn't, and any framing will do."""
    answer = joined(await streamed(*stream(*pieces)))
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain", "text/html"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"".join([*PIECES, STOP, DONE]), id="events"),
        pytest.param(b"\n\n: hello\n\n" + b"".join([*PIECES, STOP]), id="events-behind-a-comment"),
        pytest.param(json.dumps(message(content=TEXT)).encode(), id="compact"),
        pytest.param(b"\xef\xbb\xbf \n" + json.dumps(message(content=TEXT), indent=2).encode() + b"\n", id="pretty"),
    ],
)
async def test_the_body_tells_what_it_is(body: bytes, kind: str, streaming: bool) -> None:
    """Events and whole answers are told from each other, whatever they are called and whatever was asked for."""
    async with raw_upstream(reply(body, kind=kind)) as upstream, provider_at(upstream.base_url) as provider:
        if streaming:
            answer = joined([part async for part in provider.stream_completion(wanted())])
        else:
            answer = await provider.create_completion(wanted())
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize("hold", [False, True])
async def test_a_stream_that_nobody_asked_for_ends_with_its_last_event(hold: bool) -> None:
    """Whether the connection is left open behind it, or lost before the last chunk."""
    answer = chunked(*PIECES, STOP, DONE)
    async with raw_upstream(answer, hold=hold) as upstream, provider_at(upstream.base_url) as provider:
        assert (await provider.create_completion(wanted())).text == TEXT


async def test_reasons_that_cannot_be_believed_do_not_make_a_lost_connection_an_end() -> None:
    """If text comes after a reason, the next loss of the connection may well have cost some."""
    pieces = [delta("stop", content=piece) for piece in ("Rain ", "on the ")]
    with pytest.raises(UpstreamUnavailable):
        await streamed(*chunked(*pieces))


A, B = ("read", {"path": "alpha"}), ("read", {"path": "beta"})
ALPHA, BETA = '{"path": "alpha"}', '{"path": "beta"}'


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([call("a", "read", ALPHA[:10], index=0), call(None, None, ALPHA[10:], index=1),
                      call("b", "read", BETA[:10], index=1), call(None, None, BETA[10:], index=2)],
                     id="tails-under-the-next-index"),
        pytest.param([call("a", "read", "", index=0), call(None, None, ALPHA, index=1),
                      call("b", "read", "", index=2), call(None, None, BETA, index=3)],
                     id="all-arguments-under-the-next-index"),
        pytest.param([call("a", "read", ALPHA, index=0), call("b", "read", BETA[:10], index=0),
                      call(None, None, BETA[10:], index=0)], id="one-index-for-all"),
        pytest.param([call(None, "read", ALPHA, index=0), call(None, "read", BETA, index=0)], id="one-index-no-ids"),
        pytest.param([call(None, "read", ALPHA), call(None, "read", BETA[:9]), call(None, None, BETA[9:])],
                     id="neither-index-nor-id"),
        pytest.param([call("x", "read", ALPHA, index=0), call("x", "read", BETA, index=1)], id="one-id"),
        pytest.param([call("x", "read", ALPHA, index=0), call("x", "read", BETA, index=0)], id="one-id-and-index"),
        pytest.param([call("x", "read", ALPHA[:5], index=0), call("x", "read", BETA[:5], index=1),
                      call("x", None, BETA[5:], index=1), call("x", None, ALPHA[5:], index=0)],
                     id="one-id-interleaved"),
        pytest.param([call("a", "read", ALPHA[:10], index=0), call("a2", "read", ALPHA[10:], index=0),
                      call("b", "read", BETA, index=1)], id="an-id-for-each-part-with-its-name"),
        pytest.param([call("a", "read", "{}", index=0), call(None, None, ALPHA, index=0),
                      call("b", "read", BETA, index=1)], id="begins-with-an-empty-object"),
        pytest.param([call("a", "read", ALPHA, index=0), call("a", "read", ALPHA, index=0),
                      call("b", "read", BETA, index=1)], id="the-whole-call-again"),
        pytest.param([call("a", "read", json.dumps(ALPHA), index=0), call("b", "read", {"path": "beta"}, index=1)],
                     id="text-in-a-text-and-an-object"),
        pytest.param([call("a", "read", " \n" + ALPHA, index=0), call("b", "read", BETA + "\n", index=1)],
                     id="spaces-around"),
        pytest.param([call("a", "read", ALPHA[:5], index="0"), call("b", "read", BETA[:5], index="1"),
                      call(None, None, ALPHA[5:], index="0"), call(None, None, BETA[5:], index="1")],
                     id="indexes-that-are-texts"),
    ],
)  # fmt: skip
async def test_parts_that_belong_together_come_together(parts: list[dict[str, object]]) -> None:
    """Two calls, whole, under different ids, however unreliable indexes and ids are."""
    answer = joined(await streamed(*stream(*[delta(tool_calls=[part]) for part in parts], STOP, DONE)))
    assert calls_of(answer) == [A, B]
    assert answer.finish_reason == "tool_calls"


async def test_calls_that_come_together_or_again_at_the_end() -> None:
    """Two in one chunk, one behind the reason, and all of them in a summary."""
    third = ("read", {"path": "gamma"})
    together = [call("x", "read", ALPHA), call("x", "read", BETA)]
    everything = [*together, call("z", "read", '{"path": "gamma"}')]
    pieces = [delta("stop", tool_calls=together), event(message(content=None, tool_calls=everything)), DONE]
    assert calls_of(joined(await streamed(*stream(*pieces)))) == [A, B, third]
    assert calls_of(await whole(message(content=None, tool_calls=everything))) == [A, B, third]


@pytest.mark.parametrize("arguments", [None, "", " ", "null", "{}", "[]", {}, '""'])
async def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    """Nothing at all, in any spelling, is `{}`, whole and streamed."""
    found = call("a", "now", arguments)
    answers = [await whole(message(content=None, tool_calls=[found]))]
    answers.append(joined(await streamed(*stream(delta(tool_calls=[{**found, "index": 0}]), STOP, DONE))))
    assert [answer.tool_calls for answer in answers] == [(ToolCall("a", "now", "{}"),)] * 2


async def test_arguments_are_valid_json_though_their_pieces_are_not() -> None:
    """Raw line ends and tabs within a text are escaped, and a pair of surrogates may come in two events."""
    pieces = ['{\n\t"path": "a', "\n\tb\ud83d", '\ude00"\n}']
    lines = [json.dumps({"choices": [{"delta": {"tool_calls": [call("a", "read", piece)]}}]}) for piece in pieces]
    answer = joined(await streamed(*stream(*[f"data: {line}\n\n".encode() for line in lines], STOP, DONE)))
    assert answer.tool_calls[0].arguments == '{\n\t"path": "a\\u000a\\u0009b😀"\n}'
    assert calls_of(await whole(message(content=None, tool_calls=[call("a", "read", '{"path": "a\tb"}')]))) == [
        ("read", {"path": "a\tb"})
    ]


async def test_what_comes_within_a_call_comes_behind_it() -> None:
    """Most dialects can't go on with a call after something else; the call's end is not waited for in vain."""
    middle = [delta(content="Rain "), delta(reasoning="Hm."), delta(content="on the ", annotations=[{"type": "x"}])]
    begun, ended = delta(tool_calls=[call("a", "read", ALPHA[:9])]), delta(tool_calls=[call(None, None, ALPHA[9:])])
    deltas = await streamed(*stream(begun, *middle, ended, delta(content="roof."), STOP, DONE))
    places = [place for place, part in enumerate(deltas) if part.tool_call is not None]
    assert places == [0, 1]
    answer = joined(deltas)
    assert (answer.text, answer.reasoning, calls_of(answer)) == (TEXT, "Hm.", [A])
    assert answer.extras == {"annotations": [{"type": "x"}]}
    without = joined(await streamed(*stream(delta(tool_calls=[call("a", "now", "")]), *PIECES, STOP, DONE)))
    assert (without.text, calls_of(without)) == (TEXT, [("now", {})])


async def test_raw_control_characters_in_an_answer_are_read() -> None:
    """Servers that put their JSON together by hand don't escape line ends."""
    assert (await whole(b'{"choices":[{"message":{"content":"a\n\tb"}}]}')).text == "a\n\tb"


@pytest.mark.parametrize("nothing", [{"id": "a"}, {"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}])
async def test_calls_of_nothing_are_no_answer(nothing: dict[str, object]) -> None:
    """A call without a function, and nothing else, is an empty answer, whole and streamed."""
    with pytest.raises(EmptyReply):
        await whole(message(content=None, tool_calls=[nothing]))
    with pytest.raises(EmptyReply):
        await streamed(*stream(delta(tool_calls=[nothing]), STOP, DONE))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([call("a", "read", ALPHA[:9], index=0)], id="cut"),
        pytest.param([call("a", "read", "[1]", index=0)], id="no-object"),
        pytest.param([call("a", "read", ALPHA, index=0), call(None, None, BETA, index=5)], id="belongs-to-none"),
        pytest.param([call("a", "read", ALPHA, index=0), call(None, None, '"}', index=0)], id="too-much"),
        pytest.param([call(f"c{number}", "read", ALPHA, index=number) for number in range(129)], id="too-many"),
    ],
)
async def test_calls_that_make_no_sense_are_an_error(parts: list[dict[str, object]]) -> None:
    """What can't be told apart, or is no object, is not dropped in silence. Where an answer was cut, a call may be."""
    with pytest.raises(UnexpectedReply):
        await streamed(*stream(*[delta(tool_calls=[part]) for part in parts], STOP, DONE))


async def test_a_call_that_was_cut_with_its_answer_is_handed_on() -> None:
    """The finish reason says why its arguments have no end."""
    answer = joined(await streamed(*stream(delta(tool_calls=[call("a", "read", ALPHA[:9])]), delta("length"), DONE)))
    assert answer.finish_reason == "length"
    assert answer.tool_calls == (ToolCall("a", "read", ALPHA[:9]),)


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"thinking": "Hm."},
        {"reasoning": {"content": "Hm."}},
        {"reasoning": "Hm.", "reasoning_content": "Hm."},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}]},
        {"content": [{"type": "reasoning", "text": "Hm."}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
    ],
)
async def test_thoughts_in_all_the_fields_they_come_in(thought: dict[str, Any]) -> None:
    """They are thoughts, once, and no part of the text; whole and streamed."""
    parts = [*thought.get("content", ()), {"type": "text", "text": "So"}]
    answers = [
        await whole(message(**{**thought, "content": parts})),
        joined(await streamed(*stream(delta(**thought), delta("stop", content="So"), DONE))),
        joined(
            await streamed(
                *stream(delta(**thought), delta(content="So"), event(message(**{**thought, "content": parts})))
            )
        ),
    ]
    assert [(answer.reasoning, answer.text) for answer in answers] == [("Hm.", "So")] * 3


async def test_a_refusal_is_no_text() -> None:
    """Whole, streamed, and as a part of the content."""
    answers = [
        await whole(message(content=None, refusal="I can't.")),
        await whole(message(content=[{"type": "refusal", "refusal": "I can't."}])),
        joined(
            await streamed(*stream(delta(content=None, refusal=""), delta(refusal="I "), delta(refusal="can't."), STOP))
        ),
    ]
    assert [(answer.text, answer.refusal, answer.finish_reason) for answer in answers] == [("", "I can't.", "stop")] * 3


async def test_what_a_provider_adds_is_kept() -> None:
    """Logprobs with their text, annotations and reasoning details, a call's signature; whole and streamed."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    logprobs = [{"content": [{"token": token, "logprob": -0.1}]} for token in ("Ra", "in")]
    added: dict[str, Any] = {
        "annotations": [{"type": "url_citation"}],
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
    }
    document = message(content="Rain", tool_calls=[call("a", "now", "{}", **signature)], **added)
    document["choices"][0]["logprobs"] = {"content": [*logprobs[0]["content"], *logprobs[1]["content"]]}  # type: ignore[index]
    pieces = [
        chunk(delta={"content": token}, logprobs=told) for token, told in zip(("Ra", "in"), logprobs, strict=True)
    ]
    pieces += [delta(**added), delta(tool_calls=[call("a", "now", "{}", index=0, **signature)]), STOP, DONE]
    deltas = await streamed(*stream(*pieces))
    assert [part.extras for part in deltas if part.text] == [{"logprobs": told} for told in logprobs]
    for answer in (await whole(document), joined(deltas)):
        assert answer.extras == {
            **added,
            "logprobs": {"content": [entry for told in logprobs for entry in told["content"]]},
        }
    assert (await whole(document)).tool_calls[0].extras == signature
    assert [part.tool_call.extras for part in deltas if part.tool_call and part.tool_call.id] == [signature]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *[(word, "length") for word in ("MAX_TOKENS", "max_new_tokens", "maxTokens", "FinishReason.MAX_TOKENS", "limit",
                                        "model_context_window_exceeded", 2)],
        *[(word, "content_filter") for word in ("RECITATION", "SAFETY", "content-filter", "PROHIBITED_CONTENT",
                                                "refusal", "guardrail_intervened", "ERROR_TOXIC")],
        *[(word, "stop") for word in ("end_turn", "eos_token", "COMPLETE", "STOP_SEQUENCE", "something-new", "")],
    ],
)  # fmt: skip
async def test_finish_reasons_in_any_vendor_s_words(word: object, expected: str) -> None:
    """A cut is a cut and a filter is one, however they are spelt; an unknown word is a stop."""
    assert (await whole({"choices": [{"message": {"content": "x"}, "finish_reason": word}]})).finish_reason == expected


async def test_a_cut_stays_one_though_a_stop_follows() -> None:
    """Some send the reason, and then one more chunk with `stop`."""
    assert joined(await streamed(*stream(delta("length", content="x"), STOP, DONE))).finish_reason == "length"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"usage": {"input_tokens": 7, "output_tokens": 3}}, Usage(7, 3)),
        ({"usage": {"prompt_tokens": 7.0, "completion_tokens": "3", "total_tokens": None}}, Usage(7, 3)),
        ({"usage": {"promptTokens": 7, "completionTokens": 3}}, Usage(7, 3)),
        ({"usage": {"prompt_tokens": "7", "total_tokens": "10"}}, Usage(7, 3)),
        ({"usage": {"input_tokens": 2, "output_tokens": 3, "cache_read_input_tokens": 5}}, Usage(7, 3, 5)),
        ({"usage": {"input_tokens": 7, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4},
                    "output_tokens_details": {"reasoning_tokens": 2}}}, Usage(7, 3, 4, 2)),
        ({"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3}}, Usage(7, 3)),
        ({"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}}, Usage(7, 3)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, None),
        ({"usage": {"prompt_tokens": True, "completion_tokens": -1}}, None),
    ],
)  # fmt: skip
async def test_tokens_under_all_their_names(document: dict[str, object], expected: Usage | None) -> None:
    """The upstream's own count is used, whatever it calls it and however it writes it; whole and streamed."""
    assert (await whole({**message(content="x"), **document})).usage == expected
    answer = joined(await streamed(*stream(delta("stop", content="x"), event({"choices": [], **document}), DONE)))
    assert answer.usage == expected


async def test_several_answers_come_under_their_choices() -> None:
    """Whole and streamed, however mixed: each has its text, calls and reason. The usage counts all of them."""
    call_b = call("b", "read", BETA, index=0)
    choices = [
        {"index": 1, "message": {"content": "Snow.", "tool_calls": [call_b]}, "finish_reason": "tool_calls"},
        {"index": 0, "message": {"content": "Rain."}, "finish_reason": "length"},
    ]
    pieces = [
        event({"choices": [{"index": 1, "delta": {"content": "Sn"}}, {"index": 0, "delta": {"content": "Rain."}}]}),
        chunk(index=1, delta={"content": "ow."}),
        chunk(index=1, delta={"tool_calls": [call_b]}),
        chunk(index=0, delta={}, finish_reason="length"),
        chunk(index=1, delta={}, finish_reason="stop"),
        event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        DONE,
    ]
    document = {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    async with raw_upstream(reply(document)) as upstream, provider_at(upstream.base_url) as provider:
        answers = [await provider.create_completion(wanted(n=2))]
        upstream.answers = [stream(*pieces)]
        answers.append(gather([part async for part in provider.stream_completion(wanted(n=2))]))
    for answer in answers:
        (other,) = answer.others
        assert (answer.text, answer.finish_reason, answer.usage) == ("Rain.", "length", Usage(7, 3))
        assert (other.text, other.finish_reason, calls_of(other)) == ("Snow.", "tool_calls", [B])
    assert [sent.body["n"] for sent in upstream.requests] == [2, 2]
