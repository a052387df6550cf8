"""Writes the generated documentation: `python -m docs.generate`. With `--check`, only reports stale pages.

In docs/api.md and docs/metrics.md, a generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the
rest is written by hand. docs/settings.md and .env.example are generated as a whole.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.assembly.app import create_app
from app.domain import errors
from app.domain.errors import GatewayError
from app.observe.metrics import Metrics
from app.settings import load_settings
from app.settings.reference import env_example, settings_markdown

ROOT = Path(__file__).parent.parent
PAGES = ("docs/api.md", "docs/metrics.md")
_PART = re.compile(r"(?<=<!-- generated: )(?P<name>\w+)(?P<gap> -->\n).*?(?=<!-- end -->)", re.DOTALL)
# In nginx.conf: what a variable is for each status, and one line of that.
_NGINX_BY_STATUS = r"map \$status \${} {{(.*?)\n    }}"
_NGINX_STATUS = re.compile(r'^\s+(\d+) "?([^"]+?)"?;$', re.MULTILINE)
# The OpenAI SDKs send a request again after these, and after 5xx.
_RETRIED = frozenset({408, 409, 429})

Json = Mapping[str, Any]


def main() -> int:
    """Write or check all pages; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Generate the reference pages.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is stale")
    check = parser.parse_args().check
    stale = {
        path: text for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is stale: run ./dev docs", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return 1 if check and stale else 0


def pages() -> dict[Path, str]:
    """Return every generated page as it should be."""
    parts = {
        "metrics": metrics(),
        "errors": error_table(),
        "nginx_errors": nginx_error_table(),
        "advice": advice_table(),
        **api_parts(openapi()),
    }
    return {
        **{ROOT / name: filled((ROOT / name).read_text(encoding="utf-8"), parts) for name in PAGES},
        ROOT / "docs/settings.md": settings_markdown(),
        ROOT / ".env.example": env_example(),
    }


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part['name']}{part['gap']}\n{parts[part['name']]}\n\n", page)


def openapi() -> Json:
    """Return the app's own description, whatever this machine's settings are."""
    return create_app(load_settings(_env_file=None, api_master_key="sk-only-for-the-docs-5e1f")).openapi()


def metrics() -> str:
    """Return the table of metrics."""
    return table(
        ("metric", "type", "unit", "labels", "meaning"),
        (
            (f"`{metric.name}`", metric.kind, metric.unit, names(metric.labels), metric.meaning)
            for metric in Metrics().instruments
        ),
    )


def error_table() -> str:
    """Return the table of errors, by status and code."""
    meanings: dict[tuple[str, ...], list[str]] = {}
    for kind in sorted(error_classes(), key=lambda kind: (kind.status, kind.code or "")):
        retried = kind.should_retry is None and (kind.status in _RETRIED or kind.status >= 500)
        code = f"`{kind.code}`" if kind.code else "`null`"
        facts = (str(kind.status), code, f"`{kind.type}`", yes(retried), yes(kind.try_elsewhere))
        meanings.setdefault(facts, []).append(meaning(kind))
    return table(
        ("status", "code", "type", "SDKs retry", "next upstream", "meaning"),
        ((*facts, " ".join(texts)) for facts, texts in meanings.items()),
    )


def nginx_error_table() -> str:
    """Return the table of the errors that nginx.conf defines."""
    codes, messages = nginx_by_status("error_code"), nginx_by_status("error_message")
    limits = "`MAX_BODY_BYTES`, or for an upload `MAX_UPLOAD_BYTES`,"
    return table(
        ("status", "code", "message"),
        ((status, f"`{codes[status]}`", text.replace("$largest_body", limits)) for status, text in messages.items()),
    )


def nginx_by_status(variable: str) -> dict[str, str]:
    """Return the values that a variable of nginx.conf has for the statuses named there."""
    [block] = re.findall(
        _NGINX_BY_STATUS.format(variable), (ROOT / "nginx.conf").read_text(encoding="utf-8"), re.DOTALL
    )
    return dict(_NGINX_STATUS.findall(block))


def advice_table() -> str:
    """Return what an operator can do about each error."""
    rows = {kind.code: kind.advice for kind in error_classes() if kind.advice}
    return table(
        ("code", "what the operator can do"), ((f"`{code}`", rows[code]) for code in sorted(filter(None, rows)))
    )


def error_classes() -> list[type[GatewayError]]:
    """Return all errors that are raised; those without status and code are bases only."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)]
    return [kind for kind in kinds if kind.code is not None or kind.status != GatewayError.status]


def api_parts(document: Json) -> dict[str, str]:
    """Return the parts of docs/api.md that come from the app's OpenAPI document."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return {
        "endpoints": endpoints(operations),
        "request_headers": request_headers(operations),
        "fields": "\n\n".join(request_fields(operations, document["components"]["schemas"])),
    }


def endpoints(operations: Iterable[tuple[str, str, Json]]) -> str:
    """Return the table of endpoints."""
    rows = []
    for method, path, operation in operations:
        query = "&".join(entry["name"] for entry in operation.get("parameters", ()) if entry["in"] == "query")
        address = f"`{method} {path}{'?' if query else ''}{query}`"
        key = "" if "security" in operation else " No key needed."
        summary, description = sentence(operation["summary"]), sentence(operation.get("description", ""))
        purpose = description if description.startswith(summary[:-1]) else f"{summary} {description}"
        rows.append((address, purpose + key, " ".join(sorted(operation["responses"]))))
    return table(("endpoint", "purpose", "statuses"), rows)


def request_headers(operations: Iterable[tuple[str, str, Json]]) -> str:
    """Return the table of the request headers that endpoints read."""
    headers = {
        entry["name"]: entry.get("description", "")
        for _, _, operation in operations
        for entry in operation.get("parameters", ())
        if entry["in"] == "header"
    }
    return table(("header", "meaning"), ((f"`{name}`", sentence(text)) for name, text in headers.items() if text))


def request_fields(operations: Iterable[tuple[str, str, Json]], schemas: Json) -> Iterator[str]:
    """Return the fields of each request body, but of those that are passed on."""
    users: dict[str, list[str]] = {}
    for method, path, operation in operations:
        # Those that are passed on have no schema of their own, whichever types their bodies may have.
        content, *_ = operation.get("requestBody", {}).get("content", {"": {}}).values()
        reference = content.get("schema", {}).get("$ref")
        if reference is not None:
            users.setdefault(reference.rpartition("/")[2], []).append(f"`{method} {path}`")
    for name, addresses in users.items():
        fields = schemas[name]["properties"]
        required = schemas[name].get("required", ())
        explained = table(
            ("field", "type", "meaning"),
            (
                (
                    f"`{field}`",
                    kind_of(about),
                    sentence(about["description"]) + (" Required." if field in required else ""),
                )
                for field, about in fields.items()
                if "description" in about
            ),
        )
        plain = names(field for field, about in fields.items() if "description" not in about)
        also = f"\n\nAs in the original API: {plain}." if plain else ""
        yield f"### {', '.join(addresses)}\n\n{explained}{also}"


def kind_of(schema: Json) -> str:
    """Return the JSON types that a field may have."""
    kinds = dict.fromkeys(_kinds(schema))
    kinds.pop("null", None)
    return " or ".join(kinds) or "any"


def _kinds(schema: Json) -> Iterator[str]:
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _kinds(choice)
    if "$ref" in schema:
        yield "object"
    elif "type" in schema:
        yield schema["type"]


def meaning(kind: type[GatewayError]) -> str:
    """Return the first line of an error's docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter and ends with a full stop; nothing if there is none."""
    text = " ".join(text.split()).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def names(values: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{value}`" for value in values)


def yes(value: bool) -> str:
    """Return a table's word for a fact; nothing if it isn't one."""
    return "yes" if value else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
