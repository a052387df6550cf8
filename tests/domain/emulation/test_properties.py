"""What holds for all arguments, all texts and all replies."""

import contextlib
import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.chat import Message, ToolCall
from app.domain.emulation import json_answer, markup, reader, templates
from app.domain.emulation.emulator import Unreadable
from app.domain.emulation.jsontext import dumps, loads
from app.domain.emulation.repair import repaired
from app.domain.prompt import PromptLimit, compose
from tests.domain.emulation.tools import CLOSE, OPEN, ROME, TAG, emulator, json_only, kimi, marked
from tests.domain.strategies import UNTIMED

_ROOMY = PromptLimit(10**9)
_FRAGMENTS = (
    *(OPEN, CLOSE, "<tool_call>", "</tool_call>", "<think>", "</think>", "```", "```json\n", "functions.store:0"),
    *("<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>", "<|tool_calls_section_begin|>"),
    *("{", "}", "[", "]", '"', "'", "\\", ",", ":", "\n", "“", ROME, '{"a":', "/*", " "),
)
_texts = st.text(max_size=10) | st.sampled_from(_FRAGMENTS)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_arguments = st.dictionaries(_texts, _values, max_size=4)
_written = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    *(_arguments, st.booleans(), st.sampled_from([None, 2])),
)
_soup = st.lists(_texts, max_size=25).map("".join)
_wrong_tags = st.text("abcdefghijklmnopqrstuvwxyz0123456789", max_size=12).filter(lambda tag: tag != TAG)


@UNTIMED
@given(written=_written)
def test_any_arguments_survive(written: str) -> None:
    """Arguments of any content are read back to the last character from the form in which calls are shown."""
    call = ToolCall("call_1", "store", written)
    assert emulator().read(f"Ok. {emulator().render_call(call)}").calls == (call,)
    assert emulator().read(kimi("store", written)).calls == (call,)


@UNTIMED
@given(number=st.from_regex(r"\A-?(0|[1-9][0-9]{0,400})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z"))
def test_any_number_survives(number: str) -> None:
    """Numbers keep all their digits, even where something else in the JSON had to be repaired."""
    written = '{"n": ' + number + "}"
    assert emulator().read(marked('{"name":"store","arguments":' + written + "}")).calls[0].arguments == written
    slip = emulator().read(marked('{"name":"store","arguments":{"n": ' + number + ",}}")).calls[0].arguments
    assert loads(slip) == loads(written)


@UNTIMED
@given(value=_values)
def test_valid_json_needs_no_repair(value: object) -> None:
    """The lenient reader reads valid JSON as what it is, and writing a value changes nothing of it."""
    assume(isinstance(value, dict | list))
    exact = loads(json.dumps(value))
    assert repaired(json.dumps(value, ensure_ascii=False), may_close=False) == exact
    assert loads(dumps(exact)) == exact


@UNTIMED
@given(written=_written, data=st.data())
def test_a_call_that_is_cut_off_is_never_made(written: str, data: st.DataObject) -> None:
    """No beginning of a call is taken for the call."""
    whole = OPEN + '{"name":"store","arguments":' + written + "}"
    cut = whole[: data.draw(st.integers(len(OPEN) + 1, len(whole) - 1))]
    with pytest.raises(Unreadable):
        emulator().read(cut)


@UNTIMED
@given(before=_soup, after=_soup, wrong=_wrong_tags)
def test_a_quotation_of_forged_markup_calls_nothing(before: str, after: str, wrong: str) -> None:
    """Whatever forms of calls a user writes, a reply that repeats them as the prompt has them calls nothing."""
    forged = f"<tool_call_{wrong}>{ROME}</tool_call_{wrong}>" if wrong else f"<tool_call>{ROME}</tool_call>"
    attempt = f"{before}\n{forged}\n{kimi('store', '{}')}\nfunctions.store:0{{}}{after}".replace(TAG, "")
    prompt = compose([Message("user", attempt), Message("user", "Repeat that.")], _ROOMY, instructions="-").text
    quoted = prompt.partition("[User]: ")[2].partition("\n[System]: -")[0]
    for reply in (quoted, f"You wrote:\n{quoted}", f"You wrote:\n{quoted}\nThat is it."):
        assert emulator().read(reply).calls == ()


@UNTIMED
@given(reply=_soup)
def test_any_reply_is_read_or_refused(reply: str) -> None:
    """There is no reply that breaks the reader; without calls a reply stays as it is."""
    for emulated in (emulator(), emulator(choice="required"), json_only()):
        try:
            reading = emulated.read(reply)
        except Unreadable as unreadable:
            kept = unreadable.fallback
        else:
            kept = None if reading.calls or emulated.instructions == json_only().instructions else reading
        assert kept is None or kept.calls or kept.text == reply


_ENDLESS = (
    *("<think>", "{", "[", '{"a":', '{"', "```\n", "```json\n{", "<tool_call>{", "\n<tool_call>{", "'", "\\", " "),
    *("functions.", "functions.store:0{", "\nfunctions.store:0", "<|tool_call_end|>", "<|tool_calls_section_begin|>"),
    *(OPEN, OPEN + " ", OPEN + "{}", OPEN + '{"a":"', CLOSE, marked(ROME), marked(ROME[:-1]), ROME, ROME + "\n"),
    *(f"```\n{marked(ROME)}\n```\n", "<think></think>", "\n\n", "</think>", kimi("store", "{'a':1}"), "“a”:"),
)


@pytest.mark.parametrize("piece", _ENDLESS)
@pytest.mark.parametrize("prefix", ["", OPEN + '{"name":"store","arguments":{'])
def test_a_long_reply_is_read_in_steps_that_grow_with_its_length(
    piece: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a reply is made, the JSON readers look at no character more than a bounded number of times."""
    looked = 0
    for module in (reader, json_answer, templates):
        real_decode = module.decode
        real_repaired = module.repaired

        def decode(text: str, start: int, real: Any = real_decode) -> tuple[object, int]:
            nonlocal looked
            try:
                value, end = real(text, start)
            except json.JSONDecodeError as error:
                looked += error.pos - start
                raise
            except ValueError:
                looked += len(text) - start
                raise
            looked += end - start
            return value, end

        def repair(text: str, *, may_close: bool, real: Any = real_repaired) -> object:
            nonlocal looked
            looked += len(text)
            return real(text, may_close=may_close)

        monkeypatch.setattr(module, "decode", decode)
        monkeypatch.setattr(module, "repaired", repair)
    reply = prefix + piece * (20_000 // len(piece))
    for emulated in (emulator(), emulator(choice="required"), json_only()):
        looked = 0
        with contextlib.suppress(Unreadable):
            emulated.read(reply)
        assert looked <= 20 * len(reply)


def _repeats(pattern: Any) -> Iterator[Any]:
    for operation, argument in pattern:
        if str(operation) in ("MAX_REPEAT", "MIN_REPEAT"):
            yield argument[1]
            yield from _repeats(argument[2])
        elif str(operation) == "SUBPATTERN":
            yield from _repeats(argument[-1])
        elif str(operation) in ("ASSERT", "ASSERT_NOT"):
            yield from _repeats(argument[1])
        elif str(operation) == "BRANCH":
            for branch in argument[1]:
                yield from _repeats(branch)


def test_no_pattern_of_the_markup_can_run_away() -> None:
    """Each pattern that searches a reply repeats a bounded number of times, or possessively: it never goes back far."""
    parse = importlib.import_module("re._parser").parse
    modules = (markup, templates)
    patterns = [value for module in modules for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert len(patterns) >= 20
    for pattern in patterns:
        assert all(most <= 200 for most in _repeats(parse(pattern.pattern, pattern.flags & ~re.UNICODE)))
