"""What is wrong with a form is said in the reader's language."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from app.api.console.faults import translated
from app.api.console.rendering import LANGUAGES
from tests.console.running import Console, Signed

_APP = Path(app.__file__).parent
_SAID_IN = ("domain/limits.py", "keys/*.py", "people/*.py", "recording/*.py", "api/console/*.py")
_TEXTS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in (_APP / "api/console/fault_texts").iterdir()}
_PLACE = re.compile(r"\{[a-z]+\}")
# Fewer letters say nothing of what is wrong.
_LEAST = 15


@pytest.fixture(scope="module")
def admin(console: Console) -> Iterator[Signed]:
    """An administrator."""
    with console.signed_in("admin") as admin:
        yield admin


def _said() -> Iterator[re.Pattern[str]]:
    """What the code may say: its texts, with anything where something is put into them."""
    for pattern in _SAID_IN:
        for path in sorted(_APP.glob(pattern)):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
                if sum(len(text) for text in texts if isinstance(text, str)) >= _LEAST:
                    whole = "".join(re.escape(text) if isinstance(text, str) else ".+" for text in texts)
                    yield re.compile(whole, re.DOTALL)


def test_what_is_translated_is_still_said() -> None:
    """A message that is changed in the code finds its translation again, or loses it here and not in silence."""
    said = list(_said())
    for texts in _TEXTS.values():
        for message in texts:
            assert any(pattern.fullmatch(_PLACE.sub("something", message)) for pattern in said), message


def test_every_language_but_english_says_the_same() -> None:
    """The same messages, and what is put into them."""
    assert _TEXTS.keys() == set(LANGUAGES) - {"en"}
    for texts in _TEXTS.values():
        for message, text in texts.items():
            assert sorted(_PLACE.findall(text)) == sorted(_PLACE.findall(message)), message


def test_what_nobody_has_translated_is_told_as_it_is() -> None:
    """In any language; and what somebody has typed in is never taken for a place to be filled."""
    assert translated("Something new.", "zh") == "Something new."
    assert translated("Name or password is wrong.", "en") == "Name or password is wrong."
    typed = "A person named '{0.__class__} {name}' already exists."
    assert translated(typed, "zh") == "已经有名为 '{0.__class__} {name}' 的人员。"


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("keys/new", {"name": "a", "limits": "60 bananas/minute"}, "不是限额；例如可以写 `60 requests/minute`"),
        ("keys/new", {"name": "a", "expires": "tomorrow"}, "不是日期"),
        ("keys/new", {"name": "a", "expires": "2020-01-31"}, "到期时间必须在将来"),
        ("keys/new", {"name": "a" * 101}, "名称必须有 1 到 100 个字符"),
        ("limits/gateway", {"limits": "many", "do": "try"}, "不是限额；例如可以写"),
        ("people", {"name": " "}, "名称必须有 1 到 60 个字符"),
        ("prices", {"model": "kimi", "since": "2027-01-31", "input": "cheap"}, "不是价格"),
        ("account/password", {"password": "short"}, "密码必须有 12 到 200 个字符"),
    ],
)
def test_the_commonest_faults_are_told_in_chinese(admin: Signed, path: str, fields: dict[str, str], said: str) -> None:
    """On the page of the form; in English as before."""
    page = {}
    for language in ("en", "zh"):
        headers = {"sec-fetch-site": "same-origin", "accept-language": language}
        answer = admin.client.post(f"/console/{path}", data={"csrf": admin.csrf, **fields}, headers=headers)
        assert answer.status_code == 400
        page[language] = answer.text
    assert said in page["zh"]
    assert said not in page["en"]
