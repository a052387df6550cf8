"""A request as people would send it themselves. Pure."""

import json
from collections.abc import Mapping
from pprint import pformat
from typing import Any

_WIDTH = 100


def snippets(body: Mapping[str, Any], session_id: str | None, address: str) -> dict[str, str]:
    """The same request for curl, Python and JavaScript.

    Args:
        body: Of the request.
        session_id: None without a session.
        address: The gateway's, without a slash at its end.
    """
    base_url = f"{address}/v1"
    return {
        "curl": _curl(body, session_id, base_url),
        "python": _python(body, session_id, base_url),
        "javascript": _script(body, session_id, base_url),
    }


def _curl(body: Mapping[str, Any], session_id: str | None, base_url: str) -> str:
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    lines = [
        f"curl {base_url}/chat/completions",
        '-H "Authorization: Bearer $API_KEY"',
        '-H "Content-Type: application/json"',
        *([f'-H "X-Session-Id: {session_id}"'] if session_id else []),
        f"-d '{quoted}'",
    ]
    return " \\\n  ".join(lines)


def _python(body: Mapping[str, Any], session_id: str | None, base_url: str) -> str:
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
        f'client = OpenAI(base_url="{base_url}", api_key=API_KEY)',
        "answer = client.chat.completions.create(",
        *fields,
        ")",
        read,
    ]
    return "\n".join(lines)


def _script(body: Mapping[str, Any], session_id: str | None, base_url: str) -> str:
    written = json.dumps(body, ensure_ascii=False, indent=2)
    options = f', {{ headers: {{ "X-Session-Id": "{session_id}" }} }}' if session_id else ""
    read = (
        'for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta.content ?? "");'
        if body.get("stream")
        else "console.log(answer.choices[0].message);"
    )
    lines = [
        'import OpenAI from "openai";',
        "",
        f'const client = new OpenAI({{ baseURL: "{base_url}", apiKey: API_KEY }});',
        f"const answer = await client.chat.completions.create({written}{options});",
        read,
    ]
    return "\n".join(lines)
