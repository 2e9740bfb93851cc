"""Tensor functions recorded once per kind of input and replayed as a flat list of operations.

A vectorised inner loop spends most of its time in Python: in vmap, autograd and module calls, not in
arithmetic. Blocks have a handful of fixed shapes, so the operations that one call makes are recorded
and every further call replays them: the same kernels, the same bits. Of a function that is repeated, one turn is
recorded, and what no turn changes (everything below the first parameter that adapts) is computed once. torch's own
`make_fx` records the same graph in five times the time, after a second of imports.

Recording one costs as much as a dozen calls, and its graph stays. So whoever makes batches of sets of any size
pads them to few lengths; of what comes in more shapes all the same, only the latest used are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import getitem
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from engine.errors import EngineError
from engine.graphs import parted, simplify
from engine.inductor import library_of
from engine.replayed import NotLaidOut, Replayed

MOST = 32
"""Recordings that one function keeps. The buckets of a support set of thousands of examples are fewer."""

T = TypeVar("T")
Run = Callable[..., Sequence[Tensor]]
"""Tensors to tensors, which hold until the next call."""

_RECORDING = ContextVar("recording", default=False)


def is_recording() -> bool:
    """Whether a call is being recorded: what does not go through torch would be recorded as a constant."""
    return _RECORDING.get()


@contextmanager
def _recording() -> Iterator[None]:
    token = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(token)


class Recorded:
    """A pure function of (nested) tensors that returns nested tensors; it must not branch on their values.

    Of its recordings it keeps the `MOST` that were used last. Calls of several threads wait for each other.
    """

    def __init__(self, function: Callable[..., Any], *, compiles: bool = False) -> None:
        """Where it `compiles`, what is repeated is made machine code of (`engine.inductor`)."""
        self.function, self.compiles = function, compiles
        self._recordings: dict[Any, tuple[Any, Any]] = {}
        self._lock = Lock()

    def __call__(self, *arguments: Any) -> Any:
        """Call the function; the first call of each combination of names, shapes, types and devices records it."""
        flat, structure = pytree.tree_flatten(arguments)
        with self._lock, torch.no_grad():
            run, result = self._latest(flat, structure)
            return pytree.tree_unflatten([value.clone() for value in run(*flat)], result)

    def _latest(self, flat: list[Tensor], structure: Any) -> tuple[Any, Any]:
        """What was recorded of arguments like these; else it is recorded."""
        key = structure, tuple((value.shape, value.dtype, value.device) for value in flat)
        found = self._recordings.pop(key, None) or self._record(flat, structure)
        self._recordings[key] = found
        if len(self._recordings) > MOST:
            del self._recordings[next(iter(self._recordings))]
        return found

    def _record(self, flat: list[Tensor], structure: Any) -> tuple[Any, Any]:
        tape = record(self.function, flat, structure)
        return run_of(tape.graph, tape.constants, own_memory(flat)), tape.result


class Repeated(Recorded):
    """A step (carry, *fixed) to (the next carry, a value [...] of this one), taken a number of times.

    What of it hangs on `fixed` alone is computed once.
    """

    def __call__(self, turns: int, carry: Tensor, *fixed: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The carry after so many turns, the value of the first carry and of the last; turns >= 1."""
        flat, structure = pytree.tree_flatten((carry, *fixed))
        with self._lock, torch.no_grad():
            (once, each, last), _ = self._latest(flat, structure)
            kept = once(*flat[1:])
            carry, value = each(carry, *kept)
            first = value.clone()
            for _ in range(turns - 1):
                carry, _ = each(carry, *kept)
            (end,) = last(carry, *kept)
            return carry.clone(), first, end.clone()

    def _record(self, flat: list[Tensor], structure: Any) -> tuple[Any, Any]:
        tape = record(self.function, flat, structure)
        carry, *fixed = own_memory(flat)
        parts = parted(tape.graph)
        once = run_of(parts.once, tape.constants, fixed)
        kept = [carry, *once(*fixed)]
        turn = self._compiled if self.compiles else _replayed if isinstance(once, Replayed) else _called
        return (once, *(turn(part, {}, kept) for part in parts[1:])), None

    def _compiled(self, part: Graph, _: dict[str, Tensor], inputs: Sequence[Tensor]) -> Run:
        if inputs[0].device.type != "cpu":
            raise EngineError(
                f"inner.compile is for processors; on {inputs[0].device} set inner.compile = false"
            )
        return library_of(part, inputs)


def own_memory(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies, each contiguous."""
    return [value.detach().clone(memory_format=torch.contiguous_format) for value in values]


def run_of(graph: Graph, constants: dict[str, Tensor], inputs: Sequence[Tensor]) -> Run:
    """How a graph is run for inputs like these: in memory of its own, if it is in this machine's and not large."""
    if all(value.device.type == "cpu" for value in (*inputs, *constants.values())):
        return _replayed(graph, constants, inputs)
    return _called(graph, constants, inputs)


def _replayed(graph: Graph, constants: dict[str, Tensor], inputs: Sequence[Tensor]) -> Run:
    try:
        return Replayed(graph, constants, inputs)
    except NotLaidOut:
        return _called(graph, constants, inputs)


def _called(graph: Graph, constants: dict[str, Tensor], _: Sequence[Tensor]) -> Run:
    return GraphModule(constants, graph).forward


class Tape(NamedTuple):
    """What a call did."""

    graph: Graph
    constants: dict[str, Tensor]
    result: Any
    """How the results are nested."""


def record(function: Callable[..., Any], flat: Sequence[Tensor], structure: Any) -> Tape:
    """Record a call with copies of the arguments, which are contiguous."""
    operations = _Operations()
    graph, inputs = operations.graph, own_memory(flat)
    for number, value in enumerate(inputs):
        operations.nodes[value] = graph.placeholder(f"input_{number}")
    with _recording(), operations:
        outputs, result = pytree.tree_flatten(function(*pytree.tree_unflatten(inputs, structure)))
    graph.output([operations.node_of(value) for value in outputs])
    simplify(graph)
    return Tape(graph, operations.constants, result)


class _Operations(TorchDispatchMode):
    """Does each operation, as it is below vmap and autograd, and notes it in a graph."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.constants = Graph(), dict[str, Tensor]()
        self.nodes = WeakTensorKeyDictionary()
        """What stands for each tensor that is alive."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else the first operation would import all of torch.compile."""
        return False

    def node_of(self, value: Any) -> Any:
        """What stands for a value: a node for a tensor, a constant where no operation made it; else itself."""
        if not isinstance(value, Tensor):
            return value
        if value not in self.nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = value
            self.nodes[value] = self.graph.create_node("get_attr", name)
        return self.nodes[value]

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do one operation, and note it."""
        del types
        if operation is torch.ops.aten.lift_fresh.default:  # of a constant, which a replay may not write to
            operation = torch.ops.aten.lift_fresh_copy.default
        args_of_node, kwargs_of_node = map_aggregate((args, kwargs or {}), self.node_of)
        if torch.Tag.data_dependent_output in operation.tags:
            raise RuntimeError(
                f"what is recorded reads the value of a tensor ({operation}); use torch.where instead of a branch"
            )
        result = operation(*args, **(kwargs or {}))
        self._note(result, self.graph.call_function(operation, args_of_node, kwargs_of_node))
        return result

    def _note(self, result: Any, node: Node) -> None:
        """Let a node stand for a result, and one each for the parts of several."""
        if isinstance(result, Tensor):
            self.nodes[result] = node
        elif isinstance(result, tuple | list):
            for place, part in enumerate(result):
                self._note(part, self.graph.call_function(getitem, (node, place)))


class _Largest(TorchDispatchMode):
    """Does each operation, and notes how large its results are."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As of `_Operations`."""
        return False

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do one operation."""
        del types
        result = operation(*args, **(kwargs or {}))
        sizes = (part.numel() for part in pytree.tree_leaves(result) if isinstance(part, Tensor))
        self.numbers = max(self.numbers, *sizes, 0)
        return result


def largest(function: Callable[..., Any], *arguments: Any) -> int:
    """How many numbers the largest tensor has that a call makes."""
    counted = _Largest()
    with counted:
        function(*arguments)
    return counted.numbers


@runtime_checkable
class Records(Protocol):
    """What records calls, and can do without."""

    def unrecorded(self) -> Any:
        """The same, with no call recorded."""
        ...


def unrecorded(built: T) -> T:
    """The same for a few calls of each shape, which recording would cost more than it saves."""
    return built.unrecorded() if isinstance(built, Records) else built
