"""What a model keeps, whatever learner runs it."""

from __future__ import annotations

import torch

from engine.batches import BLOCK
from engine.checks.made_up import model_of, rows_of
from engine.checks.promises import require
from engine.problem import Problem


def no_running_statistics_adapt(problem: Problem) -> None:
    """A forward pass leaves every buffer as it is: running statistics would mix the tasks of a block."""
    model = model_of(problem)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.from_numpy(rows_of(problem, BLOCK, seed=0)))
    moved = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
    require(
        not moved,
        f"a forward pass changes the buffers {moved}: they are statistics over the tasks of a batch",
        "use LayerNorm or GroupNorm instead of BatchNorm",
    )


def the_model_draws_no_random_numbers(problem: Problem) -> None:
    """The same rows give the same outputs: dropout would make a refold another fold."""
    model, x = model_of(problem), torch.from_numpy(rows_of(problem, BLOCK, seed=0))
    require(
        torch.equal(model(x), model(x)),
        "two forward passes over the same rows differ",
        "leave out Dropout and other random layers, or build the network in evaluation mode",
    )


def a_row_does_not_depend_on_its_block_mates(problem: Problem) -> None:
    """Outputs of a row are the same in other company: statistics of a batch would mix the tasks of a block."""
    model, x = model_of(problem), torch.from_numpy(rows_of(problem, BLOCK, seed=0))
    others = torch.from_numpy(rows_of(problem, BLOCK, seed=1))
    require(
        torch.equal(model(x)[0], model(torch.cat([x[:1], others[1:]]))[0]),
        "outputs of a row depend on the other rows of its batch",
        "use LayerNorm or GroupNorm instead of statistics over a batch",
    )


OFFLINE_CHECKS = (no_running_statistics_adapt, the_model_draws_no_random_numbers)
"""Of these, what episodes of examples ask for: batch statistics may be compared there."""

MODEL_CHECKS = (*OFFLINE_CHECKS, a_row_does_not_depend_on_its_block_mates)
