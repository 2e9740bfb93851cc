"""Tensor functions recorded once per kind of input and replayed as a flat list of operations.

A vectorised inner loop spends most of its time in Python: in vmap, autograd and module calls, not in
arithmetic. Blocks have a handful of fixed shapes, so the operations that one call makes are recorded
and every further call replays them, what is common to all steps (everything below the first
parameter that adapts) once: the same kernels, the same bits, about twice as fast. torch's own `make_fx` records the
same graph in five times the time, after a second of imports.

Recording one costs as much as a dozen calls, and its graph stays. So whoever makes batches of sets of any size
pads them to few lengths; of what comes in more shapes all the same, only the latest used are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import getitem
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.fx.passes.dialect.common.cse_pass import CSEPass
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

MOST = 32
"""Recordings that one function keeps. The buckets of a support set of thousands of examples are fewer."""

T = TypeVar("T")

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

    Of its recordings it keeps the `MOST` that were used last.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._recordings: dict[Any, tuple[Any, Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the function; the first call of each combination of names, shapes, types and devices records it."""
        flat, structure = pytree.tree_flatten(arguments)
        key = structure, tuple((value.shape, value.dtype, value.device) for value in flat)
        found = self._recordings.pop(key, None) or self._record(flat, structure)
        self._recordings[key] = graph, result = found
        if len(self._recordings) > MOST:
            del self._recordings[next(iter(self._recordings))]
        with torch.no_grad():
            return pytree.tree_unflatten(list(graph(*flat)), result)

    def _record(self, flat: list[Tensor], structure: Any) -> tuple[Any, Any]:
        operations = _Operations()
        graph = operations.graph
        for number, value in enumerate(flat):
            operations.nodes[value] = graph.placeholder(f"input_{number}")
        with _recording(), operations:
            outputs, result = pytree.tree_flatten(self.function(*pytree.tree_unflatten(flat, structure)))
        graph.output([operations.node_of(value) for value in outputs])
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
        graph.eliminate_dead_code()
        recorded = GraphModule(operations.constants, graph)
        merged = CSEPass()(recorded)
        return (recorded if merged is None else merged.graph_module).forward, result


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


@runtime_checkable
class Records(Protocol):
    """What records calls, and can do without."""

    def unrecorded(self) -> Any:
        """The same, with no call recorded."""
        ...


def unrecorded(built: T) -> T:
    """The same for a few calls of each shape, which recording would cost more than it saves."""
    return built.unrecorded() if isinstance(built, Records) else built
