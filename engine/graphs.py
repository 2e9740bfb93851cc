"""Graphs of recorded operations: what they need not compute, and what of a step hangs on the step before."""

from __future__ import annotations

from collections.abc import Sequence
from operator import getitem
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

UNDECLARED_VIEWS = {torch.ops.aten._unsafe_view.default}  # noqa: SLF001 - its name
"""Operations whose result lies in the memory of what they are given, though they do not say so."""


def is_view(node: Node) -> bool:
    """Whether what a node stands for lies in the memory of what it is made of."""
    if node.target is getitem or node.target in UNDECLARED_VIEWS:
        return True
    return node.op == "call_function" and any(
        one.alias_info is not None for one in schema_of(node.target).returns
    )


def is_writing(node: Node) -> bool:
    """Whether an operation changes what it is given."""
    return node.op == "call_function" and node.target is not getitem and schema_of(node.target).is_mutable


def schema_of(operation: Any) -> Any:
    """What an operation takes and returns."""
    return operation._schema  # noqa: SLF001 - torch shows it in no other way


def simplify(graph: Graph) -> None:
    """Leave out what is computed for nothing, or twice."""
    detached = torch.ops.aten.detach.default
    for node in graph.find_nodes(op="call_function", target=detached):
        node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    if any(is_writing(node) for node in graph.nodes):  # what was computed twice may since differ
        return
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Scalar):
        if node.args[1] == 1 and isinstance(node.args[1], int):
            node.replace_all_uses_with(node.args[0])
    _merge(graph)
    graph.eliminate_dead_code()


def _merge(graph: Graph) -> None:
    """Let one node stand for all that do the same to the same, unless they draw random numbers."""
    known = dict[Any, Node]()
    for node in graph.nodes:
        drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if node.op == "call_function" and not drawn:
            first = known.setdefault((node.target, repr((node.args, node.kwargs))), node)
            if first is not node:
                node.replace_all_uses_with(first)


class Parts(NamedTuple):
    """A step in parts."""

    once: Graph
    """Of what is fixed: what each turn needs of it."""
    each: Graph
    """Of the carry and what `once` makes: a turn."""
    last: Graph
    """Of the same: the value alone."""


def parted(graph: Graph) -> Parts:
    """Cut the graph of a step, whose first input is the carry, into what hangs on it and what does not."""
    nodes = list(graph.nodes)
    moving, is_writing_any = {nodes[0]}, any(is_writing(node) for node in nodes)
    for node in nodes:
        if not moving.isdisjoint(node.all_input_nodes) or (is_writing_any and node.op == "call_function"):
            moving.add(node)
    turn, value = nodes[-1].args[0]
    still = [node for node in nodes if node not in moving]
    kept = [node for node in still if not moving.isdisjoint(node.users) or node in (turn, value)]
    fixed = [node for node in nodes[1:] if node.op == "placeholder"]
    starts = [nodes[0], *kept]
    return Parts(
        _between(nodes, fixed, kept),
        _between(nodes, starts, [turn, value]),
        _between(nodes, starts, [value]),
    )


def _between(nodes: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node]) -> Graph:
    """The graph that computes some nodes from others."""
    graph = Graph()
    copies = {node: graph.placeholder(f"input_{number}") for number, node in enumerate(inputs)}
    needed, open_ = set(outputs), [*outputs]
    while open_:
        node = open_.pop()
        if node not in copies:
            open_ += [one for one in node.all_input_nodes if one not in needed]
            needed.update(node.all_input_nodes)
    for node in nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in outputs])
    return graph
