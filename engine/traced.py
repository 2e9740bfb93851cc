"""Tensor functions recorded once per kind of input and replayed as a flat list of operations.

A vectorised inner loop spends most of its time in Python: in vmap, autograd and module calls, not in
arithmetic. Blocks have a handful of fixed shapes, so the operations that one call makes are recorded by
`make_fx` and every further call replays them, what is common to all steps (everything below the first
parameter that adapts) once: the same kernels, the same bits, about twice as fast.

Recording one costs as much as dozens of calls, and its graph stays. So whoever makes batches of sets of any size
pads them to few lengths; of what comes in more shapes all the same, only the latest used are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass
from torch.utils import _pytree as pytree

MOST = 32
"""Recordings that one function keeps. The buckets of a support set of thousands of examples are fewer."""

T = TypeVar("T")


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
        result: list[Any] = []

        def flattened(*values: Tensor) -> list[Tensor]:
            """The function, from a flat list of tensors to one; notes how its result is put together again."""
            outputs, shape = pytree.tree_flatten(
                self.function(*pytree.tree_unflatten(list(values), structure))
            )
            result.append(shape)
            return outputs

        # What describes the shape of each value as it is recorded: one for all, else each has its own.
        with tracing(TracingContext(FakeTensorMode(allow_non_fake_inputs=True))):
            graph = make_fx(flattened)(*flat)
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
        graph.graph.eliminate_dead_code()
        merged = CSEPass()(graph)
        module = graph if merged is None else merged.graph_module
        module.recompile()
        return module.forward, result[0]


@runtime_checkable
class Records(Protocol):
    """What records calls, and can do without."""

    def unrecorded(self) -> Any:
        """The same, with no call recorded."""
        ...


def unrecorded(built: T) -> T:
    """The same for a few calls of each shape, which recording would cost more than it saves."""
    return built.unrecorded() if isinstance(built, Records) else built
