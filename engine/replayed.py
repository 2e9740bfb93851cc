"""A recorded graph run in memory of its own: no view is made and nothing allocated once it has been laid out.

Most of what a replay costs where tensors are small is not arithmetic: every view is a call, and every result is
memory that is asked for and given back. Here each result has its place from the start, views are made once, and a
call is the list of operations that compute, each told where to write. A place is used again once nothing reads it
any more, so what a block of tasks needs stays in the processor's caches.

The kernels, and the strides that they see, are those of a plain call, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from engine.graphs import is_view, is_writing, schema_of

MOST_BYTES = 1 << 25
"""Of one graph's memory; where results are larger, views and allocations do not count."""

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Layout = tuple[torch.dtype, int]
"""Type and number of elements of a place."""


class NotLaidOut(Exception):
    """A graph needs more memory than it may keep, or how much is not known before it runs."""


class _Copied(NamedTuple):
    """The tensor that an input was copied from, as theta is call after call, and how often it had been changed."""

    value: ref[Tensor] | None
    version: int

    def is_of(self, value: Tensor) -> bool:
        """Whether that is this one, as it is now."""
        return self.value is not None and self.value() is value and self.version == value._version  # noqa: SLF001


class Replayed:
    """A graph laid out for inputs of one shape. `inputs` are its memory for them, or results of another such graph.

    Results lie in memory of the graph, and hold until its next call.
    """

    def __init__(self, graph: Graph, constants: dict[str, Tensor], inputs: Sequence[Tensor]) -> None:
        """Raises `NotLaidOut`."""
        self._inputs, self._calls = list(inputs), list[Call]()
        self._copied = [_Copied(None, 0) for _ in inputs]
        self._writes = any(is_writing(node) for node in graph.nodes)
        room, values, given = _Room(), dict[Node, Any](), iter(inputs)
        room.take(sum(value.nbytes for value in inputs))
        for node, over in zip(graph.nodes, _over_after(graph), strict=True):
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = constants[str(node.target)]
            elif node.op == "call_function":
                values[node] = self._laid_out(node, values, room)
            else:
                self._results: list[Tensor] = [*map_arg(node.args[0], values.__getitem__)]
            for ended in over:
                room.free(values[ended])

    def __call__(self, *values: Tensor) -> list[Tensor]:
        """Run on values, which are copied where they are not the graph's own memory, nor those of before."""
        for number, (own, value) in enumerate(zip(self._inputs, values, strict=True)):
            if own is not value and (self._writes or not self._copied[number].is_of(value)):
                own.copy_(value)
                self._copied[number] = _Copied(ref(value), value._version)  # noqa: SLF001
        for operation, arguments, places in self._calls:
            operation(*arguments, **places)
        return self._results

    def _laid_out(self, node: Node, values: dict[Node, Any], room: _Room) -> Any:
        """The value of a node, in its place; what computes it is noted."""
        arguments, named = map_arg((node.args, node.kwargs), values.__getitem__)
        operation: Any = node.target
        if _is_as_large_as_values_say(operation, arguments):
            raise NotLaidOut
        result = operation(*arguments, **named)
        if is_writing(node) or result is None:
            self._calls.append((operation, arguments, named))
            return result
        if is_view(node):
            return result
        places = pytree.tree_map_only(Tensor, room.like, result)
        self._calls.append(_writing(operation, arguments, named, places))
        return places


def _is_as_large_as_values_say(operation: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the shape of a result hangs on what is in tensors, and not on their shapes alone."""
    if torch.Tag.dynamic_output_shape not in getattr(operation, "tags", ()):
        return False
    if operation is not torch.ops.aten.index.Tensor:
        return True
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])


def _over_after(graph: Graph) -> list[list[Node]]:
    """For each node, whose memory nothing reads after it, but for inputs, constants and results."""
    nodes = list(graph.nodes)
    place, last = {node: number for number, node in enumerate(nodes)}, dict[Node, int]()
    for node in reversed(nodes):
        uses = (max(place[user], last.get(user, 0) if is_view(user) else 0) for user in node.users)
        last[node] = max(uses, default=place[node])
    over: list[list[Node]] = [[] for _ in nodes]
    for node in nodes:
        if node.op == "call_function" and not is_view(node) and last[node] < len(nodes) - 1:
            over[last[node]].append(node)
    return over


class _Room:
    """Memory for results, and which of it is free."""

    def __init__(self) -> None:
        self.bytes, self._free = 0, dict[Layout, list[Tensor]]()

    def like(self, value: Tensor) -> Tensor:
        """A place of the strides of a value, which is copied there."""
        reach = sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
        layout = value.dtype, 1 + reach if value.numel() else 0
        free = self._free.get(layout)
        memory = free.pop() if free else self._new(layout, value.device)
        return memory.as_strided(value.shape, value.stride()).copy_(value)

    def free(self, value: Any) -> None:
        """Let others have the memory of a result, or of several."""
        for part in pytree.tree_leaves(value):
            if isinstance(part, Tensor):
                memory = part.as_strided((part.untyped_storage().nbytes() // part.element_size(),), (1,), 0)
                self._free.setdefault((part.dtype, len(memory)), []).append(memory)

    def _new(self, layout: Layout, device: torch.device) -> Tensor:
        dtype, count = layout
        self.take(count * dtype.itemsize)
        return torch.empty(count, dtype=dtype, device=device)

    def take(self, count: int) -> None:
        """Count memory that the graph keeps."""
        self.bytes += count
        if self.bytes > MOST_BYTES:
            raise NotLaidOut


def _writing(operation: Any, arguments: Any, named: dict[str, Any], places: Any) -> Call:
    """The call of an operation that writes its results to places."""
    outputs = [places] if isinstance(places, Tensor) else list(places)
    for name in operation.overloadpacket.overloads():
        other = getattr(operation.overloadpacket, name)
        taken = [one for one in schema_of(other).arguments if not one.is_out]
        out = [one.name for one in schema_of(other).arguments if one.is_out]
        if (
            len(out) == len(outputs)
            and all(one is not None for one in outputs)
            and _same(taken, schema_of(operation).arguments)
        ):
            return other, arguments, {**named, **dict(zip(out, outputs, strict=True))}
    return _copied(operation, outputs), arguments, named


def _same(these: Sequence[Any], those: Sequence[Any]) -> bool:
    return [(one.name, str(one.type)) for one in these] == [(one.name, str(one.type)) for one in those]


def _copied(operation: Any, places: list[Tensor | None]) -> Callable[..., None]:
    """An operation that cannot be told where to write, or leaves out a result."""

    def call(*arguments: Any, **named: Any) -> None:
        result = operation(*arguments, **named)
        for place, part in zip(places, [result] if isinstance(result, Tensor) else result, strict=True):
            if place is not None:
                place.copy_(part)

    return call
