"""Distillation: who learns from whom, the losses by hand, and a student that comes near its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch, States
from encodery.encoders.watch import Watch
from encodery.errors import ConfigError
from encodery.heads.distil import DistilOutput, DistilReadout, teacher_block
from encodery.model import Model
from encodery.objectives.distil import Distil, DistilConfig, attention_loss, hidden_loss

MATCHES = [("hidden",), ("attention",), ("vectors",), ("hidden", "attention", "vectors")]


def some_batch(seed: int = 0) -> Batch:
    documents = documents_of([11, 9, 20, 7], seed=seed)
    return batch_of([documents[:2], documents[2:], []], 32)


def objective(match: tuple[str, ...] = ("hidden",), teacher: dict[str, Any] | None = None, **config: Any) -> Distil:
    given = {"seed": 7, "width": 48, "depth": 3, "heads": 4, "readout": {"kind": "document"}, **(teacher or {})}
    return Distil(DistilConfig(teacher="t", match=match, **config), tiny_model(**given))  # type: ignore[arg-type]


class Student:
    """A model without its readout, and the readout that the objective needs."""

    def __init__(self, judge: Distil, **encoder: Any) -> None:
        self.model: Model = tiny_model(**{"readout": {"kind": "document"}, **encoder}).train()
        self.readout = DistilReadout(judge.readout(), self.model.config.encoder)
        self.readout.initialise(torch.Generator().manual_seed(0))

    def encode(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        assert at is None and words is None
        return self.model.encode(batch, watch)

    def answer(self, batch: Batch) -> DistilOutput:
        return self.readout.run(self.encode, batch)


def test_blocks_are_spread_evenly_and_ends_meet() -> None:
    assert [teacher_block(block, 4, 12) for block in range(5)] == [0, 3, 6, 9, 12]
    assert [teacher_block(block, 6, 6) for block in range(7)] == list(range(7))
    assert [teacher_block(block, 4, 2) for block in range(5)] == [0, 0, 1, 2, 2]
    assert teacher_block(0, 0, 5) == 0


def test_the_loss_of_hidden_vectors_by_hand() -> None:
    torch.manual_seed(0)
    student, teacher = tuple(torch.randn(3, 6, 4).unbind()), list(torch.randn(5, 6, 4).unbind())
    real = torch.tensor([True, True, False, True, False, True])
    found, cosine = hidden_loss(student, teacher, real)
    squares, angles = [], []
    for block, mine in enumerate(student):
        for place in (0, 1, 3, 5):
            wanted = teacher[2 * block][place].double().numpy()
            wanted = (wanted - wanted.mean()) / np.sqrt(wanted.var() + 1e-5)
            own = mine[place].double().numpy()
            squares.append(np.mean((own - wanted) ** 2))
            if block == 2:
                angles.append(own @ wanted / np.linalg.norm(own) / np.linalg.norm(wanted))
    assert float(found) == pytest.approx(np.mean(squares), rel=1e-5)
    assert float(cosine) == pytest.approx(np.mean(angles), rel=1e-5)


def test_the_loss_of_attention_by_hand() -> None:
    """KL by scipy; heads that differ in number meet in their means; equal attention costs nothing."""
    from scipy.stats import entropy

    torch.manual_seed(0)
    teacher = [torch.softmax(torch.randn(2, n, n), -1) for n in (3, 5)]
    teacher[0][0, 0] = torch.tensor([1.0, 0.0, 0.0])  # a token that may not see the others
    for heads in (2, 4):
        student = tuple(torch.softmax(torch.randn(heads, n, n), -1) for n in (3, 5))
        each = []
        for mine, wanted in zip(student, teacher):
            if heads != 2:
                mine, wanted = mine.mean(0, keepdim=True), wanted.mean(0, keepdim=True)
            each += [entropy(wanted.double(), mine.double(), axis=-1).mean(0)]
        expected = np.concatenate(each).mean()
        assert float(attention_loss(student, teacher, torch.tensor(8))) == pytest.approx(expected, rel=1e-5)
    assert float(attention_loss(tuple(teacher), teacher, torch.tensor(8))) == pytest.approx(0, abs=1e-6)


def test_the_weighted_sum_and_its_parts() -> None:
    judge = objective(MATCHES[3], hidden_weight=2.0, attention_weight=3.0, vector_weight=5.0)
    student, batch = Student(judge), some_batch()
    loss = judge.loss(student.answer(batch), batch)
    parts = {name: float(value) for name, value in loss.parts.items()}
    expected = 2 * parts["hidden_loss"] + 3 * parts["attention_loss"] + 5 * (1 - parts["vector_cosine"])
    assert float(loss.total.detach() / loss.count) == pytest.approx(expected, rel=1e-5) and int(loss.count) == 47
    with torch.no_grad():
        teacher = judge.teacher.encode(batch).vectors
    layout = batch.layout
    pooled = torch.stack([teacher[a : a + n].mean(0) for a, n in zip(layout.starts.tolist(), layout.lengths.tolist())])
    mapped = student.answer(batch).mapped
    assert mapped is not None
    cosine = F.cosine_similarity(mapped.detach(), pooled, dim=-1).mean()
    assert parts["vector_cosine"] == pytest.approx(float(cosine), rel=1e-4)


@pytest.mark.parametrize("match", MATCHES, ids="+".join)
def test_the_student_learns_and_the_teacher_does_not(match: tuple[str, ...]) -> None:
    judge = objective(match)
    student, batch = Student(judge), some_batch()
    judge.loss(student.answer(batch), batch).total.backward()
    learned = dict(student.model.frontend.named_parameters()) | dict(student.model.encoder.named_parameters())
    if match == ("attention",):  # what stands behind the shares of the last block has no part in them
        behind = ("blocks.1.attention.outer", "blocks.1.mlp", "output_norm")
        learned = {name: value for name, value in learned.items() if not name.startswith(behind)}
    for name, parameter in (learned | dict(student.readout.named_parameters())).items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in judge.teacher.parameters())


def test_teaching_itself_costs_nothing() -> None:
    """A student equal to its teacher, matrices that change nothing: the attention and the vectors are the teacher's."""
    judge = objective(("attention", "vectors"), {"seed": 0, "width": 32, "depth": 2})
    student = Student(judge)
    student.model.eval()
    assert student.readout.vector is not None
    with torch.no_grad():
        student.readout.vector.weight.copy_(torch.eye(32))
        student.readout.vector.bias.zero_()
    loss = judge.loss(student.answer(some_batch()), some_batch())
    assert float(loss.total.detach() / loss.count) == pytest.approx(0, abs=1e-5)


def test_a_student_comes_near_its_teacher() -> None:
    """40 steps on the same few texts: the loss falls to well below half of what it was (0.2 when tried)."""
    judge = objective(("hidden", "vectors"))
    student = Student(judge)
    parameters = [*student.model.frontend.parameters(), *student.model.encoder.parameters()]
    optimizer = torch.optim.Adam([*parameters, *student.readout.parameters()], lr=3e-3)
    losses = []
    for _ in range(40):
        loss = judge.loss(student.answer(some_batch()), some_batch())
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append(float(loss.total.detach() / loss.count))
    assert losses[-1] < 0.6 * losses[0]


def test_a_teacher_that_gives_vectors_gives_its_own() -> None:
    readout = {"kind": "vector", "pooling": "first", "dense": [{"outputs": 12}]}
    judge, batch = objective(("vectors",), {"readout": readout}), some_batch()
    student = Student(judge)
    output = student.answer(batch)
    assert output.mapped is not None and output.mapped.shape == (4, 12)
    with torch.no_grad():
        cosine = F.cosine_similarity(output.mapped, judge.teacher(batch).vectors, dim=-1).mean()
    assert float(judge.loss(output, batch).parts["vector_cosine"]) == pytest.approx(float(cosine), rel=1e-4)


def test_a_recurrent_student_of_a_transformer() -> None:
    judge = objective(("hidden",))
    student = Student(judge, kind="recurrent")
    assert torch.isfinite(judge.loss(student.answer(some_batch()), some_batch()).total)
    with pytest.raises(ConfigError, match=r"attention.*student.*recurrent"):
        Student(objective(("attention",)), kind="recurrent")
    with pytest.raises(ConfigError, match=r"hidden.*teacher.*hierarchical"):
        objective(("hidden",), {"kind": "hierarchical", "segment": 4, "mlp_width": 48})


def test_a_batch_without_texts_is_no_loss() -> None:
    judge = objective(MATCHES[3])
    batch = batch_of([[], []], 16)
    loss = judge.loss(Student(judge).answer(batch), batch)
    assert float(loss.total.detach()) == 0 and int(loss.count) == 0
    loss.total.backward()


def test_wrong_options_are_refused() -> None:
    for wrong in ({"match": []}, {"match": ["hidden", "hidden"]}, {"match": ["logits"]}, {"teacher": ""}):
        with pytest.raises(ValueError):
            DistilConfig.model_validate({"teacher": "folder", **wrong})
