"""What chat apps send, in words of our own: the same fields, structure and sizes as the apps' own requests."""

import json
from typing import Any

Body = dict[str, Any]

NAME_TOLD = "Hello! My name is Ada."
NAME_ASKED = "What is my name?"
_GARDEN = (
    "Roses like sun, and soil that water leaves quickly. Plant them in autumn, cut them in spring, and give them "
    "compost when the buds come. "
)
ANSWERED = "Hello Ada! " + _GARDEN
CHAT = [
    {"role": "user", "content": NAME_TOLD},
    {"role": "assistant", "content": ANSWERED},
    {"role": "user", "content": NAME_ASKED},
]
# Built-in tools of Open WebUI, by their names.
_BUILTIN = (
    *("search_web", "fetch_url", "generate_image", "edit_image", "execute_code", "search_memories", "add_memory"),
    *("replace_memory_content", "delete_memory", "list_memories", "get_current_timestamp", "calculate_timestamp"),
    *("search_notes", "view_note", "write_note", "replace_note_content", "search_chats", "view_chat"),
    *("search_channels", "search_channel_messages", "view_channel_message", "view_channel_thread"),
    *("list_knowledge_bases", "query_knowledge_files", "view_skill"),
)


def turns(number: int, user: str = "USER", assistant: str = "ASSISTANT") -> str:
    """A conversation as apps quote it."""
    speakers = (user, assistant)
    return "\n".join(f"{speakers[turn % 2]}: Turn {turn + 1}. {_GARDEN}" for turn in range(number))


def tool(name: str, parameters: int = 2, words: int = 60) -> Body:
    """A tool as Python's docstrings become one."""
    explained = f"Does what {name} says. " + "It is of use when the conversation needs it. " * (words // 9)
    properties = {
        f"argument_{number}": {"type": "string", "description": "What it is to work with, as plain text. " * 2}
        for number in range(parameters)
    }
    schema = {"type": "object", "properties": properties, "required": ["argument_0"]}
    return {"type": "function", "function": {"name": name, "description": explained, "parameters": schema}}


def open_webui_tools() -> list[Body]:
    """The tools that come with every message of Open WebUI 0.12 as installed: about 17,500 characters."""
    return [tool(name) for name in _BUILTIN]


def _system(*paragraphs: int) -> str:
    return "You are a helpful assistant.\n" + "\n".join(
        "Be clear, and say what you don't know. " * n for n in paragraphs
    )


def _task(what: str, guidelines: int, form: str) -> str:
    rules = "\n".join(f"- Rule {n}: stay close to what was said, in its main language." for n in range(guidelines))
    return f"### Task:\n{what}\n### Guidelines:\n{rules}\n### Output:\nJSON format: {form}\n### Chat History:\n"


def open_webui_task(what: str, form: str, *, guidelines: int = 8, behind: str = "") -> Body:
    """What Open WebUI asks in the background: one message, the chat's last turns between tags."""
    content = f"{_task(what, guidelines, form)}<chat_history>\n{turns(6)}\n</chat_history>{behind}"
    return {"model": "kimi", "messages": [{"role": "user", "content": content}], "stream": False}


def with_failures(failed: int) -> list[Body]:
    """A chat in whose history stand messages that were refused, as apps keep them."""
    return [*CHAT[:2], *[{"role": "user", "content": f"Attempt {n}. {_GARDEN}"} for n in range(failed)], CHAT[2]]


_LOBE_TITLE = "\n\nPlease sum the conversation up as a title of 10 characters, without punctuation, language: en-US"
_DIFY_TITLE = (
    "You are asked for a concise chat title, from the intention and the subject of what the user writes.\n\n"
    + "Notice: the language may be any, and the title is in the same one. " * 12
    + '\n\nReturn only a JSON object with these keys:\n{\n  "Language Type": "<the language>",\n'
    '  "Your Reasoning": "<why>",\n  "Your Output": "<intention and subject>"\n}\n\nUser Input:\n'
)
_CHAT_NAME = (
    "Based on the chat so far, give this conversation a name.\nShort: 10 characters at most.\n\n"
    "Here's the conversation:\n\n```\n{quoted}\n```\n\nGive the name alone.\n\nThe name is:"
)
_LIBRECHAT = "Give a concise title of at most 5 words for the conversation. Only the title itself.\n\nConversation:\n"
_SAMPLING = {"temperature": 0.5, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_STREAMED: Body = {"stream": True, "stream_options": {"include_usage": True}}


def answered() -> dict[str, Body]:
    """Requests that a site with room for 1,000 characters answers, by app and purpose."""
    return {
        "Open WebUI, chat": {"messages": CHAT, "tools": open_webui_tools(), **_STREAMED},
        "Open WebUI, after failures": {"messages": with_failures(9), "tools": open_webui_tools(), **_STREAMED},
        "LobeChat, chat": {"messages": [{"role": "system", "content": _system(30)}, *CHAT], **_SAMPLING, **_STREAMED},
        "NextChat, chat": {
            "messages": [{"role": "system", "content": "\nYou are ChatGPT, a large language model.\n" * 4}, *CHAT],
            **_SAMPLING,
            "stream": True,
        },
        "Cherry Studio, chat": {
            "messages": [{"role": "system", "content": _system(60)}, *CHAT],
            "temperature": 1,
            "top_p": 1,
            "max_tokens": None,
            "keep_alive": None,
            **_STREAMED,
        },
        "Chatbox, chat": {
            "messages": [{"role": "system", "content": _system(2)}, *CHAT],
            "temperature": 0.7,
            "top_p": 1,
            "stream": True,
        },
        "LibreChat, agent": {
            "messages": [{"role": "system", "content": _system(40, 40)}, *CHAT],
            "tools": [tool(name, 4, 200) for name in ("web_search", "file_search", "execute_code", "memory")],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "user": "65f2c0ffee",
            **_STREAMED,
        },
        "AnythingLLM, chat": {
            "messages": [{"role": "system", "content": _system(12) + f"\nContext:\n{_GARDEN * 20}"}, *CHAT],
            "temperature": 0.7,
            **_STREAMED,
        },
        "Dify, chat": {
            "messages": [{"role": "system", "content": _system(50)}, *CHAT],
            "temperature": 0.7,
            "top_p": 1,
            "max_tokens": 512,
            "stream": True,
            "user": "b0a1f6de-0000-4000-8000-000000000000",
        },
        "n8n, agent": {
            "messages": [{"role": "system", "content": "You are a helpful assistant"}, *CHAT],
            "tools": [tool(name, 6, 120) for name in ("calculator", "gmail_send", "sheets_append", "http_request")],
            "n": 1,
            "stream": False,
            "response_format": {"type": "text"},
        },
        "Obsidian Copilot, chat": {
            "messages": [{"role": "system", "content": _system(90)}, *CHAT],
            "temperature": 0.1,
            "max_tokens": 6000,
            **_STREAMED,
        },
        "Zotero GPT, short": {
            "messages": [{"role": "system", "content": "You are a helpful assistant."}, *CHAT],
            "stream": True,
            "temperature": 1,
        },
        "aider, chat": {
            "messages": [
                {"role": "system", "content": _system(80, 80)},
                {"role": "user", "content": f"These are my files:\n{_GARDEN * 20}"},
                {"role": "assistant", "content": "Ok."},
                *CHAT,
            ],
            "temperature": 0,
            "stream": True,
        },
        "Continue, agent": {
            "messages": [{"role": "system", "content": _system(40)}, *CHAT],
            "tools": [tool(name, 4, 150) for name in ("read_file", "edit_file", "run_terminal_command", "grep_search")],
            "max_tokens": 4096,
            "stream": True,
        },
        "llm, chat": {"messages": CHAT, **_STREAMED},
        "aichat, chat": {"messages": [{"role": "system", "content": _system(1)}, *CHAT], "stream": True},
    }


def background() -> dict[str, tuple[Body, list[str]]]:
    """What apps ask on a chat's behalf: the request, and what the model has to be told of it."""
    return {
        "Open WebUI, title": (
            open_webui_task("Make a title of 3-5 words.", '{ "title": "your title here" }', guidelines=12),
            ["Make a title", '{ "title": "your title here" }', "Turn 6"],
        ),
        "Open WebUI, tags": (
            open_webui_task("Generate 1-3 broad tags.", '{ "tags": ["tag1", "tag2", "tag3"] }', guidelines=14),
            ["Generate 1-3 broad tags", '{ "tags": ["tag1", "tag2", "tag3"] }'],
        ),
        "Open WebUI, follow-ups": (
            open_webui_task("Suggest 3-5 follow-up questions.", '{ "follow_ups": ["Question 1?", "Question 2?"] }'),
            ["Suggest 3-5 follow-up questions", '"follow_ups"', "Turn 6"],
        ),
        "Open WebUI, search queries": (
            open_webui_task(
                "Analyze the chat history for search queries that are needed.",
                '{ "queries": ["query1", "query2"] }',
                guidelines=20,
            ),
            ["search queries", '{ "queries": ["query1", "query2"] }'],
        ),
        "Open WebUI, autocompletion": (
            open_webui_task(
                "You are an autocompletion system. Go on with the text in <text>.",
                '{ "text": "<completion>" }',
                guidelines=30,
                behind="\n<type>search query</type>\n<text>How do I plant ro</text>\n#### Output:\n",
            ),
            ["autocompletion", "<text>How do I plant ro</text>", '{ "text": "<completion>" }'],
        ),
        "LobeChat, title": (
            {
                "messages": [
                    {"role": "system", "content": "You sum conversations up as titles of 10 characters."},
                    {"role": "user", "content": turns(8, "user", "assistant") + _LOBE_TITLE},
                ],
                "stream": True,
            },
            ["You sum conversations up as titles", "as a title of 10 characters", "user: Turn 1"],
        ),
        "Cherry Studio, title": (
            {
                "messages": [
                    {
                        "role": "system",
                        "content": "你擅长会话，请把用户的会话总结为十个字以内的标题，不要使用标点符号。",
                    },
                    {
                        "role": "user",
                        "content": json.dumps([{"role": "user", "mainText": _GARDEN} for _ in range(8)], indent=1),
                    },
                ],
                "stream": False,
            },
            ["十个字以内的标题", '"role": "user"'],
        ),
        "LobeChat, title of a chat that just fits": (
            {
                "messages": [
                    {"role": "system", "content": "You sum conversations up as titles. " + "Follow the rules. " * 14},
                    {"role": "user", "content": turns(6, "user", "assistant")},
                ],
                "stream": True,
            },
            ["You sum conversations up as titles. Follow the rules.", "user: Turn 1"],
        ),
        "Chatbox, name": (
            {"messages": [{"role": "user", "content": _CHAT_NAME.format(quoted=f"{_GARDEN}\n\n-----\n\n" * 8)}]},
            ["give this conversation a name", "The name is:"],
        ),
        "NextChat, title": (
            {
                "messages": [
                    *CHAT[:2] * 6,
                    {"role": "user", "content": "Make a title of four or five words for our conversation."},
                ],
                "stream": False,
                "max_tokens": 4000,
                **_SAMPLING,
            },
            ["Make a title of four or five words", "Hello Ada!"],
        ),
        "LibreChat, title": (
            {"messages": [{"role": "user", "content": _LIBRECHAT + turns(8, "User", "AI")}], "temperature": 0.2},
            ["a concise title", "User: Turn 1"],
        ),
        "Dify, title": (
            {"messages": [{"role": "user", "content": _DIFY_TITLE + _GARDEN * 6}], "temperature": 1, "max_tokens": 500},
            ["concise chat title", '"Your Output"', "Roses like sun"],
        ),
    }


def too_long() -> dict[str, Body]:
    """Requests whose message has to be read in full, and is too long for that."""
    translate = "Translate the following text into Simplified Chinese, without notes:\n\n"
    return {
        "Immersive Translate, a page": {
            "messages": [
                {"role": "system", "content": "You translate texts. Only the translation is wanted."},
                {"role": "user", "content": translate + _GARDEN * 9},
            ],
            "temperature": 0,
        },
        "Zotero GPT, a paper": {
            "messages": [{"role": "user", "content": f"What is new in this paper?\n\n{_GARDEN * 40}"}],
            "stream": True,
        },
        "Open WebUI, documents": {
            "messages": [
                {
                    "role": "user",
                    "content": "### Task:\nAnswer from the context, and cite it.\n\n<context>\n"
                    f"{_GARDEN * 30}\n</context>\n\n{NAME_ASKED}",
                }
            ],
            "tools": open_webui_tools(),
            "stream": True,
        },
    }
