"""Tools and output formats for a model that only answers text: its instructions, and reading its reply.

This is the package's entrance. Each request has its own `Emulator`: its instructions go into the prompt, it renders
earlier calls for the history in the form that it asks for, and it reads the reply. A reply that can't be used raises
`Unreadable`, which says what to tell the model when it is asked once more.
"""

import secrets
from collections.abc import Callable, Sequence

from msgspec import Struct

from app.domain.chat import Message, OutputFormat, ToolCall, ToolUse
from app.domain.emulation.callable_tools import CallableTools, CallText
from app.domain.emulation.json_answer import read_json
from app.domain.emulation.jsontext import Fault, dumps
from app.domain.emulation.markup import Markup, without_thinking
from app.domain.emulation.quotation import Quotations
from app.domain.emulation.reader import bare_calls, read_calls
from app.domain.emulation.schema import Checks, Effort, SchemaCompiler
from app.domain.emulation.signatures import written

_ID_BYTES = 12
_EXAMPLE = '{"name":"NAME","arguments":{...}}'


def new_call_id() -> str:
    """A fresh id for a tool call."""
    return f"call_{secrets.token_hex(_ID_BYTES)}"


class Reading(Struct, frozen=True):
    """What a reply says: its text, and its calls in order."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class Unreadable(Exception):
    """A reply can't be used.

    Args:
        message: For the client, if the second reply is no better.
        reminder: For the model, when it is asked once more.
        fallback: The answer to give if the second reply is no better; None if an error is more honest.
    """

    def __init__(self, message: str, *, reminder: str, fallback: Reading | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reminder = reminder
        self.fallback = fallback


class Emulator:
    """Instructs a text-only model about tools and output format, and reads its reply, for one request.

    Args:
        tools: What the model may call; None if the request has no tools.
        output_format: The format of the answer.
        conversation: What was said before: text of users and tools in it is no call unless it stands in a tag.
        calls_by_itself: Whether there are tools that the model calls natively, which it is told about elsewhere.
        tag: Letters and digits that nobody can guess, new for each request. They mark calls.
        checks: For the tools that may be called, and for the answer; None compiles the schemas once more.
        call_id: Makes the ids of the calls.

    Attributes:
        instructions: For the prompt; "" if there are none.
        type_lines: The types of the tools that may be called, as they are written in it.
        tool_lines: These tools.
        about_tools: The part of them that is about tools.
        about_format: The part that is about the answer's form.
        param: The field at fault if the instructions don't fit the model's limit.
    """

    def __init__(
        self,
        *,
        tools: ToolUse | None,
        output_format: OutputFormat,
        tag: str,
        checks: Checks | None = None,
        call_id: Callable[[], str] = new_call_id,
        conversation: Sequence[Message] = (),
        calls_by_itself: bool = False,
    ) -> None:
        self._tools = tools
        self._callable = () if tools is None else tools.callable_tools
        self._must_call = bool(self._callable) and tools is not None and tools.choice == "required"
        self._format = output_format
        self._markup = Markup(tag)
        self._call_id = call_id
        self._quotations = Quotations(conversation)
        self._may_call = bool(self._callable) or calls_by_itself
        self._effort = Effort()
        checks = checks or SchemaCompiler().checks(self._callable, output_format)
        self._checks = checks.tools
        self._callable_tools = CallableTools(self._callable, self._checks, self._effort)
        self._check = checks.answer if output_format.schema is not None else None
        self.type_lines, self.tool_lines = written(self._callable)
        self.about_tools, self.about_format = self._about_tools(), self._about_format()
        self.instructions = "\n".join(filter(None, (self.about_tools, self.about_format)))
        self.param = output_format.place if len(self.about_format) > len(self.about_tools) else "tools"

    @property
    def tools_told(self) -> str:
        """The tools that may be called, and their types."""
        return "\n".join([*self.type_lines, *self.tool_lines])

    def render_call(self, call: ToolCall) -> str:
        """An earlier call of the assistant, in the form that the model is asked for."""
        arguments = call.arguments.strip() or "{}"
        if not (arguments.startswith("{") and arguments.endswith("}")):
            arguments = dumps(arguments)
        return f'{self._markup.opening}{{"name":{dumps(call.name)},"arguments":{arguments}}}{self._markup.closing}'

    def read(self, reply: str) -> Reading:
        """Read a reply.

        With calls, the text is what the model said around them. A JSON answer is the JSON alone. Neither includes
        thinking (`<think>…</think>`). Any other answer is returned unchanged, to the last character.

        Raises:
            Unreadable: It is not what was asked for.
        """
        try:
            words, calls = self._calls(reply, self._callable_tools)
        except Fault as fault:
            words, calls = self._bare_call(reply)
            if not calls:
                raise self._unreadable_call(reply, str(fault)) from fault
        if not calls and self._must_call:
            words, calls = self._bare_call(reply)
        if calls:
            return self._reading(words, calls)
        if self._must_call:
            raise self._unreadable_call(reply, "there is no tool call in it")
        if self._format.kind == "text":
            return Reading(reply)
        try:
            return Reading(read_json(without_thinking(reply), self._check, self._effort))
        except Fault as fault:
            raise self._unreadable_json(str(fault)) from fault

    def _reading(self, words: str, calls: Sequence[CallText]) -> Reading:
        return Reading(words, tuple([ToolCall(self._call_id(), call.name, call.arguments) for call in calls]))

    def _calls(self, reply: str, callable_tools: CallableTools) -> tuple[str, list[CallText]]:
        if not self._callable or self._tools is None:
            return reply, []
        words, calls = read_calls(
            reply,
            self._markup,
            callable_tools,
            self._quotations,
            must_call=self._must_call,
            is_answer=self._is_answer,
        )
        return words, calls if self._tools.parallel else calls[:1]

    def _bare_call(self, reply: str) -> tuple[str, list[CallText]]:
        """The call of the only tool, if there must be one and the model wrote no more of it than the arguments."""
        if not self._must_call or len(self._callable) > 1:
            return reply, []
        words, calls = bare_calls(
            self._markup.unmarked(without_thinking(reply)), self._callable[0], self._callable_tools
        )
        return words, calls if self._tools is not None and self._tools.parallel else calls[:1]

    def _is_answer(self, value: object) -> bool:
        return not self._must_call and self._check is not None and not self._check.faults(value, self._effort)

    def _about_tools(self) -> str:
        if not self._callable or self._tools is None:
            return ""
        form = f"{self._markup.opening}{_EXAMPLE}{self._markup.closing}"
        return (
            f"You can call these tools:\n{self.tools_told}\n"
            f"To call one, end your reply with exactly this (valid JSON, no code fence):\n{form}\n"
            f"{self._rule(self._tools)}"
        )

    def _rule(self, tools: ToolUse) -> str:
        several = " Several calls: one such block each." if tools.parallel else " At most one call."
        if not self._must_call:
            return f"Call a tool only if it is needed.{several}"
        if len(self._callable) == 1:
            return f"Now you must call {self._callable[0].name}.{several}"
        return f"Now you must call at least one tool.{several}" if tools.parallel else "Now you must call one tool."

    def _about_format(self) -> str:
        if self._format.kind == "text" or self._must_call:
            return ""
        start = "If you call no tool, answer" if self._may_call else "Answer"
        if self._format.schema is None:
            return f"{start} with one JSON object and nothing else: no words around it, no code fence."
        purpose = f" ({self._format.description.strip()})" if self._format.description.strip() else ""
        return (
            f"{start} with JSON{purpose} and nothing else, no words around it, no code fence. "
            f"It must fit this JSON Schema:\n{dumps(self._format.schema)}"
        )

    def _unreadable_call(self, reply: str, why: str) -> Unreadable:
        form = f"{self._markup.opening}{_EXAMPLE}{self._markup.closing}"
        is_free = not self._must_call and self._format.kind == "text"
        return Unreadable(
            f"The model made no usable tool call: {why}.",
            reminder=f"Your tool call can't be used: {why}. Write it again, complete, in exactly this form:\n{form}",
            fallback=self._at_worst(reply) if is_free else None,
        )

    def _at_worst(self, reply: str) -> Reading:
        """A reply with a call that can't be used: the call, if only its arguments don't fit, else the text as it is.

        A client checks what it is given to call, unless it relies on the schema, and can tell the model better than we.
        """
        lax = frozenset(tool.name for tool in self._callable if not tool.strict)
        try:
            words, calls = self._calls(reply, CallableTools(self._callable, self._checks, self._effort, unchecked=lax))
        except Fault:
            calls = []
        return self._reading(words, calls) if calls else Reading(reply)

    def _unreadable_json(self, why: str) -> Unreadable:
        return Unreadable(
            f"The model's answer is not the requested JSON: {why}.",
            reminder=f"Your answer can't be used: {why}. Write it again: the JSON that was asked for, nothing else.",
        )
