"""The page `/docs`: it needs nothing from elsewhere, and its examples work."""

import gzip
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.api.pages.reading import Page, policy_of
from tests.live import LiveGateway


@pytest.fixture
def stranger(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """A client without a key, as a browser is one."""
    with httpx.Client(base_url=gateway.base_url, trust_env=False, headers={"Accept-Encoding": "gzip"}) as http:
        yield http


def test_everything_that_the_page_loads_comes_from_here(stranger: httpx.Client) -> None:
    """Each style and script is served without a key, under an address that browsers may keep for ever."""
    page = Page(stranger.get("/docs").text)
    loaded = [place for place in page.loads if place != "data:,"]
    assert len(loaded) == 3
    for place in loaded:
        assert place.startswith("/docs/")
        response = stranger.get(place).raise_for_status()
        kind = "text/css" if ".css" in place else "text/javascript"
        assert response.headers["content-type"] == f"{kind}; charset=utf-8"
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert stranger.get(place.partition("?")[0]).headers["cache-control"] == "no-cache"


def test_the_page_s_policy_lets_nothing_else_in(stranger: httpx.Client) -> None:
    """No inline script or style, no other host; neither page nor policy names one."""
    response = stranger.get("/docs")
    page = Page(response.text)
    assert (page.scripts, page.styles, page.inline) == ([], [], [])
    assert "http:" not in response.text
    assert "https:" not in response.text
    policy = policy_of(response.headers["content-security-policy"])
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert {source for sources in policy.values() for source in sources} == {"'none'", "'self'", "data:"}
    assert response.headers["x-content-type-options"] == "nosniff"


def test_files_are_packed_for_those_who_take_that(stranger: httpx.Client) -> None:
    """The compressed file is the file, and a fraction of its size on the way."""
    plain = stranger.get("/docs/swagger-ui-bundle.js", headers={"Accept-Encoding": "identity"})
    with stranger.stream("GET", "/docs/swagger-ui-bundle.js") as response:
        packed = b"".join(response.iter_raw())
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 3


def test_there_is_no_other_page_of_fastapi_s(client: httpx.Client) -> None:
    """Those would load their scripts from elsewhere."""
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/nothing.js"):
        assert client.get(path).status_code == 404


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Method, address and description of all operations, as the page orders them: by tag, then as they come."""
    found = [(method, path, each) for path, methods in document["paths"].items() for method, each in methods.items()]
    for tag in document["tags"]:
        yield from (operation for operation in found if operation[2]["tags"] == [tag["name"]])


def test_every_operation_has_a_place_on_the_page(stranger: httpx.Client) -> None:
    """Chat comes first, and no operation has a tag without a description."""
    document = stranger.get("/openapi.json").json()
    count = sum(len(methods) for methods in document["paths"].values())
    shown = list(operations(document))
    assert len(shown) == count
    assert shown[0][1] == "/v1/chat/completions"


def test_every_example_is_answered(client: httpx.Client) -> None:
    """Executed one after the other, as they stand on the page, all get a 200."""
    document = client.get("/openapi.json").json()
    latest = "no response has been made"
    last: list[tuple[str, str]] = []
    for method, path, operation in operations(document):
        address = path
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                (example,) = parameter["examples"].values()
                address = address.replace(f"{{{parameter['name']}}}", example["value"])
        address = address.replace("resp_latest", latest)
        if method == "delete":
            last.append((method, address))
            continue
        body = operation.get("requestBody")
        content = next(iter(body["content"].values())) if body else {"examples": {"": {"value": None}}}
        # Endpoints that are passed on have none: what they answer is up to an upstream with an API.
        examples = content.get("examples", {}).values()
        for example in examples:
            response = client.request(method, address, json=example["value"])
            assert response.status_code == 200, f"{method} {address} {example}: {response.text}"
            if path == "/v1/responses" and "stream" not in str(example["value"]):
                latest = response.json()["id"]
    assert len(last) == 2
    for method, address in last:
        assert client.request(method, address).status_code == 200


def test_the_chat_s_examples_show_what_they_say(client: httpx.Client) -> None:
    """The second remembers the first, the third is a stream, the fourth calls its tool."""
    chat = client.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]
    bodies = [each["value"] for each in chat["requestBody"]["content"]["application/json"]["examples"].values()]
    answers = [client.post("/v1/chat/completions", json=body) for body in bodies]
    assert "Your name is Ada." in answers[1].text
    assert answers[2].text.endswith("data: [DONE]\n\n")
    assert answers[3].json()["choices"][0]["finish_reason"] == "tool_calls"


def test_no_header_is_sent_unless_the_user_writes_it(client: httpx.Client) -> None:
    """The page fills in what has an example: a header that did would change what its operation does."""
    document = client.get("/openapi.json").json()
    headers = [
        parameter
        for _, _, operation in operations(document)
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    ]
    assert headers
    for header in headers:
        assert not {"example", "examples"} & set(header)
        assert not {"default", "example", "examples"} & set(header["schema"])
