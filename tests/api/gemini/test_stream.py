"""The documents of a streamed answer, as an SDK reads them."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from google.genai import types

from app.api.gemini.stream import ContentEncoder
from app.api.gemini.write import write_content
from app.chat.deltas import gather
from app.chat.events import Answer, Ending
from app.domain.chat import Delta, NativeEvent, ToolCallDelta, Usage
from app.domain.errors import UnexpectedReply, UpstreamTimeout
from tests.api.answers import OPENING, answer, ending

USAGE = Usage(30, 12, cached_tokens=10, reasoning_tokens=4)
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
IMAGE = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}


def encoder(*, show_thoughts: bool = True, as_array: bool = False) -> ContentEncoder:
    """The encoder of an answer."""
    return ContentEncoder(OPENING, show_thoughts=show_thoughts, as_array=as_array, request_id="req_1")


def documents(stream: bytes) -> list[Any]:
    """The documents of a stream of events, all of which the SDK knows."""
    *blocks, rest = stream.decode().split("\n\n")
    assert not rest.strip()
    found = [json.loads(block.strip().removeprefix("data: ")) for block in blocks]
    for document in found:
        if "error" not in document:
            types.GenerateContentResponse.model_validate(document)
    return found


def written(of: ContentEncoder, deltas: Iterable[Delta], end: Ending) -> bytes:
    """A whole stream, as the event stream has it written."""
    stream = of.opening()
    for delta in deltas:
        if delta.choice:
            stream += of.other_choice(delta)
        elif delta.native:
            stream += of.native(delta.native)
        else:
            stream += of.reasoning(delta.reasoning) if delta.reasoning else b""
            stream += of.tool_call(delta.tool_call) if delta.tool_call else b""
            stream += of.refusal(delta.refusal) if delta.refusal else b""
            stream += of.extras(delta.text, delta.extras) if delta.extras else of.text(delta.text)
    return stream + of.ending(end)


def parts(found: list[Any], index: int = 0) -> list[Any]:
    """The parts that an answer consists of, but for the empty one at its end."""
    candidates = [one for document in found for one in document.get("candidates", ()) if one["index"] == index]
    return [part for one in candidates for part in one["content"]["parts"] if part != {"text": ""}]


def test_a_text() -> None:
    """Each piece is a document; the last has finish reason, usage and a part, without which a chat forgets it."""
    found = documents(written(encoder(), [Delta("Good "), Delta("day.")], ending(usage=USAGE, text="Good day.")))
    first, _, last = found
    assert first["candidates"] == [{"content": {"parts": [{"text": "Good "}], "role": "model"}, "index": 0}]
    assert {document["modelVersion"] for document in found} == {"kimi"}
    assert len({document["responseId"] for document in found}) == 1
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["candidates"][0]["content"] == {"parts": [{"text": ""}], "role": "model"}
    assert last["usageMetadata"] == {
        "promptTokenCount": 30,
        "candidatesTokenCount": 8,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 10,
        "totalTokenCount": 42,
    }


DELTAS = [
    Delta(reasoning="Hm."),
    Delta("Let me "),
    Delta("see."),
    Delta(tool_call=ToolCallDelta(0, "c1", "weather", '{"ci', SIGNED)),
    Delta(tool_call=ToolCallDelta(0, arguments='ty":"Köln"}')),
    Delta(tool_call=ToolCallDelta(1, "c2", "clock")),
]
CALLS = [
    {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Köln"}}, "thoughtSignature": "c2ln"},
    {"functionCall": {"id": "c2", "name": "clock", "args": {}}},
]


def test_thoughts_text_and_calls() -> None:
    """A call is written when it is complete, with its signature; a stream says what a whole answer says."""
    completion = gather([*DELTAS, Delta(finish_reason="tool_calls", usage=USAGE)])
    found = documents(written(encoder(), DELTAS, Ending(completion, USAGE)))
    said = [{"text": "Let me "}, {"text": "see."}]
    assert parts(found) == [{"text": "Hm.", "thought": True}, *said, *CALLS]
    assert found[-1]["candidates"][0]["finishReason"] == "STOP"
    whole = json.loads(write_content([Answer(OPENING, Ending(completion, USAGE))], show_thoughts=True))
    assert whole["candidates"][0]["content"]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"text": "Let me see."},
        *CALLS,
    ]
    assert whole["usageMetadata"] == found[-1]["usageMetadata"]


def test_thoughts_are_only_for_those_who_want_them() -> None:
    """A stream has a sign of life in their place, which is no comment: Google's clients can't read one."""
    hidden = encoder(show_thoughts=False)
    assert hidden.reasoning("Hm.").strip() == b""
    whole = json.loads(write_content([answer("Yes.", reasoning="Hm.")], show_thoughts=False))
    assert whole["candidates"][0]["content"]["parts"] == [{"text": "Yes."}]


def test_signatures_and_images() -> None:
    """What a provider adds has its place: a signature with the text before it, an image as data."""
    deltas = [Delta("Yes."), Delta(extras=SIGNED), Delta(extras=IMAGE)]
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    streamed = [{"text": "Yes."}, {"text": "", "thoughtSignature": "c2ln"}, image]
    assert parts(documents(written(encoder(), deltas, ending()))) == streamed
    whole = json.loads(write_content([answer("Yes.", extras={**SIGNED, **IMAGE})], show_thoughts=True))
    assert whole["candidates"][0]["content"]["parts"] == [{"text": "Yes.", "thoughtSignature": "c2ln"}, image]


def test_several_answers() -> None:
    """Each has its index, its calls and its end."""
    call = Delta(tool_call=ToolCallDelta(0, "c1", "clock", "{}"), choice=1)
    deltas = [Delta("A"), Delta("B", choice=1), call, Delta(finish_reason="length", choice=1)]
    found = documents(written(encoder(), deltas, ending(text="A")))
    assert parts(found) == [{"text": "A"}]
    assert parts(found, 1) == [{"text": "B"}, {"functionCall": {"id": "c1", "name": "clock", "args": {}}}]
    ends = [
        (one["index"], one["finishReason"]) for each in found for one in each["candidates"] if "finishReason" in one
    ]
    assert ends == [(1, "MAX_TOKENS"), (0, "STOP")]


@pytest.mark.parametrize(("reason", "said"), [("length", "MAX_TOKENS"), ("content_filter", "SAFETY")])
def test_a_call_that_was_cut_off_is_none(reason: Any, said: str) -> None:
    """Half a call can't be made; any other that makes no sense is the model's fault."""
    half = Delta(tool_call=ToolCallDelta(0, "c1", "clock", '{"at'))
    completion = gather([half, Delta(finish_reason=reason)])
    found = documents(written(encoder(), [half], Ending(completion, USAGE)))
    assert (parts(found), found[-1]["candidates"][0]["finishReason"]) == ([], said)
    assert b'"parts":[]' in write_content([Answer(OPENING, Ending(completion, USAGE))], show_thoughts=True)
    complete = Ending(gather([half, Delta(finish_reason="tool_calls")]), USAGE)
    with pytest.raises(UnexpectedReply):
        written(encoder(), [half], complete)
    with pytest.raises(UnexpectedReply):
        write_content([Answer(OPENING, complete)], show_thoughts=True)


def test_a_refusal_is_told_by_the_finish_reason() -> None:
    """What is said in place of an answer is text."""
    found = documents(written(encoder(), [Delta(refusal="No.")], ending(refusal="No.")))
    assert (parts(found), found[-1]["candidates"][0]["finishReason"]) == ([{"text": "No."}], "SAFETY")


def test_an_array() -> None:
    """Without events the documents are one JSON array, with signs of life in it, and with a failure at its end."""
    stream = encoder(as_array=True)
    begun = stream.opening() + stream.ping + stream.text("Hi") + stream.ping + stream.text(" you")
    assert [parts([each]) for each in json.loads(begun + stream.ending(ending(text="Hi")))] == [
        [{"text": "Hi"}],
        [{"text": " you"}],
        [],
    ]
    failed = json.loads(begun + stream.failure(UpstreamTimeout("Too late.")))
    assert failed[-1]["error"]["status"] == "DEADLINE_EXCEEDED"
    assert json.loads(encoder(as_array=True).opening() + encoder(as_array=True).ending(ending()))


def test_a_failure() -> None:
    """It is a document in place of the end."""
    [failed] = documents(encoder().failure(UpstreamTimeout("Too late.")))
    assert (failed["error"]["code"], failed["error"]["message"]) == (504, "Too late.")


def native(**fields: Any) -> NativeEvent:
    """A document of a Gemini upstream's."""
    return NativeEvent("", json.dumps({"modelVersion": "gemini-own", **fields}).encode())


def test_documents_of_the_upstreams_own() -> None:
    """They pass as they came, but for the model's name; a notice goes before the one that ends the answer."""
    code = {"candidates": [{"content": {"parts": [{"executableCode": {"code": "1"}}]}, "index": 0}]}
    last = {"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": {"totalTokenCount": 9}}
    again = NativeEvent("", b"")
    deltas = [
        Delta(native=(native(**code),)),
        Delta(native=(again,)),
        Delta(native=(native(**last),)),
        Delta("A notice."),
    ]
    first, notice, end = documents(written(encoder(), deltas, ending()))
    assert first == {"modelVersion": "kimi", **code}
    assert parts([notice]) == [{"text": "A notice."}]
    assert end == {"modelVersion": "kimi", **last}


def test_a_whole_answer_of_the_upstreams_own() -> None:
    """So does a whole one, with a notice as its last part."""
    document = json.loads(native(candidates=[{"content": {"parts": [{"text": "Hi"}]}}], responseId="r").data)
    told = answer("", native=document)
    shown = Answer(told.opening, Ending(told.ending.completion, USAGE, "A notice."))
    assert json.loads(write_content([told], show_thoughts=False)) == {**document, "modelVersion": "kimi"}
    [candidate] = json.loads(write_content([shown], show_thoughts=False))["candidates"]
    assert candidate["content"]["parts"] == [{"text": "Hi"}, {"text": "A notice."}]
