"""Answers as trees of elements: what Markdown means, and nothing that could do harm."""

from typing import Any

import pytest

from app.api.console.markdown import Element, Node, tree_of

_TAGS = {
    *("p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "em", "strong", "s", "br", "hr", "code", "pre"),
    *("table", "thead", "tbody", "tr", "th", "td", "a"),
}


def _plain(nodes: Any) -> str:
    return "".join(node if isinstance(node, str) else _plain(node.children) for node in nodes)


def _elements(nodes: Any) -> list[Element]:
    own = [node for node in nodes if isinstance(node, Element)]
    return own + [one for element in own for one in _elements(element.children)]


def test_markdown_is_read() -> None:
    """Headings stand below those of the page; tables, code, lists and emphasis are elements."""
    tree: list[Node] = list(tree_of("# One\n\n- *two*\n- `three`\n\n```py\nfour <5>\n```\n\n~~six~~"))
    assert tree == [
        Element("h3", ["One"]),
        Element("ul", [Element("li", [Element("em", ["two"])]), Element("li", [Element("code", ["three"])])]),
        Element("pre", [Element("code", ["four <5>\n"])]),
        Element("p", [Element("s", ["six"])]),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a <b onclick=x>b</b> c",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,xx)",
        "[x](vbscript:x)",
        "[x](//elsewhere.example/)",
        "[x](/console/people)",
        "[x](ms-settings:privacy)",
        "<javascript:alert(1)>",
        "![x](javascript:alert(1))",
        "[x]: javascript:alert(1)\n\n[x]",
        "&lt;script&gt;",
        "![x](https://elsewhere.example/pixel.png)",
    ],
)
def test_nothing_in_it_does_harm(text: str) -> None:
    """HTML stays text, addresses that aren't those of other sites aren't linked, pictures aren't loaded."""
    elements = _elements(tree_of(text))
    assert {one.tag for one in elements} <= _TAGS - {"img", "script"}
    assert all(one.href.startswith("https://elsewhere.example/") for one in elements if one.href)
    assert all(one.href for one in elements if one.tag == "a")


@pytest.mark.parametrize(
    "text", [">" * 5000 + " deep", "- " * 2000 + "deep", "*" * 10_000, "[" * 10_000, "| a " * 3000]
)
def test_what_is_nested_deeply_is_read_all_the_same(text: str) -> None:
    """No answer is too deep to be shown."""
    _elements(tree_of(text))
