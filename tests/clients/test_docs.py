"""What the gateway says about itself: `/openapi.json` for programs, `/docs` for people."""

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from tests.live import LiveGateway

CONFIG = schemathesis.Config()


@pytest.fixture
def stranger(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """An HTTP client without a key."""
    with httpx.Client(base_url=gateway.base_url, trust_env=False) as http:
        yield http


@pytest.fixture
def document(stranger: httpx.Client) -> Any:
    """The gateway's description of itself."""
    return stranger.get("/openapi.json").raise_for_status().json()


def references(part: Any) -> Iterator[str]:
    """All `$ref`s in a document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def schema_of(content: Any) -> str:
    """The name of the schema of a JSON body."""
    reference: str = content["application/json"]["schema"]["$ref"]
    return reference.removeprefix("#/components/schemas/")


def test_the_description_is_valid(document: Any) -> None:
    """The description is valid OpenAPI 3.1, its schemas are valid JSON Schema, and no reference leads nowhere."""
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document, config=CONFIG).validate()
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})
    referred = set(references(document))
    assert referred <= {f"#/components/schemas/{name}" for name in schemas}
    assert len(referred) > 10


def test_the_description_tells_all_addresses(document: Any) -> None:
    """Every address of the API is described, with its methods."""
    told = {path: set(operations) for path, operations in document["paths"].items()}
    assert {path: methods for path, methods in told.items() if path.startswith("/v1")} == {
        "/v1/chat/completions": {"post"},
        "/v1/completions": {"post"},
        "/v1/responses": {"post"},
        "/v1/responses/input_tokens": {"post"},
        "/v1/responses/{response_id}": {"get", "delete"},
        "/v1/responses/{response_id}/input_items": {"get"},
        "/v1/messages": {"post"},
        "/v1/messages/count_tokens": {"post"},
        "/v1beta/models/{model}:generateContent": {"post"},
        "/v1beta/models/{model}:streamGenerateContent": {"post"},
        "/v1beta/models/{model}:countTokens": {"post"},
        "/v1beta/models": {"get"},
        "/v1beta/models/{model}": {"get"},
        "/v1/models": {"get"},
        "/v1/models/{model}": {"get"},
        "/v1/sessions": {"get"},
        "/v1/key": {"get"},
        "/v1/sessions/{session_id}": {"get", "delete"},
        "/v1/embeddings": {"post"},
        "/v1/rerank": {"post"},
        "/v1/moderations": {"post"},
        "/v1/images/generations": {"post"},
        "/v1/images/edits": {"post"},
        "/v1/images/variations": {"post"},
        "/v1/audio/transcriptions": {"post"},
        "/v1/audio/translations": {"post"},
        "/v1/audio/speech": {"post"},
    }
    assert {"/health", "/ready"} <= set(told)


def test_the_description_names_the_chat_request_and_the_errors(document: Any) -> None:
    """The chat request's fields, its stream, its headers and all its errors with their envelope are described."""
    chat = document["paths"]["/v1/chat/completions"]["post"]
    request = document["components"]["schemas"][schema_of(chat["requestBody"]["content"])]
    assert {"messages", "model", "stream", "max_tokens", "stop", "user", "temperature"} <= set(request["properties"])
    assert request["required"] == ["messages"]
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {parameter["name"] for parameter in chat["parameters"]} >= {"X-Session-Id", "X-Request-ID"}
    errors = {status: answer for status, answer in chat["responses"].items() if status != "200"}
    assert set(errors) == {"400", "401", "404", "409", "413", "415", "429", "500", "502", "503", "504"}
    assert {schema_of(answer["content"]) for answer in errors.values()} == {"ErrorEnvelope"}
    error = document["components"]["schemas"]["ErrorObject"]
    assert set(error["required"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/v1/completions", {"prompt", "model", "stop"}), ("/v1/responses", {"input", "previous_response_id", "store"})],
)
def test_the_description_names_the_other_requests(document: Any, path: str, fields: set[str]) -> None:
    """The further dialects describe their requests, their streams and their errors as well."""
    operation = document["paths"][path]["post"]
    request = document["components"]["schemas"][schema_of(operation["requestBody"]["content"])]
    assert fields <= set(request["properties"])
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert len(operation["responses"]) > 9


def test_the_description_names_the_messages_request_and_its_errors(document: Any) -> None:
    """Anthropic's dialect is described by its own request, answer, stream and errors."""
    messages = document["paths"]["/v1/messages"]["post"]
    request = document["components"]["schemas"][schema_of(messages["requestBody"]["content"])]
    assert sorted(request["required"]) == ["max_tokens", "messages", "model"]
    assert set(messages["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    errors = [answer for status, answer in messages["responses"].items() if status != "200"]
    assert {schema_of(answer["content"]) for answer in errors} == {"AnthropicErrorEnvelope"}


def test_the_description_names_the_content_request_and_its_errors(document: Any) -> None:
    """So is Gemini's, which is imported no sooner than it is described."""
    content = document["paths"]["/v1beta/models/{model}:generateContent"]["post"]
    request = document["components"]["schemas"][schema_of(content["requestBody"]["content"])]
    assert {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"} <= set(request["properties"])
    assert [parameter["name"] for parameter in content["parameters"] if parameter["in"] == "path"] == ["model"]
    errors = [answer for status, answer in content["responses"].items() if status != "200"]
    assert {schema_of(answer["content"]) for answer in errors} == {"GeminiErrorEnvelope"}


def test_the_description_knows_of_no_422(document: Any) -> None:
    """FastAPI's own error, which this gateway never sends, isn't described anywhere."""
    statuses = {
        status
        for operations in document["paths"].values()
        for answer in operations.values()
        for status in answer["responses"]
    }
    assert "422" not in statuses
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_the_description_says_what_needs_a_key(document: Any, stranger: httpx.Client) -> None:
    """What is described as needing a key is answered with 401 without one, and everything else isn't."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = stranger.request(method, path.replace("{", "").replace("}", ""))
            assert (path, answer.status_code == 401) == (path, "security" in operation)
            assert ("401" in operation["responses"]) == ("security" in operation)


def test_the_documentation_page_needs_no_key(stranger: httpx.Client) -> None:
    """`/docs` opens in any browser, and shows the description."""
    page = stranger.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
