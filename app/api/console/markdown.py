"""Answers as trees of elements.

The pages' policy lets no script turn text into HTML (Trusted Types), and it should stay so: what models write is
nobody's to trust. So Markdown is read here, with raw HTML off, and what comes of it is not HTML but a tree of elements
from a fixed list. The script makes elements of it one by one, and a template does where there are no scripts.
"""

from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from msgspec import Struct

# The page has headings of its own, down to the second level.
_TAGS = {"h1": "h3", "h2": "h3", "h3": "h4", "h4": "h5", "h5": "h6", "h6": "h6"} | {
    tag: tag
    for tag in (
        *("p", "ul", "ol", "li", "blockquote", "em", "strong", "s", "br", "hr", "a"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    )
}
_SCHEMES = ("http", "https", "mailto")
# Quotes within quotes within quotes: nobody reads them, and each is a level of recursion.
_DEEPEST = 30


class Element(Struct, frozen=True, omit_defaults=True):
    """An element.

    Args:
        tag: One of a fixed list; nothing else may be made of it.
        children: Texts and elements in it.
        href: Of an `a`: an address that is safe to open.
    """

    tag: str
    children: "Sequence[Node]" = ()
    href: str = ""


Node: TypeAlias = "str | Element"


def tree_of(text: str) -> Sequence[Node]:
    """Read Markdown."""
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable(["table", "strikethrough"])
    return _children(SyntaxTreeNode(parser.parse(text)))


def _children(node: SyntaxTreeNode) -> list[Node]:
    return [made for child in node.children for made in _made(child)]


def _made(node: SyntaxTreeNode) -> list[Node]:
    match node.type:
        case "text":
            return [node.content]
        case "softbreak":
            return ["\n"]
        case "code_inline":
            return [Element("code", [node.content])]
        case "fence" | "code_block":
            return [Element("pre", [Element("code", [node.content])])]
        case "image":  # from anywhere: nothing is loaded from there
            return _linked(str(node.attrs.get("src", "")), [f"[{node.content}]"])
        case "link":
            return _linked(str(node.attrs.get("href", "")), _children(node))
        case "inline":
            return _children(node)
    # Of a list whose items have no empty lines between them.
    if node.type == "paragraph" and node.hidden:
        return _children(node)
    tag = _TAGS.get(node.tag)
    return [node.content] if tag is None and not node.children else _wrapped(tag, _children(node))


def _wrapped(tag: str | None, children: list[Node]) -> list[Node]:
    return children if tag is None else [Element(tag, children)]


def _linked(address: str, children: list[Node]) -> list[Node]:
    try:
        is_safe = urlsplit(address).scheme.lower() in _SCHEMES
    except ValueError:
        is_safe = False
    return [Element("a", children, address)] if is_safe else children
