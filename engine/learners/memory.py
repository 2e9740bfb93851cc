"""Memory-augmented neural network: a recurrent controller that writes what it learns to an external memory.

For each example an LSTM controller updates its state h_t; the memory M [slots, word] is written, then read:

    w^lu = one-hot of the slot with the least usage w^u_{t-1};   w^w = s(a) w^r_{t-1} + (1 - s(a)) w^lu
    M_t(i) = (1 - w^lu(i)) M_{t-1}(i) + w^w(i) k_t
    w^r = softmax_i(b cos(q_t, M_t(i)));   r_t = sum_i w^r(i) M_t(i);   w^u_t = g w^u_{t-1} + w^r + w^w

(Santoro et al. 2016, arXiv:1605.06065, section 3: least-recently-used access.) Departures:

- The paper shows x_t with y_{t-1}, because it answers x_t before it learns from it. Here a support set is what
  was already labelled, so x_t and y_t come together; a query comes with a blank label, from the state after the
  last example, and leaves it as it is: queries of a task are independent of each other.
- A word is a key and a label: the key is the embedding plus what the controller adds, and the label is written
  beside it as it is. Addressing compares keys alone, so a blank label does not disturb it, and what is read of
  labels is added to the controller's own output: as log(p_k + e) for classes, with e learned, as it is for a
  number. So theta has not to discover by itself that a label is worth copying, which takes the paper 100,000
  episodes.
- The temperature b is learned, as in the neural Turing machine (Graves et al. 2014, arXiv:1410.5401, section
  3.3.1). The cosine divides by sqrt(|M(i)|^2 + 1), or a slot that holds a thousandth of a key, for w^w is never
  quite 0, would be found as readily as the one that holds it.
- One write an example, however many reads; where w^r writes or counts as usage it is their mean.

Not a neural Turing machine, which shifts its focus along the memory, and not Matching Networks: where there are
fewer slots than examples, the ones least used are forgotten, and the order of examples matters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.learners.embedding import EmbeddingLearner
from engine.learners.labels import answered, code_width, coded, log_floor, one_hot, scaled, unit
from engine.problem import Problem
from engine.types import Batch, EngineError, Fast, Params

DECAY = 0.99
"""Of usage, from one example to the next: the paper's gamma."""

EMPTY = 1.0
"""Square length of a key below which a slot counts as empty; a key as written has `width` or more."""


class MemoryLearner(EmbeddingLearner):
    """Fast parameters are memory, usage and read weights, and the controller's state after the last example."""

    def __init__(self, problem: Problem, width: int = 64, slots: int = 64, reads: int = 2) -> None:
        """`slots` of memory; the controller reads at `reads` addresses at once."""
        if min(slots, reads) < 1:
            raise EngineError(f"a memory needs at least one slot and one read, got {slots} and {reads}")
        self.slots, self.reads, self.word = slots, reads, width + code_width(problem)
        super().__init__(problem, width)
        self.fast_shapes = {
            "memory": torch.Size((slots, self.word)),
            "usage": torch.Size((slots,)),
            "read": torch.Size((reads, slots)),
            "hidden": torch.Size((width,)),
            "cell": torch.Size((width,)),
        }

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised."""
        return _Controller(self.width, self.word, self.reads, self.target.outputs)

    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks from support x [U, S, W]."""
        present = support.weight > 0
        keys = scaled(self.embed(meta, support.x.where(present.unsqueeze(-1), 0.0)))
        labels = coded(self.standard, support)
        state = {name: keys.new_zeros(len(keys), *shape) for name, shape in self.fast_shapes.items()}
        for t in range(keys.shape[1]):
            after = self._presented(meta, state, keys[:, t : t + 1], labels[:, t : t + 1])
            came = present[:, t]
            state = {
                name: torch.where(came.view(-1, *[1] * (old.dim() - 1)), after[name], old)
                for name, old in state.items()
            }
        return state

    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], each query one read from the same state."""
        keys = scaled(self.embed(meta, x))
        blank = keys.new_zeros(*keys.shape[:2], self.word - self.width)
        hidden, _ = self._controlled(meta, fast, keys, blank)
        read = self._addressed(meta, fast["memory"], keys, hidden)
        found = read.flatten(1, 2) @ fast["memory"]
        found = found.view(*keys.shape[:2], self.reads, self.word)
        own = _linear(meta, "output", torch.cat([hidden, found.flatten(2)], -1))
        return answered(self.standard, own, found[..., self.width :].mean(2), meta["2.log_floor"])

    def _presented(self, meta: Params, state: Fast, key: Tensor, label: Tensor) -> Fast:
        """The state after one example of each task: key [U, 1, width], label [U, 1, code]."""
        hidden, cell = self._controlled(meta, state, key, label)
        least = least_used(state["usage"])
        gate = torch.sigmoid(meta["2.write_gate"])
        write = gate * state["read"].mean(1) + (1 - gate) * least
        word = torch.cat([key + _linear(meta, "write_key", hidden), label], -1)
        memory = state["memory"] * (1 - least).unsqueeze(-1) + write.unsqueeze(-1) * word
        read = self._addressed(meta, memory, key, hidden).squeeze(1)
        usage = DECAY * state["usage"] + read.mean(1) + write
        return {
            "memory": memory,
            "usage": usage,
            "read": read,
            "hidden": hidden.squeeze(1),
            "cell": cell.squeeze(1),
        }

    def _controlled(self, meta: Params, state: Fast, keys: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One LSTM step from the same state for N inputs of each task: hidden and cell [U, N, width]."""
        found = (state["read"] @ state["memory"]).flatten(1)
        before = _linear(meta, "recurrent", torch.cat([state["hidden"], found], -1)).unsqueeze(1)
        gates = before + _linear(meta, "input", torch.cat([keys, labels], -1))
        enter, keep, value, leave = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(keep) * state["cell"].unsqueeze(1) + torch.sigmoid(enter) * torch.tanh(value)
        return torch.sigmoid(leave) * torch.tanh(cell), cell

    def _addressed(self, meta: Params, memory: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
        """Read weights [U, N, reads, slots]: by the cosine of what each read looks for and each slot's key."""
        moved = _linear(meta, "read_key", hidden).view(*keys.shape[:2], self.reads, self.width)
        sought = unit(keys.unsqueeze(2) + moved).flatten(1, 2)
        cosine = sought @ unit(memory[..., : self.width], beside=EMPTY).transpose(1, 2)
        sharp = cosine * meta["2.log_sharpness"].exp()
        return torch.softmax(sharp, dim=-1).view(*keys.shape[:2], self.reads, self.slots)


class _Controller(nn.Module):
    """Parameters of controller, addressing and output."""

    def __init__(self, width: int, word: int, reads: int, outputs: int) -> None:
        super().__init__()
        self.input = nn.Linear(word, 4 * width)
        self.recurrent = nn.Linear(width + reads * word, 4 * width, bias=False)
        self.write_key = nn.Linear(width, width)
        self.read_key = nn.Linear(width, reads * width)
        self.output = nn.Linear(width + reads * word, outputs)
        self.write_gate = nn.Parameter(torch.tensor(-3.0))
        self.log_sharpness = nn.Parameter(torch.tensor(10.0).log())
        self.log_floor = log_floor()
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)


def least_used(usage: Tensor) -> Tensor:
    """One-hot of the slot of least usage, the first of equals; [U, slots]."""
    # A stable sort: of equal values the smallest index, on every device.
    least = usage.sort(dim=-1, stable=True).indices[:, 0]
    return one_hot(least, usage.shape[-1])


def _linear(meta: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, meta[f"2.{name}.weight"], meta.get(f"2.{name}.bias"))
