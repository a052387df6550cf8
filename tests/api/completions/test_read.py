"""What a request of the legacy completions dialect means, and what is wrong with one."""

from typing import Any

import pytest

from app.api.completions.dialect import COMPLETIONS
from app.api.dialects import Exchange
from app.domain.chat import ChatCall, Message, SessionRef
from app.domain.errors import InvalidRequest
from tests.api.answers import OPENING, answer
from tests.api.reading import read

IN_SESSION = {b"x-session-id": b"s"}


def _read(headers: dict[bytes, bytes] | None = None, **fields: Any) -> Exchange:
    return read(COMPLETIONS, {"prompt": "Once", **fields}, headers)


def _calls(headers: dict[bytes, bytes] | None = None, **fields: Any) -> tuple[ChatCall, ...]:
    return _read(headers, **fields).calls


def test_a_prompt_is_a_users_message() -> None:
    """One call with the limits that the request names, and the rest for upstreams that know it."""
    [call] = _calls(model="kimi", max_tokens=7, stop=["a", ""], temperature=0.5, user="u")
    assert call.messages == (Message("user", "Once"),)
    assert (call.model, call.max_tokens, call.stop, call.session) == ("kimi", 7, ("a",), None)
    assert call.options["temperature"] == 0.5
    exchange = _read(temperature=0.5, user="u", frequency_penalty=1)
    assert exchange.ignored == ["frequency_penalty", "temperature"]
    assert _calls()[0].model == "default-model"


def test_several_prompts_are_several_calls() -> None:
    """In their order, one conversation each."""
    assert [call.messages[0].text for call in _calls(prompt=["One", "Two"])] == ["One", "Two"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["x"] * 21}, "prompt"),
        ({"prompt": ["x", "y"], "stream": True}, "prompt"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 0}, None),
        ({"logprobs": 3}, "logprobs"),
        ({"suffix": "the end"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
    ],
)
def test_what_cant_be_done_is_refused_with_its_place(fields: dict[str, Any], param: str | None) -> None:
    """A 400 that names the field; logprobs of 0 tokens are none."""
    if param is None:
        assert _calls(**fields)
        return
    with pytest.raises(InvalidRequest) as refusal:
        _calls(**fields)
    assert refusal.value.param == param


def test_several_prompts_are_no_turns_of_a_session() -> None:
    """Nobody could say which of them came first."""
    with pytest.raises(InvalidRequest):
        _calls(IN_SESSION, prompt=["One", "Two"])
    assert _calls(IN_SESSION)[0].session == SessionRef("s", "header")


def test_only_the_header_opens_a_session() -> None:
    """A user of this dialect who completes one text after the other means no conversation."""
    assert _calls(user="ada")[0].session is None


def test_the_prompt_comes_back_to_those_who_ask() -> None:
    """With `echo` each whole answer begins with its own prompt, and so does a stream."""
    exchange = _read(prompt=["One", "Two"], echo=True)
    body = exchange.write([answer(" a"), answer(" b")])
    assert b'"text":"One a"' in body
    assert b'"text":"Two b"' in body
    assert b'"text":"Once"' in _read(echo=True, stream=True).encoder(OPENING).opening()
    plain = _read(stream=True)
    assert plain.encoder(OPENING).opening() == b""
    assert b'"text":" a"' in plain.write([answer(" a")])
