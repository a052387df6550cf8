"""Reads pages as browsers do, as far as tests want to know."""

import base64
import hashlib
from html.parser import HTMLParser

_LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
_EMPTY = frozenset({"meta", "link", "img", "br", "input", "hr"})


class Page(HTMLParser):
    """A page.

    Attributes:
        text: All that is shown.
        language: Of the root element.
        loads: What it loads by itself, whatever it is.
        links: Where it leads.
        styles: Its inline styles.
        scripts: Its inline scripts.
        inline: Attributes that hold styles or scripts.
    """

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text, self.language = "", ""
        self.loads: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.inline: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _EMPTY:
            self._open.append(tag)
        values = dict(attrs)
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self.language = values.get("lang") or self.language
        if (place := values.get(_LOADING.get(tag, ""))) is not None:
            self.loads.append(place)
        if tag == "a" and (target := values.get("href")):
            self.links.append(target)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        within = self._open[-1] if self._open else ""
        if within == "style":
            self.styles.append(data)
        elif within == "script":
            self.scripts.append(data)
        else:
            self.text += data


def policy_of(header: str) -> dict[str, list[str]]:
    """A Content-Security-Policy, by directive."""
    directives = (directive.split() for directive in header.split(";"))
    return {name: sources for name, *sources in directives}


def hash_of(text: str) -> str:
    """How a policy names an inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
