"""What the simulator remembers of what users tell about themselves."""

import pytest

from simulator.answers import compose_answer


def asked(question: str, *told: str) -> str:
    """The answer to a question, in a conversation in which something was told before."""
    turns = [f"[User]: {text}\n[Assistant]: My name is Kimi, and I'm from Moonshot.\n" for text in told]
    return compose_answer(f"[System]: I'm Sys. 我叫系统。\n{''.join(turns)}[User]: {question}")


@pytest.mark.parametrize(
    ("told", "question", "answer"),
    [
        ("I'm Bob", "What's my name?", "Your name is Bob."),
        ("I’m José García.", "Who am I?", "Your name is José García."),
        ("My name is Alice", "what is my name", "Your name is Alice."),
        ("hi, i'm bob", "what's my name?", "Your name is bob."),
        ("call me Al", "Do you remember my name?", "Your name is Al."),
        ("You can call me Al.", "Who am I?", "Your name is Al."),
        ("我叫小明", "我叫什么名字？", "你叫小明。"),
        ("请叫我老王", "你知道我是谁吗？", "你叫老王。"),
        ("我是小红。", "我是谁", "你叫小红。"),
        ("我叫 Tom", "What is my name?", "Your name is Tom."),
        ("I'm from New York.", "Where do I come from?", "You come from New York."),
        ("I come from St. Petersburg, and I like it.", "Where am I from?", "You come from St. Petersburg."),
        ("I'm Bob from Rome", "where do i come from", "You come from Rome."),
        ("我是从北京来的", "我来自哪里？", "你来自北京。"),
        ("我来自北京", "我是哪里人？", "你来自北京。"),
        ("我是上海人", "我从哪里来？", "你来自上海。"),
        ("I live in Paris with my cat", "Where do I live?", "You live in Paris with my cat."),
        ("我住在杭州西湖边", "我住在哪儿？", "你住在杭州西湖边。"),
        ("I am 30 years old.", "How old am I?", "You are 30 years old."),
        ("我今年二十岁", "我多大了？", "你二十岁。"),
        ("I am a teacher.", "What is my job?", "You work as: teacher."),
        ("我是一名医生", "我是做什么的？", "你的职业是医生。"),
        ("I like green tea and jazz.", "What do I like?", "You like green tea and jazz."),
        ("我喜欢游泳", "我喜欢什么？", "你喜欢游泳。"),
        ("My favourite colour is blue.", "What's my favourite colour?", "Your favourite colour: blue."),
        ("我的狗叫旺财", "我的狗叫什么？", "你的狗：旺财。"),
    ],
)
def test_a_fact_told_in_a_plain_sentence_is_recalled(told: str, question: str, answer: str) -> None:
    """It comes from the user's turns, and the answer is in the language of the question."""
    assert asked(question, told) == answer


def test_several_facts_are_recalled_together() -> None:
    """One question may ask for several, or for all that was told; the last telling of each counts."""
    told = ("I'm Bob and I'm from Rome.", "No, I'm Alice. I live in Paris.")
    assert asked("What's my name, and where do I come from?", *told) == "Your name is Alice. You come from Rome."
    everything = "Your name is Alice. You come from Rome. You live in Paris."
    assert asked("Do you remember me?", *told) == everything
    assert asked("你还记得我吗？", "大家好，我叫李雷，来自北京。") == "你叫李雷。你来自北京。"


@pytest.mark.parametrize(
    ("told", "question", "answer"),
    [
        ("Hello", "What's my name?", "You have not told me your name. This is the simulator"),
        ("I'm hungry. Call me when you can.", "Who am I?", "You have not told me your name. This is the simulator"),
        ("I'm Bob. I'm not from here.", "Where am I from?", "You have not told me where you come from."),
        ("I'm Bob", "What is my shoe size?", "You have not told me about your shoe size."),
        ("Hello", "Do you remember me?", "You have not told me anything about yourself. This is the simulator"),
        ("我是老师", "我叫什么名字？", "你还没有告诉我你的名字。这是 Kimi 网站的模拟器"),
        ("你好", "我来自哪里？", "你还没有告诉我你来自哪里。这是 Kimi 网站的模拟器"),
        ("你好", "你还记得我吗", "你还没有告诉我任何关于你的事。这是 Kimi 网站的模拟器"),
    ],
)
def test_what_was_not_told_is_not_made_up(told: str, question: str, answer: str) -> None:
    """The simulator says so, and that it is one."""
    assert asked(question, told).startswith(answer)


def test_a_question_about_somebody_else_is_no_question_about_the_user() -> None:
    """Your name is not my name."""
    assert "你写的是：你叫什么名字？" in asked("你叫什么名字？", "我叫小明")
