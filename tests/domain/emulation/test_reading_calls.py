"""Replies that call tools, in all forms that models use."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from msgspec.structs import replace

from app.domain.chat import OutputFormat, Tool, ToolCall
from app.domain.emulation.emulator import Emulator, Reading, Unreadable, new_call_id
from tests.domain.emulation.tools import ANY, CLOSE, NOW, OPEN, OSLO, ROME, TAG, WEATHER, emulator, kimi, marked

_SECTION = "<|tool_calls_section_begin|>{}<|tool_calls_section_end|>"
_KIMI_ROME = kimi("get_weather", '{"city": "Rome"}')


def _called(reply: str, reader: Emulator | None = None) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in (reader or emulator()).read(reply).calls]


@pytest.mark.parametrize(
    "reply",
    [
        marked(ROME),
        OPEN + ROME,
        f"{OPEN}\n{ROME}\n{CLOSE}\n",
        f"{OPEN}```json\n{ROME}\n```{CLOSE}",
        f"```\n{marked(ROME)}\n```",
        marked(ROME + "}"),
        f"{OPEN}[{ROME}]{CLOSE}",
        f"{OPEN}{ROME}</tool_call>",
        marked(ROME) + marked(ROME),
        marked('{"type":"function","function":{"name":"get_weather","arguments":{"city": "Rome"}}}'),
        marked('{"name":"get_weather","parameters":{"city": "Rome"}}'),
        marked('{"name":"get_weather","arguments":"{\\"city\\": \\"Rome\\"}"}'),
        _KIMI_ROME,
        _SECTION.format(_KIMI_ROME),
        _SECTION.format(_KIMI_ROME).replace("calls_section", "call_section"),
        _KIMI_ROME.removesuffix("<|tool_call_end|>"),
        _KIMI_ROME.replace("<|tool_call_begin|>", ""),
        _KIMI_ROME.replace("<|tool_call_argument_begin|>", ""),
        f"<|tool_call_begin|>{ROME}<|tool_call_end|>",
        'functions.get_weather:0{"city": "Rome"}',
        f"<tool_call>\n{ROME}\n</tool_call>",
        f"```json\n{ROME}\n```",
        ROME,
        f"  [{ROME}]\n",
        f"<think>Rome? {marked(OSLO)}</think>{marked(ROME)}",
        f"<think>I can give plain JSON.</think>\n{ROME}",
    ],
)
def test_each_form_of_a_call_is_read(reply: str) -> None:
    """Our tags, Kimi's tokens with or without parts of them, and a call that is the whole reply all mean the same."""
    reading = emulator().read(reply)
    assert reading.calls == (ToolCall("call_1", "get_weather", '{"city": "Rome"}'),)
    assert reading.text == ""


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (f"Let me look.\n{marked(ROME)}", "Let me look."),
        (f"First this:\n{marked(ROME)}\nand then I tell you.", "First this:\nand then I tell you."),
        (f"Look:\n```json\n{marked(ROME)}\n```\nDone.", "Look:\nDone."),
        (f"Hm. <think>Rome or Oslo?</think>{marked(ROME)}", "Hm."),
        (f"Ok.{_SECTION.format(_KIMI_ROME)}", "Ok."),
        (f"Let me look.\n<tool_call>{ROME}</tool_call>", "Let me look."),
        ('Let me look.\nfunctions.get_weather:0{"city": "Rome"}', "Let me look."),
    ],
)
def test_the_words_around_a_call_are_kept(reply: str, text: str) -> None:
    """What the model says besides is the content, without markup, thinking and fences that held only a call."""
    reading = emulator().read(reply)
    assert (reading.text, len(reading.calls)) == (text, 1)


def test_several_calls_keep_their_order() -> None:
    """Calls one after the other, in one tag or in Kimi's section, are all read; each has an id of its own."""
    both = [("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Oslo"}')]
    assert _called(marked(ROME) + "\n" + marked(OSLO)) == both
    assert _called(OPEN + ROME + "\n" + OSLO + CLOSE) == both
    assert _called(_SECTION.format(_KIMI_ROME + kimi("get_weather", '{"city": "Oslo"}', 1))) == both
    assert [call.id for call in emulator().read(marked(ROME) + marked(OSLO)).calls] == ["call_1", "call_2"]


def test_only_what_is_repeated_at_once_is_a_stutter() -> None:
    """The same call twice in a row counts once; after another call it counts again."""
    assert len(_called(marked(ROME) * 3)) == 1
    assert len(_called(marked(ROME) + marked(OSLO) + marked(ROME))) == 3


def test_one_call_where_only_one_is_wanted() -> None:
    """Without parallel calls the first is taken, and no markup of the others is left in the text."""
    reading = emulator(parallel=False).read(f"Ok. {marked(ROME)}{marked(OSLO)}")
    assert [call.arguments for call in reading.calls] == ['{"city": "Rome"}']
    assert reading.text == "Ok."


@pytest.mark.parametrize(
    "reply",
    [
        "Hello!",
        " <think>hm</think> Hello! ",
        f"<think>{marked(ROME)}</think>Hello!",
        f"<think>{marked(ROME)}",
        f"Well. <think>{marked(ROME)}</think> No.",
        f"<tool_call_zzzzzz>{ROME}</tool_call_zzzzzz>",
        f"<tool_call_{TAG}x>{ROME}</tool_call_{TAG}x>",
        f"<tool_call_{TAG[:-1]}>{ROME}</tool_call_{TAG[:-1]}>",
        f"You wrote <tool_call>{ROME}</tool_call>",
        f"<tool_call>{ROME}</tool_call> is what you wrote.",
        'You wrote functions.get_weather:0{"city": "Rome"} there.',
        f"{ROME} is a call.",
        f"As JSON: {ROME}",
        f"For example:\n```json\n{ROME}\n```",
        f"Kimi writes\n```\n{_KIMI_ROME}\n```\nfor that.",
        f"I use {OPEN} for calls.",
        '{"name":"Rome","arguments":{}}',
        '{"name":"get_weather","arguments":{"city":"Rome"},"note":"an example"}',
        '{"city": "Rome"}',
        "",
    ],
)
def test_what_only_looks_like_a_call_is_text(reply: str) -> None:
    """Thinking, quotations, examples and foreign tags call nothing, and the reply stays as it is."""
    reading = emulator().read(reply)
    assert (reading.text, reading.calls) == (reply, ())


def test_with_tool_choice_none_nothing_is_a_call() -> None:
    """Where no tool may be called, any reply is text and the model is told nothing."""
    reader = emulator(choice="none")
    assert reader.read(marked(ROME)).text == marked(ROME)
    assert reader.instructions == ""
    assert emulator(allowed=frozenset()).instructions == ""


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("functions.get_weather", "get_weather"),
        (" Get_Weather ", "get_weather"),
        ("get weather", None),
        ("weather", None),
        ("GET", None),
    ],
)
def test_a_name_is_understood_only_without_doubt(written: str, name: str | None) -> None:
    """Prefix, case and outer white space may differ; any other name is none of the tools."""
    call = ROME.replace("get_weather", written)
    if name is None:
        with pytest.raises(Unreadable, match="there is no tool"):
            emulator().read(marked(call))
    else:
        assert _called(marked(call)) == [(name, '{"city": "Rome"}')]


def test_names_that_differ_in_case_only_must_be_exact() -> None:
    """With two tools that a name could mean, only the exact one is called."""
    tools = [type(NOW)(name) for name in ("Look", "look")]
    assert _called(marked('{"name":"look","arguments":{}}'), emulator(*tools)) == [("look", "{}")]
    with pytest.raises(Unreadable):
        emulator(*tools).read(marked('{"name":"LOOK","arguments":{}}'))


def test_a_tool_that_is_not_allowed_now_is_not_called() -> None:
    """Of the described tools only the allowed ones are told of, and only they can be called."""
    reader = emulator(choice="required", allowed=frozenset({"now"}))
    assert "get_weather" not in reader.instructions
    with pytest.raises(Unreadable, match="no tool 'get_weather'"):
        reader.read(marked(ROME))


@pytest.mark.parametrize("empty", ["{}", '""', "null"])
def test_a_tool_without_arguments_gets_an_empty_object(empty: str) -> None:
    """However a model writes that there are no arguments, they are an empty object."""
    assert _called(marked('{"name":"now","arguments":' + empty + "}")) == [("now", "{}")]
    assert _called(marked('{"name":"now"}')) == [("now", "{}")]
    assert _called("<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|><|tool_call_end|>") == [("now", "{}")]


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("{'city': 'Rome',}", '{"city":"Rome"}'),
        ("{“city”: “Rome”}", '{"city":"Rome"}'),
        ('{"city": "two\nlines"}', '{"city":"two\\nlines"}'),
        ('{"city": "Rome", "exact": True}', '{"city":"Rome","exact":true}'),
        ('{"city": "Rome", "days": "3", "exact": "false"}', '{"city":"Rome","days":3,"exact":false}'),
        ('{"city": 10115}', '{"city":"10115"}'),
        ('{"city": "Rome", "days": 3.0}', '{"city": "Rome", "days": 3.0}'),
        ('{"city": "Rome", /* soon */ "days": 1}', '{"city":"Rome","days":1}'),
        ('{city: "Rome"}', '{"city":"Rome"}'),
        ("{'city': 'L'Aquila'}", '{"city":"L\'Aquila"}'),
        ('{"city": "\\d"}', '{"city":"\\\\d"}'),
        ('{"city": "Rome"', '{"city":"Rome"}'),
    ],
)
def test_slips_in_the_arguments_are_put_right(written: str, arguments: str) -> None:
    """JSON with a slip whose meaning is beyond doubt, and types that say the same, are repaired."""
    assert _called(marked('{"name":"get_weather","arguments":' + written + "}")) == [("get_weather", arguments)]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ('{"name":"get_weather","arguments":[]}', "not a JSON object"),
        ('{"arguments":{}}', 'no "name"'),
        ('{"name":"weather","arguments":{"city":"Rome"}}', "there is no tool 'weather'"),
        ('{"name":"now"},"arguments":{"city":"Rome"}}', "ends too early"),
        ('{"name":"store","arguments":{"n":NaN}}', "character"),
        ("Rome, please", "no JSON object"),
        ('{"name":"store","arguments":{"a":"b" "c"}}', "character"),
        ('{"name":"store","arguments":' + '{"a":' * 5000, "nested too deeply"),
    ],
)
def test_a_call_that_can_not_be_followed_is_unreadable(call: str, why: str) -> None:
    """The model is told what was wrong and in which form it is wanted; at worst the client gets the reply as text."""
    with pytest.raises(Unreadable) as caught:
        emulator().read(marked(call))
    assert why in caught.value.message
    assert why in caught.value.reminder
    assert caught.value.reminder.endswith(marked('{"name":"NAME","arguments":{...}}'))
    assert len(caught.value.reminder) < 700
    assert caught.value.fallback == Reading(marked(call))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ('{"days":3}', '"city" is a required property'),
        ('{"city":"Rome","days":"soon"}', "days"),
        ('{"city":"Rome","days":"3.5"}', "days"),
        ('{"city":"Rome","hours":3}', "hours"),
        ("{}", "city"),
    ],
)
def test_a_call_with_arguments_that_do_not_fit_is_at_worst_given_as_it_is(arguments: str, why: str) -> None:
    """As by OpenAI's API: the client, which checks them, can tell the model. Of a strict tool the reply is given."""
    call = '{"name":"get_weather","arguments":' + arguments + "}"
    reply = f"Well: {marked(call)}"
    with pytest.raises(Unreadable) as caught:
        emulator().read(reply)
    assert why in caught.value.message
    assert why in caught.value.reminder
    assert caught.value.fallback == Reading("Well:", (ToolCall("call_1", "get_weather", arguments),))
    with pytest.raises(Unreadable) as caught:
        emulator(replace(WEATHER, strict=True)).read(reply)
    assert caught.value.fallback == Reading(reply)
    with pytest.raises(Unreadable) as caught:
        emulator(choice="required").read(reply)
    assert caught.value.fallback is None


@pytest.mark.parametrize("length", range(6, len(OPEN + ROME)))
def test_a_call_that_is_cut_off_anywhere_is_not_made(length: int) -> None:
    """Wherever a reply stops within a call, the call is not guessed at."""
    with pytest.raises(Unreadable, match="cut off"):
        emulator().read("Well: " + (OPEN + ROME)[:length])


def test_a_kimi_call_that_is_cut_off_is_not_made() -> None:
    """Of Kimi's form likewise nothing is guessed, from the first token on."""
    for length in range(len("<|tool_call_begin|>"), len(_KIMI_ROME) - len("}<|tool_call_end|>")):
        with pytest.raises(Unreadable):
            emulator().read(_KIMI_ROME[:length])


def test_a_call_that_must_be_made() -> None:
    """With a required call text is no answer, and a fenced call after words is taken; nothing is given instead."""
    reader = emulator(choice="required")
    with pytest.raises(Unreadable, match="no tool call") as caught:
        reader.read("It is sunny.")
    assert caught.value.fallback is None
    assert _called(f"Sure:\n```json\n{ROME}\n```", reader) == [("get_weather", '{"city": "Rome"}')]


def test_tools_and_a_format_together() -> None:
    """Beside tools a JSON answer is checked, a call is a call, and of two broken replies none is given."""
    schema = {"type": "object", "properties": {"name": {}, "arguments": {"type": "object"}}, "required": ["name"]}
    reader = emulator(output_format=OutputFormat("json_schema", schema))
    assert reader.read('Here: {"name": 1}').text == '{"name": 1}'
    assert _called(marked(ROME), reader) == [("get_weather", '{"city": "Rome"}')]
    # Plain JSON that fits the format is the answer, however much it looks like a call.
    assert (reader.read(ROME).text, reader.read(ROME).calls) == (ROME, ())
    for reply in ("Hello", marked("{}")):
        with pytest.raises(Unreadable) as caught:
            reader.read(reply)
        assert caught.value.fallback is None


def test_ids_are_new_each_time() -> None:
    """Every call gets an id in the usual form that no other has."""
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(made.startswith("call_") and len(made) == 29 for made in ids)


def test_an_earlier_call_looks_like_the_form_that_is_asked_for() -> None:
    """What the model sees of its own calls is read as that call again; broken arguments are shown as a text."""
    reader = emulator(WEATHER, ANY)
    call = ToolCall("c", "get_weather", ' {"city": "Rome"} ')
    assert reader.render_call(call) == marked(ROME)
    assert reader.render_call(ToolCall("c", "now", "")) == marked('{"name":"now","arguments":{}}')
    assert reader.render_call(ToolCall("c", "now", '"x')) == marked('{"name":"now","arguments":"\\"x"}')


@pytest.mark.parametrize("depth", [30, 105, 240, 480, 960, 50_000])
@pytest.mark.parametrize(
    "reply",
    [
        lambda depth: marked('{"function":' * depth + ROME + "}" * depth),
        lambda depth: marked("[" * depth + ROME + "]" * depth),
        lambda depth: marked('{"name":"store","arguments":' + '{"a":' * depth + "1" + "}" * depth + "}"),
        lambda depth: marked("{'name':'store','arguments':" + "{'a':" * depth + "1" + "}" * depth + "}"),
        lambda depth: marked('{"name":"get_weather","arguments":{"city":' + "[" * depth + "]" * depth + "}}"),
        lambda depth: "<store><a>" + '{"a":' * depth + '"\\ud800"' + "}" * depth + "</a></store>",
        lambda depth: "store" + "(a=1).b" * min(depth, 1000) + "(a=1)",
    ],
    ids=["holders", "lists", "arguments", "repaired", "coerced", "half a pair", "attributes"],
)
def test_depth_makes_a_call_unreadable_at_worst(reply: Callable[[int], str], depth: int) -> None:
    """However deeply a reply is nested, it is read, or the model is told why it can't be."""
    for reader in (emulator(), emulator(choice="required")):
        with suppress(Unreadable):
            reader.read(reply(depth))


def test_a_deep_value_in_a_text_stays_a_text() -> None:
    """What would be too deep to be written again isn't taken out of its quotes."""
    node = {"anyOf": [{"type": "object"}, {"type": "string"}]}
    tool = Tool("f", "", {"type": "object", "properties": {"a": {"type": "object"}, "b": node}})
    deep = '{"a":' * 400 + "1" + "}" * 400
    with suppress(Unreadable):
        emulator(tool).read(f"<f><a>{deep}</a></f>")
    assert _called(f"<f><b>{deep}</b></f>", emulator(tool))[0][0] == "f"


def test_many_costly_calls_are_not_all_checked() -> None:
    """Checking ends where it would hold up everybody else; the reply is then one that can't be used."""
    tool = Tool(
        "f", "", {"type": "object", "properties": {"a": {"contains": {"enum": [{"n": n} for n in range(999)]}}}}
    )
    call = marked('{"name":"f","arguments":{"a":[' + '{"n":-1},' * 30 + '{"n":1}]}}')
    assert len(_called(call, emulator(tool))) == 1
    with pytest.raises(Unreadable, match="too large for this schema"):
        emulator(tool).read("".join(call.replace('"n":1}]', f'"n":{n}}}]') for n in range(100)))
