import pytest

from simulator.answers import EMOJI_TEXT, TaggedTurn, compose_answer, split_turns

TAGGED = "[System]: Be brief.\n[User]: My name is Ada Lovelace.\n[Assistant]: Hello, I am called Bob.\n[User]: {}"


def test_an_untagged_prompt_is_one_user_turn() -> None:
    """A single-message prompt is taken as what the user said, tags in its text included."""
    assert split_turns("What does [User]: mean?") == (TaggedTurn("user", "What does [User]: mean?"),)


@pytest.mark.parametrize("separator", ["\n", "\n\n", " ", ""])
def test_turns_are_found_with_and_without_newlines(separator: str) -> None:
    """Turns are told apart by their tags even where the site stripped the newlines."""
    prompt = separator.join(["[System]: Be brief.", "[User]: Hi", "[Tool get_time]: 12:00", "[User]: Bye"])
    assert split_turns(prompt) == (
        TaggedTurn("system", "Be brief."),
        TaggedTurn("user", "Hi"),
        TaggedTurn("tool", "12:00"),
        TaggedTurn("user", "Bye"),
    )


def test_a_tag_within_a_line_is_text_where_lines_were_kept() -> None:
    """A turn that mentions a tag is not cut up."""
    prompt = "[User]: What does [System]: mean?\n[Assistant]: A role."
    assert [turn.role for turn in split_turns(prompt)] == ["user", "assistant"]


@pytest.mark.parametrize("question", ["What is my name?", "what's my name", "Who am I?"])
def test_a_name_told_in_an_earlier_turn_is_recalled(question: str) -> None:
    """The name comes from the user's turns, not from what the assistant said."""
    assert compose_answer(TAGGED.format(question)) == "Your name is Ada Lovelace."


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("I am called Bob, what is my name?", "Your name is Bob."),
        ("My name is Ann. No: my name is Eve! Who am I?", "Your name is Eve."),
        ("[User]: 我叫小明，请记住。\n[User]: 我叫什么？", "你叫小明。"),
        ("我的名字是李雷。我是谁？", "你叫李雷。"),
        ("[User]: My name is Ada\n[User]: 我的名字是什么？", "你叫Ada。"),
    ],
)
def test_names(prompt: str, answer: str) -> None:
    """Names are recalled in the language of the question, and the last one wins."""
    assert compose_answer(prompt) == answer


def test_what_was_to_be_remembered_is_recalled_in_chinese() -> None:
    """The question's language is the answer's."""
    assert compose_answer("[User]: 请记住：密码是 42。\n[User]: 我让你记住什么？") == "你让我记住：密码是 42。"


@pytest.mark.parametrize("told", ["Remember: the code is 4.2.", "Please remember that the code is 4.2. Thanks"])
def test_what_was_to_be_remembered_is_recalled(told: str) -> None:
    """A fact that the user asked to remember is given back."""
    answer = compose_answer(f"[User]: {told}\n[User]: What did I ask you to remember?")
    assert answer == "You asked me to remember: the code is 4.2."


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Repeat after me: count to 3\nand stop", "count to 3\nand stop"),
        ("Count to 4", "1 2 3 4"),
        ("count to 5001", "The simulator counts from 1 to 5000 at most."),
        ("lorem 3", "lorem ipsum dolor"),
        ("emoji test", EMOJI_TEXT),
    ],
)
def test_skills(prompt: str, answer: str) -> None:
    """Texts of a known shape and size can be ordered."""
    assert compose_answer(prompt) == answer


def test_the_echo_is_honest_and_short() -> None:
    """Anything else is echoed, shortened, by something that says it is no model and how much it received."""
    prompt = "[System]: " + "s" * 300 + "\n[User]: " + "u" * 300
    answer = compose_answer(prompt)
    assert "no model" in answer
    assert f"You wrote: {'u' * 200}…" in answer
    assert f"{len(prompt)} characters" in answer


def test_a_chinese_text_is_echoed_in_chinese() -> None:
    """The echo, too, is in the language of what was written."""
    assert compose_answer("今天天气怎么样？") == (
        "这是 Kimi 网站的模拟器，背后没有模型。你写的是：今天天气怎么样？\n\n提示词共 8 个字符。"
    )


def test_a_tool_is_called_in_the_form_that_the_prompt_shows() -> None:
    """A call that the user asks for is made if the prompt tells how, and not again once its result is there."""
    form = '<call_x1>{"name":"NAME","arguments":{...}}</call_x1>'
    asked = '[User]: Call get_weather with {"city": "Paris"}'
    call = compose_answer(f"[System]: To call one, end your reply with exactly this:\n{form}\n{asked}")
    assert call == '<call_x1>{"name":"get_weather","arguments":{"city": "Paris"}}</call_x1>'
    assert "no model" in compose_answer(asked)
    assert "no model" in compose_answer(f"[System]: This is the form:\n{form}\n{asked}\n[Tool get_weather]: rain")


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ('{ "title": "your concise title here" }', '{"title": "Hello Name"}'),
        ('{ "tags": ["tag1", "tag2"] }', '{"tags": ["General"]}'),
        ('{ "follow_ups": ["One", "Two"] }', '{"follow_ups": ["What is my name?", "Count to 20", "Emoji test"]}'),
    ],
)
def test_chat_apps_get_what_they_ask_about_a_chat(form: str, answer: str) -> None:
    """A title, tags and what to ask next come in the form that was asked for, about the quoted conversation."""
    prompt = (
        f"### Task:\nJSON format: {form}\n<chat_history>\nUSER: Hello! My name is Ada.\nASSISTANT: Hi!\n</chat_history>"
    )
    assert compose_answer(prompt) == answer
