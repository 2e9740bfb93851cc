"""What adaptation is worth: the loss of each task's query set after its steps on its support set."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.compiled import compiled_apart
from engine.kernels.inner_loop import Steps, Task, adapt, forward_loss, recall, turn
from engine.kernels.network import (
    EVERYTHING,
    Network,
    Rows,
    Theta,
    copy,
    network_at,
    rows_at,
    since,
    theta_at,
    work_of,
)
from engine.kernels.products import after
from engine.kernels.vectors import address


class Sets(NamedTuple):
    """Examples of T tasks, one task's after the other's."""

    rows: Rows
    y: Any
    """[M] classes, or standardised values."""
    weight: Any
    """[M]"""
    ends: Any
    """[T + 1] task t's are ends[t] to ends[t + 1]."""


@compiled_apart
def judged(
    network: Network, theta: Theta, support: Sets, query: Sets, steps: Steps, most: int, room: Any, own: Any, out: Any
) -> None:  # fmt: skip
    """Write to out [T] what the query sets cost after adaptation; no set has more than `most` examples.

    `own` is room as the inner loop's (`engine.kernels.inner_loop.adapted`).
    """
    net, at, read, asked = network_at(network), theta_at(theta), rows_at(support.rows), rows_at(query.rows)
    size, work, mine = len(theta.own), work_of(net, most, address(room)), address(own)
    its = after(mine, size)
    body = mine if net.owns == EVERYTHING else at.body
    forward = after(mine, 2 * size) if net.owns == EVERYTHING else at.forward
    taken = Steps(steps.number, address(steps.sizes), steps.clip, steps.proximal)
    for t in range(len(out)):
        copy(at.own, mine, size)
        if net.owns == EVERYTHING:
            copy(at.forward, forward, len(theta.forward))
        first, count = support.ends[t], support.ends[t + 1] - support.ends[t]
        if count and steps.number:
            labels, shares = after(address(support.y), first), after(address(support.weight), first)
            task = Task(since(net, read, first), labels, shares, count, mine, its, body, forward)
            recall(net, task.rows, count, work)
            adapt(net, at, task, taken, size, work)
            if net.owns == EVERYTHING:  # a task that has diverged is theta again
                turn(net, mine, forward)
        first, count = query.ends[t], query.ends[t + 1] - query.ends[t]
        rows = since(net, asked, first)
        labels, shares = after(address(query.y), first), after(address(query.weight), first)
        recall(net, rows, count, work)
        task = Task(rows, labels, shares, count, mine, its, body, forward)
        out[t] = forward_loss(net, at, task, Steps(0, taken.sizes, 0.0, 0.0), size, work)
