"""A memory-augmented network against one written out for one task, slot by slot; where it writes; that it learns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from engine.features import Features, Numeric
from engine.learners.embedding import EmbeddingLearner
from engine.learners.memory import DECAY, MemoryLearner
from engine.models.mlp import mlp
from engine.outer.backprop import Backprop
from engine.spec import Classification, Memory, Regression, TaskSpec
from engine.train import FitSettings, fit, start
from engine.types import Batch, EngineError, Episodes, Fast, Params

EXCHANGEABLE = Classification((0, 1, 2), exchangeable=True)
TARGETS = {"classes": Classification((0, 1, 2)), "exchangeable": EXCHANGEABLE, "number": Regression(-1, 3)}
COLUMNS = 8
SPEC = TaskSpec(
    Features(tuple(Numeric(f"x{i}") for i in range(COLUMNS))),
    EXCHANGEABLE,
    network=partial(mlp, hidden=(32,)),
    memory=Memory(support=6),
)


def learner(**changes: int) -> MemoryLearner:
    return MemoryLearner(SPEC, **{"width": 8, "slots": 4, "reads": 2, **changes})


def disturbed(theta: Params) -> Params:
    """Theta with nothing at zero, as after some training."""
    g = torch.Generator().manual_seed(5)
    return {name: value + 0.2 * torch.randn(value.shape, generator=g) for name, value in theta.items()}


def adapted(subject: EmbeddingLearner, theta: Params, batch: Batch) -> Fast:
    """What `adapt` returns, without recording it first: that takes longer than these tests."""
    return subject.adapt_differentiably(theta, batch, second_order=False)


def support(tasks: int = 3, examples: int = 6, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, examples, COLUMNS, generator=g)
    y = torch.randint(3, (tasks, examples), generator=g).float()
    return Batch(x, y, torch.full((tasks, examples), 1 / max(examples, 1)))


def first(batch: Batch, count: int) -> Batch:
    """The same tensors with only so many examples present; what fills the rest is not a number."""
    present = torch.arange(batch.y.shape[1]) < count
    weight = present.float().expand_as(batch.y) / count
    return Batch(batch.x.where(present[:, None], torch.nan), batch.y.where(present, torch.nan), weight)


def assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class WrittenOut:
    """One task, in the paper's words, with torch's own LSTM cell and a loop over slots."""

    def __init__(self, subject: MemoryLearner, theta: Params) -> None:
        self.subject, self.theta = subject, theta
        self.memory = torch.zeros(subject.slots, subject.word)
        self.usage = torch.zeros(subject.slots)
        self.read = torch.zeros(subject.reads, subject.slots)
        self.state = torch.zeros(1, subject.width), torch.zeros(1, subject.width)
        width, recurrent = subject.width, theta["2.recurrent.weight"]
        self.cell = nn.LSTMCell(subject.word * (1 + subject.reads), width)
        weight_ih = torch.cat([theta["2.input.weight"], recurrent[:, width:]], 1)
        parts = weight_ih, recurrent[:, :width], theta["2.input.bias"], torch.zeros(4 * width)
        self.cell.load_state_dict(dict(zip(self.cell.state_dict(), parts, strict=True)))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.theta[f"2.{name}.weight"] @ x + self.theta[f"2.{name}.bias"]

    def control(self, key: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        found = [sum(w * row for w, row in zip(head, self.memory, strict=True)) for head in self.read]
        entered = torch.cat([key, label, *found]).unsqueeze(0)
        hidden, cell = self.cell(entered, self.state)
        return hidden, cell

    def address(self, key: Tensor, hidden: Tensor) -> Tensor:
        width, heads = self.subject.width, []
        for moved in self.linear("read_key", hidden).view(self.subject.reads, width):
            sought = (key + moved) / (key + moved).norm()
            alike = [sought @ row[:width] / (row[:width].square().sum() + 1).sqrt() for row in self.memory]
            heads.append(torch.softmax(torch.stack(alike) * self.theta["2.log_sharpness"].exp(), 0))
        return torch.stack(heads)

    def learn(self, key: Tensor, label: Tensor) -> None:
        hidden, cell = self.control(key, label)
        gate = torch.sigmoid(self.theta["2.write_gate"])
        least = int(self.usage.argmin())
        write = gate * self.read.mean(0)
        write[least] += 1 - gate
        self.memory[least] = 0
        word = torch.cat([key + self.linear("write_key", hidden[0]), label])
        for slot in range(self.subject.slots):
            self.memory[slot] += write[slot] * word
        self.read = self.address(key, hidden[0])
        self.usage = DECAY * self.usage + self.read.mean(0) + write
        self.state = hidden, cell

    def answer(self, key: Tensor) -> Tensor:
        hidden, _ = self.control(key, torch.zeros(self.subject.word - self.subject.width))
        found = self.address(key, hidden[0]) @ self.memory
        label = found[:, self.subject.width :].mean(0)
        own = self.linear("output", torch.cat([hidden[0], found.flatten()]))
        return own + (label[:3] / label[3] + self.theta["2.log_floor"].exp()).log()


@torch.no_grad()
def test_it_remembers_and_answers_what_the_equations_say_written_out_for_one_task() -> None:
    subject = learner()
    theta, batch, queries = disturbed(subject.init(0)), support(), support(seed=1).x
    keys, asked = (subject.embed(theta, x) for x in (batch.x, queries))
    outputs = subject.predict(theta, fast := adapted(subject, theta, batch), queries)
    for task in range(3):
        alone = WrittenOut(subject, theta)
        for key, y in zip(keys[task], batch.y[task].long(), strict=True):
            label = torch.cat([torch.eye(3)[y], torch.ones(1)])
            alone.learn(key * (8**0.5) / key.norm(), label)
        assert_close(fast["memory"][task], alone.memory)
        assert_close(fast["usage"][task], alone.usage)
        for query, output in zip(asked[task], outputs[task], strict=True):
            assert_close(output, alone.answer(query * (8**0.5) / query.norm()))


def test_an_example_is_written_to_the_slot_least_used_and_to_no_other() -> None:
    subject = learner()
    theta = {**subject.init(0), "2.write_gate": torch.tensor(-50.0)}
    batch = support()
    written = []
    for count in range(1, 6):
        before, after = (adapted(subject, theta, first(batch, n)) for n in (count, count + 1))
        moved = (after["memory"] - before["memory"]).abs().amax(-1) > 1e-3
        assert torch.equal(moved.sum(1), torch.ones(3, dtype=torch.long))
        assert torch.equal(moved.int().argmax(1), before["usage"].argmin(1))
        written.append(moved.int().argmax(1))
    # None is written again while another is empty: the first example has one, the next three the others.
    assert all(len(set(slots)) == 3 for slots in torch.stack(written[:3], 1).tolist())


def test_a_gate_wide_open_writes_where_the_last_example_was_read() -> None:
    subject = learner(reads=1)
    theta = {**subject.init(0), "2.write_gate": torch.tensor(50.0)}
    closed = {**theta, "2.write_gate": torch.tensor(-50.0)}
    subject_state = adapted(subject, closed, first(support(), 1))
    key, label = torch.ones(3, 1, 8), torch.ones(3, 1, 4)
    after = subject._presented(theta, subject_state, key, label)
    assert_close(after["memory"][..., -1], written_flags(subject_state))


def written_flags(state: Fast) -> Tensor:
    """How much of an example each slot holds, once another is written by the read weights alone."""
    least = torch.nn.functional.one_hot(state["usage"].argmin(1), 4)
    return state["memory"][..., -1] * (1 - least) + state["read"][:, 0]


@pytest.mark.parametrize("count", [1, 4, 6])
def test_steps_without_an_example_leave_the_state_as_it_was(count: int) -> None:
    subject = learner()
    theta, batch = subject.init(0), first(support(), count)
    longer = Batch(*(torch.cat([value, torch.zeros_like(value)], 1) for value in batch))
    shorter = Batch(*(value[:, :count] for value in batch))
    fast, filled, alone = (adapted(subject, theta, one) for one in (batch, longer, shorter))
    for name, value in fast.items():
        assert_close(value, alone[name])
        assert_close(value, filled[name])


def test_queries_do_not_see_each_other_and_leave_the_memory_as_it_is() -> None:
    subject = learner()
    theta, queries = disturbed(subject.init(0)), support(seed=1).x
    fast = adapted(subject, theta, support())
    before = {name: value.clone() for name, value in fast.items()}
    together = subject.predict(theta, fast, queries)
    for n in range(queries.shape[1]):
        assert_close(subject.predict(theta, fast, queries[:, n : n + 1])[:, 0], together[:, n])
    assert all(torch.equal(value, before[name]) for name, value in fast.items())


def test_an_example_counts_as_much_as_its_weight_says() -> None:
    subject = learner(slots=8)
    theta, batch = subject.init(0), support(examples=2)
    x = batch.x[:, :1].expand(-1, 2, -1)
    weighed = Batch(x, torch.tensor([[0.0, 1.0]]).expand(3, 2), torch.tensor([[0.75, 0.25]]).expand(3, 2))
    odds = subject.predict(theta, adapted(subject, theta, weighed), x[:, :1])
    assert bool((odds[..., 0] > odds[..., 1] + 0.5).all())


def test_before_any_training_an_example_met_again_is_given_its_label() -> None:
    for name, target in TARGETS.items():
        subject = MemoryLearner(replace(SPEC, target=target), width=8, slots=4)
        batch = first(support(), 1)
        theta, x, y = subject.init(0), batch.x[:, :1], batch.y[:, 0]
        outputs = subject.predict(theta, adapted(subject, theta, batch), x)[:, 0]
        assert_close(outputs[:, 0] if name == "number" else outputs.argmax(-1).float(), y)


def test_a_task_without_examples_has_finite_gradients() -> None:
    subject = learner()
    batch = support()
    batch.weight[0] = 0
    gradient, _ = Backprop()(subject, subject.init(0), Episodes(batch, support(seed=1)))
    assert all(bool(value.isfinite().all()) for value in gradient.values())


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"reads": 0}])
def test_a_memory_without_slots_or_reads_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="at least one slot and one read"):
        learner(**wrong)


def blobs(step: int, tasks: int = 16) -> Episodes:
    """3-way 2-shot: two columns tell the classes of a task apart, the other six are noise as loud."""
    g = torch.Generator().manual_seed(step)
    y = torch.arange(3).repeat(5).expand(tasks, -1)
    centres = 2 * torch.randn(tasks, 3, 2, generator=g)
    told = centres[torch.arange(tasks)[:, None], y] + 0.2 * torch.randn(tasks, 15, 2, generator=g)
    x = torch.cat([told, 2 * torch.randn(tasks, 15, COLUMNS - 2, generator=g)], -1)
    sets = (
        Batch(x[:, a:b], y[:, a:b].float(), torch.full((tasks, b - a), 1 / (b - a)))
        for a, b in ((0, 6), (6, 15))
    )
    return Episodes(*sets)


def accuracy(subject: EmbeddingLearner, theta: Params) -> float:
    support, query = blobs(10_000, tasks=64)
    outputs = subject.predict(theta, adapted(subject, theta, support), query.x)
    return float((outputs.argmax(-1) == query.y).float().mean())


def test_it_learns_what_to_compare_from_episodes_of_classes_it_never_meets_again() -> None:
    subject = MemoryLearner(SPEC, width=16, slots=8)
    begun = start(subject, 0)
    ended, _ = fit(subject, Backprop(), map(blobs, range(150)), begun, FitSettings(lr=5e-3))
    assert accuracy(subject, begun.params) < 0.6
    assert accuracy(subject, ended.params) > 0.9
