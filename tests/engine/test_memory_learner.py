"""A memory-augmented network against one written out for one task, slot by slot; where it writes; that it learns."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from engine.learners.memory import DECAY, MemoryLearner
from engine.types import Batch, EngineError, Fast, Params
from tests.engine import embedding_learners as common
from tests.engine.embedding_learners import WIDE, adapted, assert_close, first, outputs, stirred, wide


def learner(**changes: int) -> MemoryLearner:
    return MemoryLearner(WIDE, **{"width": 8, "slots": 4, "reads": 2, **changes})


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
    theta, batch, queries = stirred(subject), wide(), wide(seed=1).x
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
    batch = wide()
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
    subject_state = adapted(subject, closed, first(wide(), 1))
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
    theta, batch = subject.init(0), first(wide(), count)
    common.assert_filling_up_changes_nothing(subject, theta, batch, count, places=6)


def test_queries_do_not_see_each_other_and_leave_the_memory_as_it_is() -> None:
    common.assert_queries_are_apart_and_leave_no_trace(learner())


def test_an_example_counts_as_much_as_its_weight_says() -> None:
    subject = learner(slots=8)
    theta, batch = subject.init(0), wide(examples=2)
    x = batch.x[:, :1].expand(-1, 2, -1)
    weighed = Batch(x, torch.tensor([[0.0, 1.0]]).expand(3, 2), torch.tensor([[0.75, 0.25]]).expand(3, 2))
    odds = outputs(subject, theta, weighed, x[:, :1])
    assert bool((odds[..., 0] > odds[..., 1] + 0.5).all())


def test_before_any_training_an_example_met_again_is_given_its_label() -> None:
    common.assert_an_example_met_again_is_given_its_label(partial(MemoryLearner, width=8, slots=4))


def test_a_task_without_examples_has_finite_gradients() -> None:
    common.assert_gradients_are_finite_without_examples(learner())


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"reads": 0}])
def test_a_memory_without_slots_or_reads_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="at least one slot and one read"):
        learner(**wrong)


def test_it_learns_what_to_compare_from_episodes_of_classes_it_never_meets_again() -> None:
    before, after = common.accuracies_before_and_after_training(MemoryLearner(WIDE, width=16, slots=8))
    assert before < 0.6
    assert after > 0.9
