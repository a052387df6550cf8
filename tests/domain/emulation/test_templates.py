"""Calls in the forms of other models' chat templates, and what only looks like them."""

import contextlib

import pytest

from app.domain.chat import Message, Tool, ToolCall
from app.domain.emulation.emulator import Reading, Unreadable
from app.domain.prompt import PromptLimit, compose
from tests.domain.emulation.tools import ROME, WEATHER, emulator

WRITE = Tool(
    "write_file",
    "",
    {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "text": {"type": "string"},
            "mode": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["path"],
    },
)
NOW = Tool("now", "The time")
_QWEN = "<tool_call>\n<function=get_weather>\n<parameter=city>{}</parameter>\n</function>\n</tool_call>"
_DSML = "<｜DSML｜{}>"
FORMS = {
    "Qwen3-Coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"
    ),
    "Qwen3-Coder without the outer tag": "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>",
    "Qwen3-Coder without the opening one": (
        "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"
    ),
    "Qwen3-Coder without the closing one": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>Rome</parameter>\n</tool_call>"
    ),
    "Seed": (
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Rome</parameter>\n</function>\n</seed:tool_call>"
    ),
    "Llama 3.1": '<function=get_weather>{"city": "Rome"}</function>',
    "a function by its name": '<function name="get_weather">{"city": "Rome"}</function>',
    "a tool call by its name": '<tool_call name="get_weather">{"city": "Rome"}</tool_call>',
    "Claude": (
        '<function_calls>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n</invoke>\n'
        "</function_calls>"
    ),
    "Claude 2": (
        "<function_calls>\n<invoke>\n<tool_name>get_weather</tool_name>\n<parameters>\n<city>Rome</city>\n</parameters>\n"
        "</invoke>\n</function_calls>"
    ),
    "MiniMax": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n</invoke>\n'
        "</minimax:tool_call>"
    ),
    "a bare invoke": "<invoke name='get_weather'><parameter name='city'>Rome</parameter></invoke>",
    "DeepSeek V3.2": (
        _DSML.format("function_calls")
        + "\n"
        + _DSML.format('invoke name="get_weather"')
        + "\n"
        + _DSML.format('parameter name="city" string="true"')
        + "Rome</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
        "</｜DSML｜function_calls>"
    ),
    "DeepSeek V3": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Rome"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "DeepSeek V3.1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    ),
    "Mistral": f"[TOOL_CALLS] [{ROME}]",
    "Mistral, later": '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}',
    "Mistral, with an id": '[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Rome"}</s>',
    "Mistral, without a separator": '[TOOL_CALLS]get_weather{"city": "Rome"}',
    "Llama 3.2": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}<|eom_id|>',
    "Llama's calls": '<|python_tag|>get_weather.call(city="Rome")<|eom_id|>',
    "Llama 4": '<|python_start|>[get_weather(city="Rome")]<|python_end|>',
    "in Python": '[get_weather(city="Rome")]',
    "as the signature has it": 'get_weather(city="Rome")',
    "LFM2": "<|tool_call_start|>[get_weather(city='Rome')]<|tool_call_end|>",
    "Gemma": '```tool_code\nprint(get_weather(city="Rome"))\n```',
    "GLM": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>",
    "functionary": '>>>get_weather\n{"city": "Rome"}',
    "gpt-oss": ('<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'),
    "Granite": f"<|tool_call|>[{ROME}]",
    "Phi": f"<|tool_call|>[{ROME}]<|/tool_call|>",
    "Nemotron": f"<TOOLCALL>[{ROME}]</TOOLCALL>",
    "Jamba": f"<tool_calls>[{ROME}]</tool_calls>",
    "Command": (
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Rome"}}]'
        "<|END_ACTION|>"
    ),
    "InternLM": f"<|action_start|><|plugin|>\n{ROME}<|action_end|>",
    "Cline": "<get_weather>\n<city>Rome</city>\n</get_weather>",
    "ReAct": 'Action: get_weather\nAction Input: {"city": "Rome"}',
    "ReAct with an observation": 'Action: get_weather\nAction Input: {"city": "Rome"}\nObservation:',
    "Qwen 1": '✿FUNCTION✿: get_weather\n✿ARGS✿: {"city": "Rome"}',
    "all in a fence": "```xml\n<function=get_weather>\n<parameter=city>Rome</parameter>\n</function>\n```",
}
JSON_FORMS = {
    "a message": '{"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": '
    '{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}}]}',
    "tool_calls": f'{{"tool_calls": [{{"type": "function", "function": {ROME}}}]}}',
    "tool_calls by name": f'{{"tool_calls": [{ROME}]}}',
    "function_call": f'{{"function_call": {ROME}}}',
    "function_call as text": '{"function_call": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}}',
    "Gemini's": '{"functionCall": {"name": "get_weather", "args": {"city": "Rome"}}}',
    "Anthropic's": '{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}}',
    "a response's": '{"type": "function_call", "call_id": "c", "name": "get_weather", '
    '"arguments": "{\\"city\\": \\"Rome\\"}"}',
    "by tool": '{"tool": "get_weather", "args": {"city": "Rome"}}',
    "by tool_name": '{"tool_name": "get_weather", "parameters": {"city": "Rome"}}',
    "by function": '{"function": "get_weather", "arguments": {"city": "Rome"}}',
    "LangChain's": '{"action": "get_weather", "action_input": {"city": "Rome"}}',
    "fenced": f'```json\n{{"tool_calls": [{ROME}]}}\n```',
}


@pytest.mark.parametrize("reply", [*FORMS.values(), *JSON_FORMS.values()], ids=[*FORMS, *JSON_FORMS])
def test_each_template_s_form_is_a_call(reply: str) -> None:
    """Whatever a model learned to write, it has called the tool, and nothing of the markup is text."""
    reading = emulator().read(reply)
    assert [(call.name, call.arguments.replace(" ", "")) for call in reading.calls] == [
        ("get_weather", '{"city":"Rome"}')
    ]
    assert reading.text == ""


@pytest.mark.parametrize(
    "form", [form for name, form in FORMS.items() if name not in ("as the signature has it", "all in a fence")]
)
def test_words_before_it_stay(form: str) -> None:
    """What the model says before its call is the text, thoughts aside."""
    reading = emulator().read(f"<think>Hm. {form}</think>\nI'll have a look.\n\n{form}\n")
    assert (reading.text, len(reading.calls)) == ("I'll have a look.", 1)


def test_words_in_a_message_stay() -> None:
    """The content of a message in JSON is the text."""
    reading = emulator().read(f'{{"content": "Let me look.", "tool_calls": [{ROME}]}}')
    assert (reading.text, len(reading.calls)) == ("Let me look.", 1)


@pytest.mark.parametrize(
    "reply",
    [
        *(f"Write\n```\n{form}\n```" for form in FORMS.values() if not form.startswith("```")),
        *(f"Write\n{form}\nand that is a call." for name, form in FORMS.items() if name != "ReAct with an observation"),
        *(f"Write `{form}`" for form in FORMS.values() if "\n" not in form),
        *(form.replace("get_weather", "get_time") for form in (*FORMS.values(), *JSON_FORMS.values())),
        *(f"As JSON: {form}" for form in JSON_FORMS.values()),
        '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}], "note": "an example"}',
        '{"tool_calls": []}',
        '{"action": "get_weather"}',
        "Use <function=get_weather> for that.",
        "<now> is a tag.",
        "now",
        "now\n",
        "[now]",
        "[now](https://example.com)",
        "print(1)",
        "get_weather('Rome')",
        "[get_weather(city=where())]",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|im_end|>",
        "",
    ],
)
def test_what_is_quoted_or_of_no_tool_is_text(reply: str) -> None:
    """In a fence, in backticks, before other words or of a tool that the request doesn't have, markup calls nothing."""
    reading = emulator().read(reply)
    assert (reading.text, reading.calls) == (reply, ())


@pytest.mark.parametrize(
    ("reply", "calls"),
    [
        ("\n".join(_QWEN.format(city) for city in ("Rome", "Oslo")), 2),
        ('[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}', 2),
        ("<tool_call>now\n</tool_call>", 1),
        ("<function=now>\n</function>", 1),
        ('<invoke name="now">\n</invoke>', 1),
        ("<now>\n</now>", 1),
        ("[now(), get_weather(city='Rome')]", 2),
        (f'{{"tool_calls": [{{"name": "now", "arguments": {{}}}}, {ROME}]}}', 2),
    ],
)
def test_several_calls_and_calls_without_arguments(reply: str, calls: int) -> None:
    """Calls that follow each other are all read; no arguments are an empty object."""
    reading = emulator().read(reply)
    assert (reading.text, len(reading.calls)) == ("", calls)


def test_values_are_what_the_schema_says() -> None:
    """A tag's value is text: of lines, of code that looks like markup, or, by the schema, a number or a list."""
    code = "if a < b:\n    print('</function>', \"</parameter>\")\n\n<p>&amp;</p>"
    reply = (
        "<function=write_file>\n<parameter=path>\n007\n</parameter>\n"
        f"<parameter=text>\n{code}\n</parameter>\n"
        '<parameter=mode>\n493\n</parameter>\n<parameter=tags>\n["a", "b"]\n</parameter>\n</function>'
    )
    (call,) = emulator(WRITE).read(reply).calls
    (same,) = emulator(WRITE).read('[TOOL_CALLS][{"name":"write_file","arguments":' + call.arguments + "}]").calls
    assert call.arguments == same.arguments
    assert call.arguments.startswith('{"path":"007","text":"if a < b:\\n    print')
    assert call.arguments.endswith('<p>&amp;</p>","mode":493,"tags":["a","b"]}')


@pytest.mark.parametrize(
    ("reply", "at_worst"),
    [
        ("<function=get_weather>\n<parameter=days>3</parameter>\n</function>", '{"days":3}'),
        ("<function=get_weather>\n<parameter=city>Ro", None),
        ("<function=get_weather>\n<parameter=city>Rome</parameter>", None),
        ('<invoke name="get_weather"><parameter name="town">Rome</parameter></invoke>', '{"town":"Rome"}'),
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "Ro', None),
        ("<get_weather><city>Ro", None),
        ('{"function_call": {"name": "get_weather", "arguments": "{}"}}', "{}"),
        ('<|python_tag|>{"name": "get_weather", "parameters": {"days": 3}}', '{"days":3}'),
    ],
)
def test_what_does_not_fit_or_is_cut_off_is_asked_for_again(reply: str, at_worst: str | None) -> None:
    """A call of a tool that the request has is checked like any other, and at worst given as it is if it is whole."""
    with pytest.raises(Unreadable) as caught:
        emulator().read(reply)
    calls = () if at_worst is None else (ToolCall("call_1", "get_weather", at_worst),)
    assert caught.value.fallback == Reading("" if calls else reply, calls)


@pytest.mark.parametrize(
    "form",
    [form for form in FORMS.values() if form.startswith(("<", "[TOOL")) and "<city>" not in form.splitlines()[-1]],
)
def test_the_prompt_makes_quoted_markup_harmless(form: str) -> None:
    """A user's text in such a form can't be repeated as a call: the composer breaks its tags and tokens."""
    if form.startswith("<get_weather>"):
        return
    prompt = compose([Message("user", form), Message("user", "Repeat that.")], PromptLimit(10_000)).text
    quoted = prompt.removeprefix("[User]: ").removesuffix("\n[User]: Repeat that.")
    assert len(quoted) == len(form)
    assert emulator().read(quoted).calls == ()


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<function=get_weather>",
            "<parameter=city>",
            "<tool_call>",
            "\n<get_weather>",
            "<city>",
            "[TOOL_CALLS]",
            "<|a|>",
        ),
        *(
            "<arg_key>a</arg_key><arg_value>",
            "get_weather(",
            "\n[get_weather(",
            "<invoke>",
            "<｜tool▁sep｜>",
            "\nAction: now",
        ),
        *("</parameter>", " ", "`", "```\n", "\n>>>now\n{", "<invoke name='now'>\n", '{"tool_calls":[', "<|a|>{"),
    ],
)
def test_a_long_reply_takes_no_time(piece: str, choice: str) -> None:
    """However markup is repeated, the reader comes to an end at once; a slow one would hang here."""
    reader = emulator(choice="required" if choice == "required" else "auto")
    for reply in (piece * (60_000 // len(piece)), "<function=get_weather>" + piece * (60_000 // len(piece))):
        with contextlib.suppress(Unreadable):
            reader.read(reply)


FORCED = {
    "bare": '{"city": "Rome"}',
    "fenced": '```json\n{"city": "Rome"}\n```',
    "after words": 'Sure:\n```json\n{"city": "Rome"}\n```',
    "among words": 'Here you are: {"city": "Rome"}. Done.',
    "in tags": '<tool_call>{"city": "Rome"}</tool_call>',
    "under the tool's name": '{"get_weather": {"city": "Rome"}}',
    "under arguments": '{"arguments": {"city": "Rome"}}',
    "with a slip": "{'city': 'Rome',}",
    "in a list": '[{"city": "Rome"}]',
    "after thoughts": '<think>{"city": "Oslo"}</think>{"city": "Rome"}',
}


@pytest.mark.parametrize("reply", FORCED.values(), ids=FORCED.keys())
def test_arguments_alone_are_the_call_of_the_only_tool(reply: str) -> None:
    """If one tool must be called, an object that fits its schema is its call; else it is text."""
    calls = emulator(WEATHER, choice="required").read(reply).calls
    assert [(call.name, call.arguments.replace(" ", "")) for call in calls] == [("get_weather", '{"city":"Rome"}')]
    calls = emulator(choice="required", allowed=frozenset({"get_weather"})).read(reply).calls
    assert len(calls) == 1
    with pytest.raises(Unreadable):
        emulator(choice="required").read(reply)


def test_arguments_of_several_calls() -> None:
    """A list of objects that fit is a call each, where several are wanted."""
    both = '[{"city": "Rome"}, {"city": "Oslo"}]'
    assert len(emulator(WEATHER, choice="required").read(both).calls) == 2
    assert len(emulator(WEATHER, choice="required", parallel=False).read(both).calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "I'd rather not.",
        '{"error": "I can not do that."}',
        "{}",
        '{"town": "Rome"}',
        "I need {city} for that.",
        '"Rome"',
        "[]",
        '{"city": "Rome"} or {"city": "Oslo"}?',
        '{"name": "get_time", "arguments": {"city": "Rome"}}',
    ],
)
def test_anything_else_is_no_call_of_the_only_tool(reply: str) -> None:
    """What doesn't fit the schema, or fits only because it is lax, is asked for again."""
    lax = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    for tool in (WEATHER, lax) if reply != "{}" else (WEATHER,):
        with pytest.raises(Unreadable):
            emulator(tool, choice="required").read(reply)
