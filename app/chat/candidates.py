"""Which of a route's targets can take a conversation, and what would be sent to each. Pure."""

import secrets
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import PLAIN_TEXT, ChatCall, Image, Message
from app.domain.emulation.emulator import Emulator
from app.domain.emulation.schema import check_schema
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest
from app.domain.prompt import Prompt, compose, without_forged_calls
from app.domain.tokens import estimate
from app.providers.base import ModelSpec
from app.providers.registry import Target

_TAG_BYTES = 3


class Candidate(Struct, frozen=True):
    """A target, and what it would be sent.

    Args:
        conversation: All messages, whatever becomes of them for this target.
        messages: What goes to a target that takes messages.
        emulator: Makes up for what the target's model can't do; None if it can do all that is asked for.
    """

    target: Target
    conversation: tuple[Message, ...]
    prompt: Prompt
    messages: tuple[Message, ...]
    emulator: Emulator | None

    @property
    def text(self) -> str:
        """All that is said in what is sent, for people."""
        return self.prompt.text or "\n".join(f"{message.role}: {message.text}" for message in self.messages)

    @property
    def takes_all(self) -> bool:
        """Does the conversation fit as it is?"""
        return not self.prompt.dropped and not self.prompt.shortened and self.prompt.size <= self.prompt.limit.size


class PassedOver(Struct, frozen=True):
    """A target that is not asked, or (`for_now`) not yet, and why."""

    target: Target
    error: GatewayError
    for_now: bool = False


def candidates(
    targets: Sequence[Target], call: ChatCall, messages: tuple[Message, ...]
) -> Iterator[Candidate | PassedOver]:
    """The targets in the order in which to ask them: first those that take the whole conversation, then the others.

    Those that can't take it at all are only passed over, and so is, for the time being, one that can't take all of it.
    """
    later: list[Candidate] = []
    for target in targets:
        try:
            candidate = _candidate(target, call, messages)
        except InvalidRequest as refusal:
            yield PassedOver(target, refusal)
            continue
        if candidate.takes_all or len(targets) == 1:
            yield candidate
        else:
            later.append(candidate)
            error = ContextTooLong("The conversation doesn't fit as a whole.", param="messages")
            yield PassedOver(target, error, for_now=True)
    yield from later


def reminded(candidate: Candidate, reply: str, reminder: str) -> Candidate:
    """The same once more, after a reply that was of no use.

    Raises:
        ContextTooLong: There is no room for the reminder.
    """
    if "messages" in candidate.target.spec.abilities:
        # Some upstreams refuse an empty message.
        said = (Message("assistant", reply),) if reply.strip() else ()
        messages = (*candidate.messages, *said, Message("user", reminder))
        return replace(candidate, messages=messages, prompt=_measured(messages, candidate.target.spec))
    prompt = _composed(candidate.conversation, candidate.target.spec, candidate.emulator, reminder)
    return replace(candidate, prompt=prompt)


def _candidate(target: Target, call: ChatCall, messages: tuple[Message, ...]) -> Candidate:
    spec = target.spec
    if "images" not in spec.abilities:
        _refuse_images(call.messages)
    emulator = _emulator(spec, call)
    if "messages" not in spec.abilities:
        return Candidate(target, messages, _composed(messages, spec, emulator), messages, emulator)
    told = messages if "tools" in spec.abilities else _in_words(messages, emulator)
    if emulator is not None and emulator.instructions:
        told = (Message("system", emulator.instructions), *told)
    return Candidate(target, messages, _measured(told, spec), told, emulator)


def _emulator(spec: ModelSpec, call: ChatCall) -> Emulator | None:
    tools = None if "tools" in spec.abilities else call.tools
    kind = call.output_format.kind
    output_format = PLAIN_TEXT if kind == "text" or kind in spec.abilities else call.output_format
    if tools is None and output_format is PLAIN_TEXT:
        return None
    for index, tool in enumerate(tools.tools if tools else ()):
        check_schema(tool.parameters, tool.place or f"tools[{index}]", of_object=True)
    if output_format.schema is not None:
        check_schema(output_format.schema, output_format.place)
    return Emulator(
        tools=tools,
        output_format=output_format,
        tag=_new_tag(),
        calls_by_itself=tools is None and call.tools is not None and bool(call.tools.callable_tools),
    )


def _new_tag() -> str:
    return secrets.token_hex(_TAG_BYTES)


def _composed(messages: Sequence[Message], spec: ModelSpec, emulator: Emulator | None, reminder: str = "") -> Prompt:
    if emulator is None:
        return compose(messages, spec.prompt_limit)
    instructions = "\n".join(part for part in (emulator.instructions, reminder) if part)
    return compose(
        messages,
        spec.prompt_limit,
        instructions=instructions,
        instructions_param=emulator.param,
        render_call=emulator.render_call,
    )


def _in_words(messages: tuple[Message, ...], emulator: Emulator | None) -> tuple[Message, ...]:
    """The messages for a model that takes them but knows nothing of tools: calls and results in words."""
    if emulator is None:
        if not any(message.tool_calls or message.role == "tool" for message in messages):
            return messages
        emulator = Emulator(tools=None, output_format=PLAIN_TEXT, tag=_new_tag())
    return tuple(_worded(message, emulator) for message in messages)


def _worded(message: Message, emulator: Emulator) -> Message:
    if message.role in ("user", "tool"):
        message = _without_forged_calls(message)
    if message.tool_calls:
        calls = [emulator.render_call(call) for call in message.tool_calls]
        text = "\n".join([message.text, *calls] if message.text else calls)
        return replace(message, text=text, tool_calls=())
    if message.role == "tool":
        return Message("user", f"[Tool {message.name or ''}]: {message.text}")
    return message


def _without_forged_calls(message: Message) -> Message:
    parts = tuple(part if isinstance(part, Image) else without_forged_calls(part) for part in message.parts)
    return replace(message, text=without_forged_calls(message.text), parts=parts)


def _refuse_images(messages: Sequence[Message]) -> None:
    images = [image for message in messages if message.parts for image in message.images]
    if images:
        raise InvalidRequest("This model reads text only, no images.", param=images[0].place or "messages")


def _measured(messages: Sequence[Message], spec: ModelSpec) -> Prompt:
    """The size of a conversation that goes out message by message, by our estimate; the upstream knows better."""
    size = sum(
        estimate(message.text) + sum(estimate(call.name + call.arguments) for call in message.tool_calls)
        for message in messages
    )
    return Prompt("", size, spec.prompt_limit)
