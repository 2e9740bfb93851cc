"""Adaptation by gradient steps: the inner loop of MAML, FOMAML, ANIL, Meta-SGD, iMAML, Reptile and of fine-tuning.

    phi_0 = theta;  phi_k+1 = phi_k - lr * clip(grad loss(phi_k, support))        k = 0 .. K-1

(Finn, Abbeel, Levine 2017, arXiv:1703.03400, equation 1; ANIL, with only the head adapting, Raghu et al.
2020, arXiv:1909.09157.) Two choices of the inner loop change the step. Learned rates (Meta-SGD, Li et al. 2017,
arXiv:1707.09835, equation 1) put a step size for every number that adapts in the place of lr. A proximal term
(iMAML, Rajeswaran et al. 2019, arXiv:1909.04630, equation 3) adds lambda/2 |phi - theta|^2 to the loss.

All tasks of a call take their steps at once: the forward pass is vectorised over tasks by `torch.func.vmap`,
and because tasks share nothing, one backward pass of the summed losses gives every task its own gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from engine.batches import block_of, present
from engine.learners.base import (
    LABEL_MEAN,
    LABEL_STD,
    Kernel,
    below,
    example_losses,
    flatten,
    losses,
    unflatten,
)
from engine.problem import Problem
from engine.targets import Classification
from engine.traced import Repeated, is_recording, largest
from engine.types import Batch, Fast, Params

LR = "lr"
"""The name of theta's step size, where the inner loop has it from theta."""

RATES = "rates."
"""What the name of a parameter's learned step sizes begins with."""

WIDEST = 10.0
"""The most that a learned step size is of the inner loop's `lr`."""


class GradientLearner:
    """K clipped gradient steps on the parameters that `problem.adapts` names; theta stays as it is.

    A task with an empty support set keeps theta's values. A task whose weighted support loss, the proximal term
    added, ends above where it began has diverged, and keeps theta's values too.

    Learned step sizes are trained for the steps of training, and more of them, at the same sizes, may overshoot
    without end. Three things keep any number of them finite: a step size is lr * WIDEST * sigmoid(rho - ln(WIDEST
    - 1)), theta's `rates.` holding rho, so it begins at lr and stays between 0 and WIDEST of it; with the clipped
    gradient no step is longer than that; and a task that has diverged keeps theta's values.
    """

    records = True
    """Whether steps are recorded, once for each kind of block."""

    kernel: Kernel | None = None
    """What adapts without tensors, where there is one for this network (`engine.kernels`)."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._model = problem.outline
        self._descended = Repeated(self._descend, compiles=problem.inner.compile)
        self._blocks = dict[int, int]()  # by the length of support sets
        names = problem.adapted_names(self._model)
        self.fast_shapes: Mapping[str, torch.Size] = {
            name: self._model.get_parameter(name).shape for name in names
        }
        self._rates = [RATES + name for name in names] if problem.inner.rates == "learned" else []

    @property
    def predicts_by_model(self) -> bool:
        """Whether predictions are outputs of the model; what is derived from this class may predict otherwise."""
        return type(self) is GradientLearner

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """Names of what an outer loop may move: every parameter, no buffer; learned step sizes among them."""
        return (*(name for name, _ in self._model.named_parameters()), *self._rates)

    def init(self, seed: int) -> Params:
        """Theta freshly initialised: every parameter and buffer of the model; every learned step size at `lr`."""
        model = {
            name: value.detach().clone() for name, value in self.problem.model(seed).state_dict().items()
        }
        if self.problem.inner.lr == "auto":
            model[LR] = torch.tensor(self.problem.inner.start)
        return model | {name: torch.zeros(self.fast_shapes[name.removeprefix(RATES)]) for name in self._rates}

    def unrecorded(self) -> Self:
        """The same learner for a few calls, which recording would cost more than it saves."""
        twin = copy(self)
        twin.records = False
        return twin

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks; support x [U, S, W]. Without a kernel, a step is recorded."""
        if self.kernel is None or not self.kernel.knows(*support, *meta.values()):
            return self._by_tensors(meta, support)
        flat = self.kernel.of(meta).adapt(*present(support))
        return unflatten(self.fast_shapes, torch.from_numpy(flat))

    @torch.no_grad()
    def _by_tensors(self, meta: Params, support: Batch) -> Fast:
        """The same by tensors: on a processor in blocks of one size, so a task's bits do not depend on the others.

        A task without examples keeps theta's values, and takes no place in a block.
        """
        if not self.records or is_recording() or not self._moves(support):
            return self._adapt(meta, support)
        theta = _row(meta, self.fast_shapes).expand(len(support.x), -1)
        if support.x.device.type != "cpu":
            return unflatten(self.fast_shapes, self._adapted(meta, theta, support))
        phi, size = theta.clone(), self._block(meta, support)
        for tasks in (support.weight > 0).any(1).nonzero()[:, 0].split(size):
            block = Batch(*(_padded(column[tasks], size) for column in support))
            phi[tasks] = self._adapted(meta, theta[:1].expand(size, -1), block)[: len(tasks)]
        return unflatten(self.fast_shapes, phi)

    def _moves(self, support: Batch) -> bool:
        """Whether there are steps to take, and examples to take them on."""
        return support.x.shape[1] > 0 and self.problem.inner.steps > 0

    def _adapted(self, meta: Params, theta: Tensor, support: Batch) -> Tensor:
        """Fast parameters [U, F] of a block, from theta [U, F]."""
        phi, first, last = self._descended(self.problem.inner.steps, theta, meta, support)
        return _guarded(phi, theta, first, last)

    def _block(self, meta: Params, support: Batch) -> int:
        """Tasks of a block of support sets of this length."""
        length = support.x.shape[1]
        if length not in self._blocks:
            one, theta = Batch(*(column[:1] for column in support)), _row(meta, self.fast_shapes)
            dense = one._replace(x=self._encoded(meta, {}, one.x))
            self._blocks[length] = block_of(largest(self._loss, meta, dense, theta, theta))
        return self._blocks[length]

    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        """The same as a function of `meta`: through the inner loop (MAML), or with its gradients constant (FOMAML).

        With constant gradients d phi / d theta is the identity, and phi - theta is proportional to each step size.
        Through the inner loop there is no guard against divergence, whose choice has no derivative; a caller must
        check what it gets for finiteness.
        """
        if second_order:
            return self._adapt(meta, support, differentiable=True)
        adapted = self.adapt(meta, support)
        return {name: value + self._first_order(meta, name, value) for name, value in adapted.items()}

    def _first_order(self, meta: Params, name: str, value: Tensor) -> Tensor:
        """Zero, with the first-order derivative of one adapted parameter."""
        start = meta[name].detach()
        zero = meta[name] - start
        if not self._rates:
            return zero
        # d rate / rate, from the logarithm: a rate may have become 0.
        growth = F.logsigmoid(_centred(meta[RATES + name]))
        return zero + (value - start) * (growth - growth.detach())

    def _adapt(self, meta: Params, support: Batch, differentiable: bool = False) -> Fast:
        theta = _row(meta, self.fast_shapes).expand(len(support.x), -1)
        if not self._moves(support):
            return unflatten(self.fast_shapes, theta if differentiable else theta.contiguous())
        loss = self._descent(meta, support)
        step = partial(self._step, loss, self.sizes(meta), differentiable=differentiable)
        with torch.enable_grad():
            phi, first = step(theta)
            for _ in range(self.problem.inner.steps - 1):
                phi, _ = step(phi)
        if not differentiable:
            phi = _guarded(phi, theta, first, loss(phi))
        return unflatten(self.fast_shapes, phi)

    def _descend(self, phi: Tensor, meta: Params, support: Batch) -> tuple[Tensor, Tensor]:
        """One step of U tasks' parameters phi [U, F], and the losses [U] it started from."""
        with torch.enable_grad():
            return self._step(self._descent(meta, support), self.sizes(meta), phi, differentiable=False)

    def _descent(self, meta: Params, support: Batch) -> Callable[[Tensor], Tensor]:
        """What the inner loop descends: of phi [U, F] the losses [U]."""
        theta = _row(meta, self.fast_shapes).expand(len(support.x), -1)
        return partial(self._loss, meta, support._replace(x=self._encoded(meta, {}, support.x)), theta)

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        return self._outputs(meta, fast, self._encoded(meta, fast, x))

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Compute outputs [N, C] of theta itself, unadapted, for x [N, W]."""
        model = {name: value for name, value in meta.items() if name not in self._rates and name != LR}
        outputs = functional_call(self._model, model, (x,), tie_weights=self.problem.is_tied)
        return self._in_units(meta, outputs)

    def step(self, meta: Params, fast: Fast, batch: Batch) -> Fast:
        """Take one clipped step of `lr` of U tasks, without guard, on whichever parameters are in `fast`."""
        shapes = {name: value.shape[1:] for name, value in fast.items()}
        theta = _row(meta, fast)

        def loss(phi: Tensor) -> Tensor:
            return self._held(losses(self, meta, unflatten(shapes, phi), batch), phi, theta)

        with torch.enable_grad():
            phi, _ = self._step(loss, self._size(meta), flatten(fast), differentiable=False)
        return unflatten(shapes, phi)

    def _size(self, meta: Params) -> float | Tensor:
        """The one step size, from the settings or from theta."""
        return meta[LR] if self.problem.inner.lr == "auto" else self.problem.inner.lr

    def sizes(self, meta: Params) -> float | Tensor:
        """Step sizes: one for all, or [1, F] learned."""
        lr = self._size(meta)
        return lr * WIDEST * torch.sigmoid(_centred(_row(meta, self._rates))) if self._rates else lr

    def _encoded(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Turn stored x [U, N, W] into dense rows [U, N, D]; in one call, unless tasks own the encoder."""
        if below("0.", fast):
            return self._per_task("0.", meta, fast, x)
        return functional_call(self._model[0], below("0.", meta), (x,))  # type: ignore[no-any-return]

    def _outputs(self, meta: Params, fast: Fast, dense: Tensor) -> Tensor:
        """Run the network of U tasks: outputs [U, N, C] for dense rows [U, N, D]."""
        return self._in_units(meta, self._per_task("1.", meta, fast, dense))

    def _in_units(self, meta: Params, outputs: Tensor) -> Tensor:
        """The network's outputs in the unit of the labels: those of a regression are standardised."""
        if isinstance(self.problem.target, Classification):
            return outputs
        return outputs * meta[LABEL_STD] + meta[LABEL_MEAN]

    def _per_task(self, part: str, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """One half of the model, with each task's own values where there are any."""
        params = below(part, {**meta, **fast})
        axes = {name: 0 if part + name in fast else None for name in params}
        module = partial(functional_call, self._model.get_submodule(part[:-1]))
        return vmap(module, in_dims=(axes, 0))(params, x)  # type: ignore[no-any-return]

    def _loss(self, meta: Params, support: Batch, theta: Tensor, phi: Tensor) -> Tensor:
        """What the inner loop descends [U], on dense rows, at phi [U, F]."""
        outputs = self._outputs(meta, unflatten(self.fast_shapes, phi), support.x)
        loss = (example_losses(self.problem, meta, outputs, support.y) * support.weight).sum(1)
        return self._held(loss, phi, theta)

    def _held(self, losses: Tensor, phi: Tensor, theta: Tensor) -> Tensor:
        """Add the proximal term, which holds phi near theta."""
        proximal = self.problem.inner.proximal
        return losses + proximal / 2 * (phi - theta).square().sum(1) if proximal else losses

    def _step(
        self, loss: Callable[[Tensor], Tensor], sizes: float | Tensor, phi: Tensor, *, differentiable: bool
    ) -> tuple[Tensor, Tensor]:
        """One step of every task's parameters phi [U, F], and the losses [U] it started from."""
        if not differentiable:
            phi = phi.detach().requires_grad_()
        losses = loss(phi)
        (gradient,) = torch.autograd.grad(losses.sum(), phi, create_graph=differentiable)
        clip = self.problem.inner.clip
        # Clamped before the root, whose derivative at 0 would make NaN of a task without examples.
        norm = gradient.square().sum(1, keepdim=True).clamp(min=clip**2).sqrt()
        stepped = phi - sizes * clip / norm * gradient
        return stepped if differentiable else stepped.detach(), losses.detach()


def _guarded(phi: Tensor, theta: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """What was adapted, and theta where the loss is above the first one, or NaN: it has diverged."""
    return torch.where((last <= first).unsqueeze(1), phi, theta)


def _padded(column: Tensor, size: int) -> Tensor:
    """Values [n, ...] of tasks, and zeros, of n + m = `size` tasks."""
    return torch.cat([column, column.new_zeros(size - len(column), *column.shape[1:])])


def unmoved(meta: Params) -> bool:
    """Whether theta's step size is 0: what is adapted is theta, and steps are not worth taking."""
    return LR in meta and not meta[LR]


def _row(meta: Params, names: Iterable[str]) -> Tensor:
    """Some of theta's values as one row [1, F]."""
    return flatten({name: meta[name].unsqueeze(0) for name in names})


def _centred(raw: Tensor) -> Tensor:
    """Shift a learned step size, so that the raw number 0 stands for `lr`."""
    return raw - math.log(WIDEST - 1)
