"""A request as people would send it themselves. Pure. `ORIGIN` stands for the gateway's address, as pages fill it in."""

import json
from collections.abc import Mapping
from pprint import pformat
from typing import Any

_WIDTH = 100


def snippets(body: Mapping[str, Any], session_id: str | None) -> dict[str, str]:
    """The same request for curl, Python and JavaScript."""
    return {
        "curl": _curl(body, session_id),
        "python": _python(body, session_id),
        "javascript": _script(body, session_id),
    }


def _curl(body: Mapping[str, Any], session_id: str | None) -> str:
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    lines = [
        "curl ORIGIN/v1/chat/completions",
        '-H "Authorization: Bearer $API_KEY"',
        '-H "Content-Type: application/json"',
        *([f'-H "X-Session-Id: {session_id}"'] if session_id else []),
        f"-d '{quoted}'",
    ]
    return " \\\n  ".join(lines)


def _python(body: Mapping[str, Any], session_id: str | None) -> str:
    fields = [f"    {name}={pformat(value, width=_WIDTH, sort_dicts=False)}," for name, value in body.items()]
    if session_id:
        fields.append(f'    extra_headers={{"X-Session-Id": "{session_id}"}},')
    read = (
        "for chunk in answer:\n    for choice in chunk.choices:\n        print(choice.delta.content or '', end='')"
        if body.get("stream")
        else "print(answer.choices[0].message)"
    )
    lines = [
        "from openai import OpenAI",
        "",
        'client = OpenAI(base_url="ORIGIN/v1", api_key=API_KEY)',
        "answer = client.chat.completions.create(",
        *fields,
        ")",
        read,
    ]
    return "\n".join(lines)


def _script(body: Mapping[str, Any], session_id: str | None) -> str:
    options = f', {{ headers: {{ "X-Session-Id": "{session_id}" }} }}' if session_id else ""
    read = (
        'for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta.content ?? "");'
        if body.get("stream")
        else "console.log(answer.choices[0].message);"
    )
    lines = [
        'import OpenAI from "openai";',
        "",
        'const client = new OpenAI({ baseURL: "ORIGIN/v1", apiKey: API_KEY });',
        f"const answer = await client.chat.completions.create({json.dumps(body, ensure_ascii=False, indent=2)}{options});",
        read,
    ]
    return "\n".join(lines)
