"""What a learner keeps."""

from __future__ import annotations

import torch

from engine.batches import BLOCK, SMALLEST_BUCKET
from engine.checks.made_up import labels_of, no_examples, rows_of, support_sets, theta_of
from engine.checks.promises import require
from engine.learners.base import Learner, flatten, without_kernel
from engine.problem import Problem
from engine.traced import Recorded, unrecorded
from engine.types import Batch, Fast, Params


def the_same_seed_gives_the_same_theta(learner: Learner, problem: Problem) -> None:
    """`init` draws from its seed alone."""
    del problem
    require(
        same_bits(learner.init(3), learner.init(3)),
        "`init(3)` gave two different thetas",
        "draw from the seed",
    )


def parameters_are_finite(learner: Learner, problem: Problem) -> None:
    """Theta is finite, and so are parameters adapted on sound examples."""
    meta = theta_of(learner)
    values = {**meta, **learner.adapt(meta, support_sets(problem, seed=0))}
    sick = [name for name, value in values.items() if not bool(value.isfinite().all())]
    require(not sick, f"parameters {sick} are not finite", "mend the initialization, or lower a step size")


def fast_parameters_are_as_declared(learner: Learner, problem: Problem) -> None:
    """`adapt` returns the names of `fast_shapes`, in order, each [U, *shape] float32."""
    declared = [(name, (BLOCK, *shape), torch.float32) for name, shape in learner.fast_shapes.items()]
    for support in (support_sets(problem, seed=0), no_examples(problem)):
        fast = learner.adapt(theta_of(learner), support)
        found = [(name, tuple(value.shape), value.dtype) for name, value in fast.items()]
        require(
            found == declared,
            f"for {support.x.shape[1]} examples `adapt` returned {found}, `fast_shapes` declares {declared}",
            "a row stores fast parameters by that declaration alone",
        )


def predictions_have_the_right_shape(learner: Learner, problem: Problem) -> None:
    """`shared` gives [N, C] for [N, W], and `predict` [U, 1, C] for [U, 1, W]."""
    meta, outputs = theta_of(learner), problem.target.outputs
    x = torch.from_numpy(rows_of(problem, BLOCK, seed=0))
    fast = learner.adapt(meta, support_sets(problem, seed=0))
    shared, adapted = learner.shared(meta, x).shape, learner.predict(meta, fast, x.unsqueeze(1)).shape
    require(
        shared == (BLOCK, outputs) and adapted == (BLOCK, 1, outputs),
        f"`shared` and `predict` return {tuple(shared)} and {tuple(adapted)} for {BLOCK} events",
        f"return {(BLOCK, outputs)} and {(BLOCK, 1, outputs)}: this target has {outputs} outputs",
    )


def adapting_twice_gives_the_same_bits(learner: Learner, problem: Problem) -> None:
    """`adapt` is pure: fast parameters are recomputed after an eviction, and must come back the same."""
    meta, support = theta_of(learner), support_sets(problem, seed=0)
    require(
        same_bits(learner.adapt(meta, support), learner.adapt(meta, support)),
        "adapting twice on the same support set gave two results",
        "draw no random numbers and keep no state in `adapt`",
    )


def theta_is_left_as_it_is(learner: Learner, problem: Problem) -> None:
    """Neither adapting nor predicting writes to theta."""
    meta, x = theta_of(learner), torch.from_numpy(rows_of(problem, BLOCK, seed=0))
    before = {name: value.clone() for name, value in meta.items()}
    learner.predict(meta, learner.adapt(meta, support_sets(problem, seed=0)), x.unsqueeze(1))
    learner.shared(meta, x)
    moved = [name for name in before if not torch.equal(before[name], meta[name])]
    require(not moved, f"adapting or predicting changed theta's {moved}", "write to copies only")


def an_empty_support_set_predicts_with_theta(learner: Learner, problem: Problem) -> None:
    """A task never labelled is served theta's prediction (to rounding: the kernels differ)."""
    meta, x = theta_of(learner), torch.from_numpy(rows_of(problem, BLOCK, seed=0))
    for length in (0, SMALLEST_BUCKET):
        fast = learner.adapt(meta, no_examples(problem, length))
        unadapted = learner.predict(meta, fast, x.unsqueeze(1)).squeeze(1)
        require(
            torch.allclose(unadapted, learner.shared(meta, x), rtol=1e-3, atol=1e-4),
            f"adapted on no examples, padded to {length}, the learner does not predict what theta does",
            "let a task whose weights are all 0 have fast parameters that predict with theta alone",
        )


def a_task_does_not_depend_on_its_block_mates(learner: Learner, problem: Problem) -> None:
    """Other tasks beside it, or another place in the block, change no bit of a task."""
    meta, support, others = theta_of(learner), support_sets(problem, seed=0), support_sets(problem, seed=1)
    mixed = Batch(*(torch.cat([theirs[:-1], mine[:1]]) for mine, theirs in zip(support, others, strict=True)))
    x = torch.from_numpy(rows_of(problem, BLOCK, seed=2)).unsqueeze(1)
    moved = torch.cat([x[1:], x[:1]])
    first, last = learner.adapt(meta, support), learner.adapt(meta, mixed)
    first_out, last_out = learner.predict(meta, first, x), learner.predict(meta, last, moved)
    require(
        torch.equal(flatten(first)[0], flatten(last)[-1]) and torch.equal(first_out[0], last_out[-1]),
        "a task adapts or predicts otherwise beside other tasks",
        "compute nothing across the task axis: no batch statistics, no attention from task to task",
    )


def an_event_does_not_depend_on_its_block_mates(learner: Learner, problem: Problem) -> None:
    """Theta's prediction of an event is the same whatever events stand beside it."""
    meta = theta_of(learner)
    x, others = (torch.from_numpy(rows_of(problem, BLOCK, seed=seed)) for seed in (0, 1))
    beside = torch.cat([others[:-1], x[:1]])
    require(
        torch.equal(learner.shared(meta, x)[0], learner.shared(meta, beside)[-1]),
        "theta predicts an event otherwise beside other events",
        "compute nothing across examples: no batch statistics in the model",
    )


def padding_with_weight_zero_changes_nothing(learner: Learner, problem: Problem) -> None:
    """Whatever fills a support set up to its bucket, with weight 0, changes no bit."""
    meta, support, noise = theta_of(learner), support_sets(problem, seed=0), support_sets(problem, seed=1)
    empty = support.weight == 0
    filled = Batch(
        torch.where(empty.unsqueeze(-1), noise.x[:, :1], support.x),
        torch.where(empty, noise.y[:, :1], support.y),
        support.weight,
    )
    require(
        same_bits(learner.adapt(meta, support), learner.adapt(meta, filled)),
        "examples of weight 0 change what a task adapts to",
        "let an example count by its weight alone, and put a finite value in the place of one that counts 0",
    )


def recording_changes_no_bit(learner: Learner, problem: Problem) -> None:
    """A call recorded and replayed on other values does what a call would do (`engine.traced`)."""
    learner = unrecorded(without_kernel(learner))
    meta, recorded = theta_of(learner), Recorded(learner.adapt)
    recorded(learner.init(1), support_sets(problem, seed=1))
    support = support_sets(problem, seed=0)
    require(
        same_bits(recorded(meta, support), learner.adapt(meta, support)),
        "an adaptation recorded on one support set does something else on another",
        "do not branch on the values of tensors; use torch.where",
    )


def an_outer_rule_adapts_the_same_and_gets_finite_gradients(learner: Learner, problem: Problem) -> None:
    """`adapt_differentiably` gives what `adapt` does (to rounding), and a gradient for theta, finite at any size."""
    meta, x = theta_of(learner), torch.from_numpy(rows_of(problem, BLOCK, seed=0)).unsqueeze(1)
    values = meta | {name: meta[name].clone().requires_grad_() for name in learner.learned}
    theta, y = [values[name] for name in learner.learned], torch.from_numpy(labels_of(problem, BLOCK, seed=0))
    reached = False
    for support in (
        support_sets(problem, seed=0),
        no_examples(problem, SMALLEST_BUCKET),
        no_examples(problem),
    ):
        fast = learner.adapt_differentiably(values, support, second_order=False)
        plain = learner.adapt(meta, support)
        differing = [name for name in plain if not torch.allclose(fast[name], plain[name], atol=1e-5)]
        require(not differing, f"adapted differentiably, {differing} differ", "compute the same in both")
        loss = problem.target.loss(learner.predict(values, fast, x), y.unsqueeze(1)).sum()
        slopes = torch.autograd.grad(loss, theta, materialize_grads=True)
        reached |= any(bool(slope.any()) for slope in slopes)
        sick = [
            n for n, slope in zip(learner.learned, slopes, strict=True) if not bool(slope.isfinite().all())
        ]
        require(
            not sick,
            f"the gradients of {sick} are not finite",
            "clamp before a root, a logarithm or a division",
        )
    require(reached, "no gradient reaches theta", "let `learned` name what `predict` depends on")


LEARNER_CHECKS = (
    the_same_seed_gives_the_same_theta,
    fast_parameters_are_as_declared,
    predictions_have_the_right_shape,
    parameters_are_finite,
    adapting_twice_gives_the_same_bits,
    theta_is_left_as_it_is,
    an_empty_support_set_predicts_with_theta,
    a_task_does_not_depend_on_its_block_mates,
    an_event_does_not_depend_on_its_block_mates,
    padding_with_weight_zero_changes_nothing,
    recording_changes_no_bit,
    an_outer_rule_adapts_the_same_and_gets_finite_gradients,
)


def same_bits(first: Params | Fast, second: Params | Fast) -> bool:
    """Whether two sets of parameters have the same names and bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
