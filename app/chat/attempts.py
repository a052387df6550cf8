"""Which of a model's providers are asked, in which order, and what each of them is sent."""

import asyncio
import secrets
import string
from collections.abc import Iterator, Sequence
from typing import get_args

from msgspec import Struct
from msgspec.structs import replace

from app.chat.call_log import CallLog
from app.chat.fitting import NOTHING, USUAL_ROOM, Fitted, RoomPolicy, fitted
from app.chat.relief import relieved
from app.chat.session import CallSession
from app.domain.chat import PLAIN_TEXT, ChatCall, Image, Message, NativeRequest, OutputFormat, ToolUse
from app.domain.conversation import is_background
from app.domain.emulation.emulator import Emulator
from app.domain.emulation.schema import Checks, SchemaCompiler
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.forgery import without_forged_calls
from app.domain.output_limiter import OutputLimiter
from app.domain.prompt import MessagePrompt, TextPrompt, compose, message_prompt, pending_places
from app.domain.tokens import estimate
from app.providers.base import Ability, CompletionRequest, ModelSpec
from app.providers.bounds import ModelBounds, within_bounds
from app.providers.registry import Target

# 36 ** 13 are 67 bits: no text that was written before can have it, by chance or by trying.
_TAG_ALPHABET = string.ascii_lowercase + string.digits
_TAG_LENGTH = 13
_TEXT_ONLY = "This model reads text only, not images. Send the message without the image."
# An upstream that gets a request in its own form says itself what it can't do.
_EVERYTHING: frozenset[Ability] = frozenset(get_args(Ability))
_ONE_ANSWER = "n must be 1: this model gives one answer at a time."


class Attempt(Struct, frozen=True):
    """One target that is asked for the answer.

    Args:
        target: A model and its provider.
        request: What the provider is asked.
        limiter: Cuts the answer where the client wants it to end; None if the model does that itself.
        emulator: Makes up for tools and formats that the model lacks; None if it lacks nothing.
        conversation: The messages that the request's prompt was made of.
        ignored: What was left out or changed because the model doesn't take it.
    """

    target: Target
    request: CompletionRequest
    limiter: OutputLimiter | None
    emulator: Emulator | None
    conversation: tuple[Message, ...]
    ignored: tuple[str, ...] = ()


class _Prepared(Struct, frozen=True):
    """What a target is to be sent.

    Args:
        told: What it is told of tools and form.
        prompt: The prompt.
        messages: What the prompt was made of.
    """

    told: Fitted
    prompt: TextPrompt | MessagePrompt
    messages: tuple[Message, ...]


def attempts(
    call: ChatCall,
    caller_id: str,
    targets: Sequence[Target],
    session: CallSession,
    log: CallLog,
    policy: RoomPolicy = USUAL_ROOM,
    compiler: SchemaCompiler | None = None,
) -> Iterator[Attempt]:
    """The attempts at an answer, each made when its turn comes.

    Targets that take the whole conversation come first, then those that take a part of it. Those that can't take it at
    all are noted in the log. All attempts together have the time of the most patient provider.

    Args:
        call: What is asked.
        caller_id: Whose call it is.
        targets: Who may answer, in order.
        session: What the call means for its session.
        log: Takes notes.
        policy: What is done where there is too little room.
        compiler: Compiles the schemas that a target can't take by itself; None for a new one.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + max([target.provider.timeout for target in targets])
    is_limited = call.max_tokens is not None or bool(call.stop)
    is_formed = call.tools is not None or call.output_format.kind != "text"
    waiting: list[tuple[Target, _Prepared]] = []
    schemas = _Schemas(compiler or SchemaCompiler())

    def attempt(target: Target, prepared: _Prepared, others: int) -> Attempt:
        told, prompt = prepared.told, prepared.prompt
        emulator = told.emulator
        log.attempt(target, prompt, told.left_out)
        time = now()
        # The last one may use up the time; any other leaves half of it to those behind it.
        share = (deadline - time) / 2 if others else deadline - time
        abilities, bounds = target.spec.abilities, target.spec.bounds
        request = CompletionRequest(
            model=target.spec,
            prompt=prompt,
            caller_id=caller_id,
            conversation_id=session.conversation_id,
            options=call.options if "options" in abilities else {},
            tools=call.tools if "tools" in abilities else None,
            output_format=call.output_format if call.output_format.kind in abilities else PLAIN_TEXT,
            max_tokens=call.max_tokens,
            # A reply that is read by an emulator is cut afterwards: a stop text within a call would leave half of it.
            stop=call.stop if emulator is None else (),
            deadline=time + min(target.provider.timeout, share),
            retries=not others,
            n=call.n,
            report=log.note_report,
            on_wait=log.note_wait,
            native=call.native if call.native is not None and is_native(call, target) else None,
        )
        ignored: tuple[str, ...] = ()
        if bounds is not None and (is_limited or is_formed or call.options):
            request, ignored = _bounded(request, bounds)
        limiter = _limiter(call, target.spec, emulator) if is_limited else None
        return Attempt(target, request, limiter, emulator, prepared.messages, (*told.left_out, *ignored))

    for index, given in enumerate(targets):
        messages = session.messages
        unseen: tuple[str, ...] = ()
        try:
            target = given if call.native is None else _asked_natively(call, call.native, given)
            if "images" not in target.spec.abilities:
                messages, unseen = _without_images(messages, target.spec)
            prepared = _prepared(call, target.spec, messages, policy, schemas, is_formed=is_formed)
        except InvalidRequest as refusal:
            log.pass_over(given, refusal)
            continue
        if unseen:
            told = replace(prepared.told, left_out=(*prepared.told.left_out, *unseen))
            prepared = replace(prepared, told=told)
        if len(targets) == 1 or (prepared.prompt.is_whole and not prepared.told.left_out):
            yield attempt(target, prepared, others=len(targets) - index - 1 + len(waiting))
        else:
            waiting.append((target, prepared))
            log.pass_over(target, ContextTooLong("The conversation doesn't fit as a whole.", param="messages"))
    while waiting:
        target, prepared = waiting.pop(0)
        yield attempt(target, prepared, others=len(waiting))


def is_native(call: ChatCall, target: Target) -> bool:
    """Whether a target's API has the form of the client's request."""
    return call.native is not None and target.provider.kind == call.native.kind


def _asked_natively(call: ChatCall, native: NativeRequest, target: Target) -> Target:
    """A target that takes everything, if it gets the request in its own form.

    Raises:
        InvalidRequest: It doesn't, and the request can't be answered in any other.
    """
    if is_native(call, target):
        return Target(target.provider, replace(target.spec, abilities=_EVERYTHING))
    if native.refusal is not None:
        message, param = native.refusal
        raise InvalidRequest(message, param=param)
    return target


def reminded(attempt: Attempt, reply: str, reminder: str) -> Attempt:
    """The same attempt once more, within the same time, after a reply that was of no use.

    Raises:
        ContextTooLong: There is no room for the reminder.
    """
    prompt = attempt.request.prompt
    if isinstance(prompt, MessagePrompt):
        # Some upstreams refuse an empty message.
        said = (Message("assistant", reply),) if reply.strip() else ()
        prompt = message_prompt((*prompt.messages, *said, Message("user", reminder)), prompt.limit)
    else:
        parts = prompt.earlier_parts
        prompt = _composed(attempt.conversation, attempt.target.spec, attempt.emulator, reminder)
        prompt = _in_parts(prompt, parts) if parts else prompt
    return replace(attempt, request=replace(attempt.request, prompt=prompt))


def _bounded(request: CompletionRequest, bounds: ModelBounds) -> tuple[CompletionRequest, tuple[str, ...]]:
    """The request as its model takes it, and the names of what was changed."""
    taken = within_bounds(bounds, request.max_tokens, request.options, request.tools, request.output_format)
    if not taken.changed and taken.options is request.options:
        return request, ()
    bounded = replace(
        request,
        max_tokens=taken.max_tokens,
        options=taken.options,
        tools=taken.tools,
        output_format=taken.output_format,
    )
    return bounded, taken.changed


def _prepared(
    call: ChatCall,
    spec: ModelSpec,
    messages: tuple[Message, ...],
    policy: RoomPolicy,
    schemas: "_Schemas",
    *,
    is_formed: bool,
) -> _Prepared:
    """What a model is to be sent.

    Raises:
        InvalidRequest: It can't answer the call.
    """
    told = _told(call, spec, messages, policy, schemas) if is_formed else NOTHING
    if call.n > 1 and (told.emulator is not None or "messages" not in spec.abilities):
        raise InvalidRequest(_ONE_ANSWER, param="n", code="unsupported_value")
    try:
        prompt = _prompt(spec, messages, told.emulator)
    except ContextTooLong:
        relief = _relief(call, spec, messages, policy, schemas, is_formed=is_formed)
        if relief is None:
            raise
        return relief
    if (prompt.dropped or prompt.shortened) and is_background(messages):
        # The instruction that it can't do without may be what was dropped.
        relief = _relief(call, spec, messages, policy, schemas, is_formed=is_formed)
        if relief is not None:
            return relief
    return _Prepared(told, prompt, messages)


def _relief(
    call: ChatCall,
    spec: ModelSpec,
    messages: tuple[Message, ...],
    policy: RoomPolicy,
    schemas: "_Schemas",
    *,
    is_formed: bool,
) -> _Prepared | None:
    """What a model is to be sent of a conversation whose last message is too long; None if it is to be refused."""
    limit = spec.prompt_limit
    relief = relieved(messages, limit, policy, is_formed=is_formed, can_split=spec.takes_parts)
    if relief is None:
        return None
    told = _told(call, spec, relief.messages, policy, schemas) if is_formed else NOTHING
    try:
        prompt = _composed(relief.messages, spec, told.emulator)
    except ContextTooLong:
        return None
    if relief.earlier_parts:
        prompt = _in_parts(prompt, relief.earlier_parts)
    prompt = replace(prompt, shortened=prompt.shortened + relief.shortened)
    return _Prepared(told, prompt, relief.messages)


def _in_parts(prompt: TextPrompt, earlier_parts: tuple[str, ...]) -> TextPrompt:
    """The prompt as the last of several parts."""
    measure = prompt.limit.measure
    return replace(
        prompt,
        earlier_parts=earlier_parts,
        size=prompt.size + sum([measure(part) for part in earlier_parts]),
        tokens=prompt.tokens + sum([estimate(part) for part in earlier_parts]),
    )


def _prompt(spec: ModelSpec, messages: tuple[Message, ...], emulator: Emulator | None) -> TextPrompt | MessagePrompt:
    if "messages" not in spec.abilities:
        return _composed(messages, spec, emulator)
    if "tools" not in spec.abilities:
        messages = _in_words(messages, emulator)
    if emulator is not None and emulator.instructions:
        messages = (Message("system", emulator.instructions), *messages)
    return message_prompt(messages, spec.prompt_limit)


def _composed(
    messages: Sequence[Message], spec: ModelSpec, emulator: Emulator | None, reminder: str = ""
) -> TextPrompt:
    if emulator is None:
        return compose(messages, spec.prompt_limit, instructions=reminder)
    return compose(
        messages,
        spec.prompt_limit,
        instructions="\n".join(filter(None, (emulator.instructions, reminder))),
        instructions_param=emulator.param,
        render_call=emulator.render_call,
    )


class _Schemas:
    """The schemas of one call, checked once for all targets that lack the same."""

    def __init__(self, compiler: SchemaCompiler) -> None:
        self._compiler = compiler
        # What was refused, as message and field: a kept exception would lead back here, for the garbage collector.
        self._known: dict[tuple[bool, bool], Checks | tuple[str, str | None]] = {}

    def checks(self, tools: ToolUse | None, output_format: OutputFormat) -> Checks:
        key = (tools is None, output_format is PLAIN_TEXT)
        if key not in self._known:
            try:
                self._known[key] = self._compiler.checks(() if tools is None else tools.tools, output_format)
            except InvalidRequest as refusal:
                self._known[key] = (refusal.message, refusal.param)
        known = self._known[key]
        if isinstance(known, tuple):
            raise InvalidRequest(known[0], param=known[1])
        return known


def _told(
    call: ChatCall, spec: ModelSpec, messages: tuple[Message, ...], policy: RoomPolicy, schemas: _Schemas
) -> Fitted:
    """What a model is told of tools and form that it lacks."""
    tools = None if "tools" in spec.abilities else call.tools
    kind = call.output_format.kind
    output_format = PLAIN_TEXT if kind == "text" or kind in spec.abilities else call.output_format
    if tools is None and output_format is PLAIN_TEXT:
        return NOTHING
    checks = schemas.checks(tools, output_format)
    calls_by_itself = tools is None and call.tools is not None and bool(call.tools.callable_tools)
    tag = _new_tag()

    def emulator(tools: ToolUse | None, output_format: OutputFormat) -> Emulator:
        return Emulator(
            tools=tools,
            output_format=output_format,
            tag=tag,
            checks=checks,
            conversation=messages,
            calls_by_itself=calls_by_itself,
        )

    if policy.leaves_out and "messages" not in spec.abilities:
        return fitted(tools, output_format, emulator, messages, spec.prompt_limit)
    return Fitted(emulator(tools, output_format))


def _new_tag() -> str:
    return "".join([secrets.choice(_TAG_ALPHABET) for _ in range(_TAG_LENGTH)])


def _limiter(call: ChatCall, spec: ModelSpec, emulator: Emulator | None) -> OutputLimiter | None:
    if "messages" not in spec.abilities:
        return OutputLimiter(call.stop, call.max_tokens)
    return OutputLimiter(call.stop) if emulator and call.stop else None


def _in_words(messages: tuple[Message, ...], emulator: Emulator | None) -> tuple[Message, ...]:
    """The messages for a model that takes them but knows nothing of tools: calls and results in words."""
    if emulator is None:
        if not any(message.tool_calls or message.role == "tool" for message in messages):
            return messages
        emulator = Emulator(tools=None, output_format=PLAIN_TEXT, tag=_new_tag())
    return tuple(_worded(message, emulator) for message in messages)


def _worded(message: Message, emulator: Emulator) -> Message:
    if message.role in ("user", "tool"):
        parts = tuple(part if isinstance(part, Image) else without_forged_calls(part) for part in message.parts)
        message = replace(message, text=without_forged_calls(message.text), parts=parts)
    if message.tool_calls:
        calls = [emulator.render_call(call) for call in message.tool_calls]
        text = "\n".join([message.text, *calls] if message.text else calls)
        return replace(message, text=text, tool_calls=())
    if message.role == "tool":
        return Message("user", f"[Tool {message.name or ''}]: {message.text}")
    return message


def _without_images(messages: tuple[Message, ...], spec: ModelSpec) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The messages for a model that reads text only, and the places of the images that it won't see.

    Earlier images give way: apps send a chat's whole history, and after one image there would be no answer any more.

    Raises:
        InvalidRequest: There is an image in what is to be answered.
    """
    for message in messages:
        if message.parts and message.images:
            break
    else:
        return messages, ()
    pending, _ = pending_places(messages, spec.prompt_limit)
    for place in pending:
        if messages[place].images:
            raise InvalidRequest(_TEXT_ONLY, param=messages[place].images[0].place or "messages")
    unseen = [image.place for message in messages for image in message.images]
    # `[image]` stands for each in the text.
    return tuple([replace(message, parts=()) if message.parts else message for message in messages]), tuple(unseen)
