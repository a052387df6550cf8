"""The order of an answer's parts, where thoughts, text and calls alternate. Pure."""

from collections.abc import Iterable, Sequence

from app.domain.chat import Delta, ToolCallDelta, merged_extras


def alternating(deltas: Iterable[Delta]) -> tuple[Delta, ...]:
    """The deltas, neighbours of one kind joined, if thoughts, text and calls don't simply follow each other."""
    runs: list[tuple[tuple[int, int], list[Delta]]] = []
    for delta in deltas:
        for kind, part in _parts(delta):
            if not runs or runs[-1][0] != kind:
                runs.append((kind, []))
            runs[-1][1].append(part)
    kinds = [kind for kind, _ in runs]
    return () if kinds == sorted(set(kinds)) else tuple([_joined(parts) for _, parts in runs])


def _parts(delta: Delta) -> Iterable[tuple[tuple[int, int], Delta]]:
    """What a delta carries, each with its place in the usual order: thoughts, text, first call, second call …"""
    if delta.reasoning:
        yield (0, 0), Delta(reasoning=delta.reasoning)
    if delta.text:
        yield (1, 0), Delta(delta.text)
    if delta.tool_call is not None:
        yield (2, delta.tool_call.index), delta


def _joined(parts: Sequence[Delta]) -> Delta:
    first = parts[0].tool_call
    if first is None:
        return Delta("".join([part.text for part in parts]), reasoning="".join([part.reasoning for part in parts]))
    arguments = "".join([part.tool_call.arguments for part in parts if part.tool_call])
    extras = merged_extras([part.tool_call.extras for part in parts if part.tool_call and part.tool_call.extras])
    return Delta(tool_call=ToolCallDelta(first.index, first.id, first.name, arguments, extras))
