"""The console's texts: the same ones in every language, and each that a page asks for."""

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import app.api.console
from app.api.console.rendering import LANGUAGES, setting_texts_of
from app.domain.errors import GatewayError, InvalidRequest, UpstreamRateLimited
from app.settings.loading import setting_groups
from app.storage.rows import OUTCOMES

_HERE = Path(app.api.console.__file__).parent
_ASKED = re.compile(r"\bt\('([a-z0-9_]+)'(?=[,)])")
# Codes that are given to an error where it is made.
_CODES = re.compile(r'''\bcode="([a-z_]+)"|_fault\([^)]*?"([a-z]+_[a-z_]+)"''')
_NAMES = re.compile("`[^`]+`")
_BEGUN = re.compile(r"\b(?:t\('([a-z0-9_]+_)' \+|word\('([a-z0-9_]+_)',)")
TEXTS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in (_HERE / "texts").iterdir()}
SOURCES = "\n".join(path.read_text("utf-8") for path in _HERE.parents[1].rglob("*.py"))
TEMPLATES = "\n".join(path.read_text("utf-8") for path in (_HERE / "templates").iterdir())


def _places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def _begun() -> set[str]:
    """The beginnings of texts whose ends are put to them."""
    return {whole or coded for whole, coded in _BEGUN.findall(TEMPLATES)}


def _errors(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _errors(narrower)


def test_every_language_is_there() -> None:
    """A file for each, and no other."""
    assert TEXTS.keys() == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text_with_the_same_places(language: str) -> None:
    """None is missing, none is empty, and what is put into them is called the same."""
    assert TEXTS[language].keys() == TEXTS["en"].keys()
    assert [key for key, text in TEXTS[language].items() if not text.strip()] == []
    assert {key: _places(text) for key, text in TEXTS[language].items()} == {
        key: _places(text) for key, text in TEXTS["en"].items()
    }


@pytest.mark.parametrize("language", set(LANGUAGES) - {"en"})
def test_a_language_has_the_meaning_of_every_setting(language: str) -> None:
    """And of nothing else; the names in it are those of the English one, so that a change of that isn't forgotten."""
    titles, meanings = setting_texts_of(language)
    groups = setting_groups().values()
    assert list(titles) == [inspect.cleandoc(group.__doc__ or "").partition("\n")[0].rstrip(".") for group in groups]
    told = {name: field.description or "" for group in groups for name, field in group.settings().items()}
    assert list(meanings) == list(told)
    assert {name: sorted(_NAMES.findall(text)) for name, text in meanings.items()} == {
        name: sorted(_NAMES.findall(text)) for name, text in told.items()
    }


def test_pages_ask_for_texts_that_there_are() -> None:
    """Those that are named whole, and of those whose ends are put together at least one."""
    assert set(_ASKED.findall(TEMPLATES)) - TEXTS["en"].keys() == set()
    begun = _begun()
    assert begun
    assert [begin for begin in begun if not any(key.startswith(begin) for key in TEXTS["en"])] == []


def test_every_outcome_and_error_has_words() -> None:
    """So that nobody has to know the codes: those of the tree of errors, and those that messages of faults give."""
    known = {error.code or error.type for error in _errors()} | {InvalidRequest.type, UpstreamRateLimited.type}
    given = {first or second for first, second in _CODES.findall(SOURCES)}
    assert {"invalid_type", "unsupported_value", "cors_origin_not_allowed"} <= given
    assert sorted(code for code in known | given if f"error_{code}" not in TEXTS["en"]) == []
    assert [outcome for outcome in OUTCOMES if f"outcome_{outcome}" not in TEXTS["en"]] == []


def test_no_text_is_left_over() -> None:
    """Each one is asked for by some page, whole or by its beginning; or is a page's name in the menu."""
    begun = tuple(_begun())
    asked = set(_ASKED.findall(TEMPLATES)) | set(re.findall(r"'([a-z_]+)'", TEMPLATES))
    assert [key for key in TEXTS["en"] if key not in asked and not key.startswith(begun)] == []


def test_no_template_has_words_of_its_own() -> None:
    """Whatever is read on a page comes from the texts: outside of tags and code there is no English word."""
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", TEMPLATES, flags=re.DOTALL)
    text = re.sub(r"<(pre|code|title|summary)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    # Names of things, and what both languages write alike.
    known = {"kimi", "ai", "api", "HTTP", "EN", "doctype", "html"}
    assert set(re.findall(r"[A-Za-z]{2,}", text)) - known == set()
