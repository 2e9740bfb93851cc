"""Adaptation by gradient steps: the inner loop of MAML, FOMAML, ANIL, Reptile and of plain fine-tuning.

    phi_0 = theta;  phi_k+1 = phi_k - lr * clip(grad loss(phi_k, support))        k = 0 .. K-1

(Finn, Abbeel, Levine 2017, arXiv:1703.03400, equation 1; ANIL, with only the head adapting, Raghu et al.
2020, arXiv:1909.09157.) All tasks of a call take their steps at once: the forward pass is vectorised over
tasks by `torch.func.vmap`, and because tasks share nothing, one backward pass of the summed losses gives
every task its own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from engine.learners.base import below, flatten, losses, unflatten
from engine.recorded import Recorded
from engine.spec import TaskSpec
from engine.types import Batch, Fast, Params


class GradientLearner:
    """K clipped gradient steps on the parameters that `spec.adapts` names; theta stays as it is.

    A task with an empty support set keeps theta's values. A task whose weighted support loss ends above
    where it began has diverged, and keeps theta's values too.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._model = spec.model().requires_grad_(False)
        self._recorded = Recorded(self._adapt)
        names = spec.adapted_names(self._model)
        self.fast_shapes: Mapping[str, torch.Size] = {
            name: self._model.get_parameter(name).shape for name in names
        }

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of what an outer loop may move: every parameter, no buffer."""
        return tuple(name for name, _ in self._model.named_parameters())

    def init(self, seed: int) -> Params:
        """Theta freshly initialised: every parameter and buffer of the model."""
        return {name: value.detach().clone() for name, value in self.spec.model(seed).state_dict().items()}

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks; support x [U, S, W]. The first call of each shape is recorded."""
        adapted: Fast = self._recorded(meta, support)
        return adapted

    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        """The same as a function of `meta`: through the inner loop (MAML), or as if it were the identity (FOMAML).

        Through the inner loop there is no guard against divergence, whose choice has no derivative; a caller must
        check what it gets for finiteness.
        """
        if second_order:
            return self._adapt(meta, support, differentiable=True)
        adapted = self.adapt(meta, support)
        return {name: value + (meta[name] - meta[name].detach()) for name, value in adapted.items()}

    def _adapt(self, meta: Params, support: Batch, differentiable: bool = False) -> Fast:
        one = flatten({name: meta[name].unsqueeze(0) for name in self.fast_shapes})
        theta = one.expand(len(support.x), -1)
        if support.x.shape[1] == 0 or self.spec.inner.steps == 0:
            return unflatten(self.fast_shapes, theta if differentiable else theta.contiguous())
        dense = support._replace(x=self._encoded(meta, {}, support.x))
        loss = partial(self._loss, meta, dense)
        with torch.enable_grad():
            phi, first = self._step(loss, self.fast_shapes, theta, differentiable)
            for _ in range(self.spec.inner.steps - 1):
                phi, _ = self._step(loss, self.fast_shapes, phi, differentiable)
        if not differentiable:
            last = loss(unflatten(self.fast_shapes, phi))
            # A loss that is NaN has diverged too.
            phi = torch.where((last <= first).unsqueeze(1), phi, theta)
        return unflatten(self.fast_shapes, phi)

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        return self._outputs(meta, fast, self._encoded(meta, fast, x))

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Compute outputs [N, C] of theta itself, unadapted, for x [N, W]."""
        return functional_call(self._model, meta, (x,))  # type: ignore[no-any-return]

    def step(self, meta: Params, fast: Fast, batch: Batch) -> Fast:
        """Take one clipped step of U tasks, without guard, on whichever parameters are in `fast`."""
        shapes = {name: value.shape[1:] for name, value in fast.items()}
        with torch.enable_grad():
            phi, _ = self._step(lambda now: losses(self, meta, now, batch), shapes, flatten(fast), False)
        return unflatten(shapes, phi)

    def _encoded(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Turn stored x [U, N, W] into dense rows [U, N, D]; in one call, unless tasks own the encoder."""
        if below("0.", fast):
            return self._per_task("0.", meta, fast, x)
        return functional_call(self._model[0], below("0.", meta), (x,))  # type: ignore[no-any-return]

    def _outputs(self, meta: Params, fast: Fast, dense: Tensor) -> Tensor:
        """Run the network of U tasks: outputs [U, N, C] for dense rows [U, N, D]."""
        return self._per_task("1.", meta, fast, dense)

    def _per_task(self, part: str, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """One half of the model, with each task's own values where there are any."""
        params = below(part, {**meta, **fast})
        axes = {name: 0 if part + name in fast else None for name in params}
        module = partial(functional_call, self._model.get_submodule(part[:-1]))
        return vmap(module, in_dims=(axes, 0))(params, x)  # type: ignore[no-any-return]

    def _loss(self, meta: Params, support: Batch, fast: Fast) -> Tensor:
        """Weigh the loss [U] on dense rows."""
        outputs = self._outputs(meta, fast, support.x)
        return (self.spec.target.loss(outputs, support.y) * support.weight).sum(1)

    def _step(
        self,
        loss: Callable[[Fast], Tensor],
        shapes: Mapping[str, torch.Size],
        phi: Tensor,
        differentiable: bool,
    ) -> tuple[Tensor, Tensor]:
        """One step of every task's parameters phi [U, F], and the losses [U] it started from."""
        if not differentiable:
            phi = phi.detach().requires_grad_()
        losses = loss(unflatten(shapes, phi))
        (gradient,) = torch.autograd.grad(losses.sum(), phi, create_graph=differentiable)
        clip = self.spec.inner.clip
        # Clamped before the root, whose derivative at 0 would make NaN of a task without examples.
        norm = gradient.square().sum(1, keepdim=True).clamp(min=clip**2).sqrt()
        stepped = phi - self.spec.inner.lr * clip / norm * gradient
        return stepped if differentiable else stepped.detach(), losses.detach()
