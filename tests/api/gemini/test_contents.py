"""What contents and their parts mean."""

from typing import Any

import pytest

from app.api.gemini.contents import Unreadable, read_conversation
from app.api.gemini.schemas import GeminiContent, GeminiInstruction
from app.api.wire.conversation import Conversation
from app.domain.chat import Image, Message, ToolCall
from app.domain.errors import InvalidRequest

CALL = {"functionCall": {"name": "weather", "args": {"city": "Köln"}}}
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def conversation(*contents: dict[str, Any], system: dict[str, Any] | None = None) -> Conversation:
    """What contents mean."""
    instruction = None if system is None else GeminiInstruction.model_validate(system)
    return read_conversation(instruction, [GeminiContent.model_validate(content) for content in contents])


def read(*contents: dict[str, Any], system: dict[str, Any] | None = None) -> tuple[Message, ...]:
    """The messages of a conversation that can be read."""
    found = conversation(*contents, system=system)
    assert found.refusal is None
    return found.messages


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    """What a user says."""
    return {"role": "user", "parts": list(parts)}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    """What the model has said."""
    return {"role": "model", "parts": list(parts)}


def text(words: str) -> dict[str, Any]:
    """A text."""
    return {"text": words}


def test_texts_are_joined() -> None:
    """A user's parts stand below each other; without a role a content is the user's."""
    assert read(user(text("one"), text("two"))) == (Message("user", "one\ntwo"),)
    assert read({"parts": [text("Hi")]}) == read({"parts": text("Hi")}) == (Message("user", "Hi"),)
    assert read({"role": "", "parts": [text("Hi")]}) == (Message("user", "Hi"),)


def test_the_instruction_comes_first() -> None:
    """Its texts are one message; an empty one is none."""
    system = {"parts": [text("Be brief."), text("Be kind.")]}
    assert read(user(text("Hi")), system=system) == (Message("system", "Be brief.\n\nBe kind."), Message("user", "Hi"))
    assert read(user(text("Hi")), system={"parts": [text("")]}) == (Message("user", "Hi"),)
    assert read(user(text("Hi")), system={}) == (Message("user", "Hi"),)
    # As Google's older SDK for JavaScript writes it.
    assert read(user(text("Hi")), system={"role": "system", **system})[0].text == "Be brief.\n\nBe kind."


def test_the_parts_of_a_streamed_answer_are_one() -> None:
    """Google's SDKs send back what was streamed piece by piece, an empty piece at the end."""
    found = conversation(user(text("Hi")), model(text("Good ")), model(text("day.")), model(text("")), user(text("?")))
    said = Message("assistant", "Good day.")
    assert found.turns == ((Message("user", "Hi"),), (said,), (), (), (Message("user", "?"),))


def test_thousands_of_parts_are_joined_at_once() -> None:
    """In a time that grows with their length: joining one after the other would take minutes."""
    part = GeminiContent.model_validate(model(text("x" * 200), {"functionCall": {"name": "f", "args": {}}}))
    (answer,) = read_conversation(None, [part] * 60_000).messages
    assert (len(answer.text), len(answer.tool_calls)) == (200 * 60_000, 60_000)


def test_thoughts_and_signatures() -> None:
    """What was thought is no text, and signatures stay with the call or the text that they came with."""
    parts = ({"text": "Hm.", "thought": True}, {"text": "So: ", "thought_signature": "c2ln"}, text("yes."))
    assert read(user(text("?")), model(*parts))[1] == Message("assistant", "So: yes.", reasoning="Hm.", extras=SIGNED)
    [call] = read(user(text("?")), model({**CALL, "thoughtSignature": "c2ln"}))[1].tool_calls
    assert call.extras == SIGNED


def test_a_round_of_calls_without_ids() -> None:
    """Results belong to the calls of their names, in their order, whatever else the user says with them."""

    def result(name: str, response: dict[str, Any]) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": response}}

    clock = {"function_call": {"name": "clock"}}
    results = [text("Well?"), result("clock", {"at": 9}), result("weather", {"result": "Rain."})]
    _, asked, *answered = read(user(text("?")), model(CALL, clock), user(*results))
    assert [(call.name, call.arguments) for call in asked.tool_calls] == [
        ("weather", '{"city":"Köln"}'),
        ("clock", "{}"),
    ]
    weather, clock_call = [call.id for call in asked.tool_calls]
    assert answered == [
        Message("tool", '{"at":9}', name="clock", tool_call_id=clock_call),
        Message("tool", "Rain.", name="weather", tool_call_id=weather),
        Message("user", "Well?"),
    ]
    assert len({weather, clock_call, ""}) == 3


def test_calls_keep_their_ids() -> None:
    """An id that a client sends back is the one that counts."""
    call = {"functionCall": {"id": "c1", "name": "weather", "args": {}}}
    answer = {"functionResponse": {"id": "c1", "name": "weather", "response": {"error": "away"}}}
    _, asked, result = read(user(text("?")), model(call), {"role": "function", "parts": [answer]})
    assert asked.tool_calls == (ToolCall("c1", "weather", "{}"),)
    assert result == Message("tool", '{"error":"away"}', name="weather", tool_call_id="c1")


def test_data() -> None:
    """Images go on in the usual base64, whichever came; texts are read; also within a function's response."""
    image = {"inlineData": {"mimeType": "image/png", "data": "-_8"}}
    shown = Image("data:image/png;base64,+/8=", "contents[0].parts[0].inlineData")
    notes = {"inline_data": {"mime_type": "text/markdown", "data": "SGkh"}}
    assert read(user(image, notes, text("?"))) == (Message("user", "[image]\nHi!\n?", parts=(shown, "Hi!", "?")),)
    result = {"functionResponse": {"name": "look", "response": {"result": "A cat."}, "parts": [image]}}
    [seen] = read(user(result))
    assert (seen.text, [each.place for each in seen.images]) == (
        "A cat.\n[image]",
        ["contents[0].parts[0].functionResponse.parts[0].inlineData"],
    )


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (user(text("?"), {"fileData": {"fileUri": "x"}}), "contents[0].parts[1].fileData", "inlineData"),
        (user({"file_data": {"file_uri": "x"}}), "contents[0].parts[0].fileData", "inlineData"),
        (
            user({"inlineData": {"mimeType": "audio/wav", "data": ""}}),
            "contents[0].parts[0].inlineData.mimeType",
            "wav",
        ),
        (user(CALL), "contents[0].parts[0]", "role"),
        (model({"functionResponse": {"name": "weather"}}), "contents[0].parts[0]", "role"),
        (model({"executableCode": {"code": "1"}}), "contents[0].parts[0]", "executableCode"),
    ],
)
def test_what_only_gemini_can_read(content: dict[str, Any], place: str, words: str) -> None:
    """It is refused by its place unless a Gemini upstream gets it as it came."""
    refusal = conversation(content).refusal
    assert isinstance(refusal, Unreadable)
    assert refusal.param == place
    assert words in refusal.message


@pytest.mark.parametrize("content", [user(), user(text("")), model(text("")), {"role": "user"}])
def test_a_conversation_must_say_something(content: dict[str, Any]) -> None:
    """Nothing is not a conversation."""
    with pytest.raises(InvalidRequest, match="at least one part"):
        conversation(content)


def test_a_text_must_be_base64() -> None:
    """What is none can't be read by anybody."""
    with pytest.raises(InvalidRequest, match="not base64"):
        conversation(user({"inlineData": {"mimeType": "text/plain", "data": "é"}}))
