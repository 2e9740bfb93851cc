"""Steps of theta in a row: each along the gradient of labels of its own, the first along that of episodes as well.

First order: what a task adapted stands in theta's place, and its gradient for theta's (Finn, Abbeel, Levine 2017,
arXiv:1703.03400, section 5.2). Labels of any tasks are as one that has adapted nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from engine.compiled import compiled_apart, compiled_within, fill
from engine.kernels.descent import Moved, forget, move
from engine.kernels.gradients import by_own, descend
from engine.kernels.inner_loop import Room, Steps, Task, Told, forward_loss, read_task, told_task, turn
from engine.kernels.network import Network, Theta, Work, copy, network_at, theta_at, work_of
from engine.kernels.products import after
from engine.kernels.slopes import by_tables, squares, squares_of_touched
from engine.kernels.vectors import WIDTH, address, load, put, store
from engine.learners.training import Pace


class Adapted(NamedTuple):
    """What T tasks adapted."""

    phi: Any
    """[T, F]"""
    places: Any
    """[F] where it lies in theta's parameters."""
    turned: bool
    """Whether hidden layers' weights are among it."""


class Said(NamedTuple):
    """Losses, and norms of gradients."""

    loss: Any
    """[S] of each step's labels."""
    norm: Any
    """[S]"""
    judged: Any
    """[T, 2] of each episode, under theta unadapted and after adaptation."""


@compiled_apart
def take_steps(
    network: Network, moved: Moved, pace: Pace, taken: int, is_first: bool, labels: Told, episodes: Told,
    adapted: Adapted, room: Room, said: Said,
) -> int:  # fmt: skip
    """Take S steps where gradients are finite, after so many that were `taken`; returns how many were then.

    `labels` are S sets, `episodes` T that judge the first step, each by what it adapted. Where that is the first of
    all, the mean of parameters begins with it.
    """
    net, at, gradient = network_at(network), theta_at(moved.theta), moved.gradient
    work = work_of(net, room.most, address(room.work))
    for s in range(len(labels.ends) - 1):
        fill(gradient, 0.0)
        said.loss[s] = add_labels(net, at, moved, labels, s, room, work)
        for t in range(len(episodes.ends) - 1 if s == 0 else 0):
            add_episode(net, at, moved, episodes, t, adapted, room, work, said)
        norm = math.sqrt(squares(gradient) + squares_of_touched(net.outputs, moved.tables))
        said.norm[s] = norm
        if math.isfinite(norm):
            taken += 1
            count, newest = labels.ends[s + 1] - labels.ends[s], 1.0 if is_first else pace.newest[s]
            move(net, moved, pace, s, norm, count, taken, newest)
            is_first = False
        else:
            forget(net.outputs, moved.tables)
    return taken


@compiled_within
def add_labels(net: Network, theta: Theta, moved: Moved, told: Told, s: int, room: Room, work: Work) -> float:
    """Add the gradient of the loss of labels under theta, which is returned."""
    read_task(net, moved.front, told, s, room)
    task = task_of(told, s, room, len(moved.gradient), theta.own, theta.forward)
    loss = forward_loss(net, theta, task, Steps(0, theta.own, 0.0, 0.0), 0, work)
    add_slope(net, moved, task, told, s, work)
    return loss


@compiled_within
def add_episode(
    net: Network, theta: Theta, moved: Moved, told: Told, t: int, adapted: Adapted, room: Room, work: Work, said: Said
) -> None:  # fmt: skip
    """Add the gradient of the loss of a query set under what its task adapted, where it has examples."""
    said.judged[t, 0] = said.judged[t, 1] = 0.0
    if told.ends[t + 1] == told.ends[t]:
        return
    read_task(net, moved.front, told, t, room)
    size, mine, none = len(moved.gradient), address(room.own), Steps(0, theta.own, 0.0, 0.0)
    task = task_of(told, t, room, size, theta.own, theta.forward)
    said.judged[t, 0] = forward_loss(net, theta, task, none, 0, work)
    copy(theta.own, mine, size)
    for i in range(len(adapted.places)):
        put(mine, adapted.places[i], adapted.phi[t, i])
    forward = theta.forward
    if adapted.turned:
        forward = after(mine, 2 * size)
        turn(net, mine, forward)
    task = task_of(told, t, room, size, mine, forward)
    said.judged[t, 1] = forward_loss(net, theta, task, none, 0, work)
    add_slope(net, moved, task, told, t, work)


@compiled_within
def task_of(told: Told, t: int, room: Room, size: int, own: int, forward: int) -> Task:
    """A task whose examples are read; all of its parameters are its own."""
    return told_task(told, t, room, own, after(address(room.own), size), own, forward)


@compiled_within
def add_slope(net: Network, moved: Moved, task: Task, told: Told, t: int, work: Work) -> None:
    """Add the gradient of a task's loss, of which a pass forward is done."""
    sums = address(moved.gradient)
    by_own(net, task.rows.x, task.rows.numbers, task.examples, task.own, task.body, work, task.gradient)
    for i in range(0, len(moved.gradient), WIDTH):
        store(sums, i, load(sums, i) + load(task.gradient, i))
    if len(moved.tables.bags):
        descend(net, 0, task.body, task.examples, work)
        by_tables(net, told.stored[told.ends[t] : told.ends[t + 1]], work, moved.tables)
