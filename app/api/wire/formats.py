"""The form that a client wants the answer in: where its schema stands differs between OpenAI's dialects. Pure."""

from typing import Any, Literal

from pydantic import Field

from app.api.wire.body import WireModel
from app.api.wire.faults import missing_parameter
from app.domain.chat import PLAIN_TEXT, OutputFormat


class JsonSchema(WireModel):
    """The schema that the answer must fit."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(JsonSchema):
    """The form of the answer. Its schema stands in an object of its own or beside the type: either is taken."""

    type: Literal["text", "json_object", "json_schema"] | None = Field(None, description="`text` if absent")
    json_schema: JsonSchema | None = None


def output_format(form: ResponseFormat, place: str, schema_place: str) -> OutputFormat:
    """What a form means.

    Args:
        place: The request field that it came in, for errors.
        schema_place: Where the dialect has the schema, for the error when there is none.

    Raises:
        InvalidRequest: It needs a schema, and has none.
    """
    if form.type in (None, "text"):
        return PLAIN_TEXT
    if form.type == "json_object":
        return OutputFormat("json_object", place=place)
    given = form.json_schema or form
    if given.schema_ is None:
        raise missing_parameter(schema_place)
    name, description = given.name or "", given.description or ""
    return OutputFormat("json_schema", given.schema_, name, description, bool(given.strict), place)
