"""The loss over the vocabulary against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encodery.objectives import cross_entropy as room
from encodery.objectives.cross_entropy import IGNORED, cross_entropy, row_losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 19], ids=["row by row", "some rows", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_pytorch_s_loss_with_its_gradient(
    dtype: torch.dtype, at_once: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "NUMBERS_AT_ONCE", at_once)
    torch.manual_seed(0)
    logits = (4 * torch.randn(11, 30)).to(dtype).requires_grad_()
    target = torch.randint(0, 30, (11,))
    target[[2, 9]] = IGNORED
    total, correct = cross_entropy(logits, target, smoothing)
    given = {"ignore_index": IGNORED, "label_smoothing": smoothing}
    expected = F.cross_entropy(logits.float(), target, reduction="sum", **given)
    torch.testing.assert_close(total, expected)
    (found,) = torch.autograd.grad(3 * total, logits)
    (wanted,) = torch.autograd.grad(3 * expected, logits)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
    assert int(correct) == int((logits.argmax(dim=1) == target).sum())


def test_rows_have_losses_and_surprises_of_their_own() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(6, 9, requires_grad=True), torch.tensor([1, 4, IGNORED, 0, 8, 4])
    loss, surprise, right = row_losses(logits, target, 0.2)
    kept = {"ignore_index": IGNORED, "reduction": "none"}
    torch.testing.assert_close(surprise, F.cross_entropy(logits, target, **kept).detach())
    expected = F.cross_entropy(logits, target, label_smoothing=0.2, **kept)
    torch.testing.assert_close(loss, expected)
    weight = torch.arange(6.0)
    found, wanted = (torch.autograd.grad((weight * one).sum(), logits)[0] for one in (loss, expected))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert right.tolist() == ((logits.argmax(1) == target) & (target >= 0)).tolist()


def test_a_target_without_any_share_has_a_finite_loss() -> None:
    """Its share of the softmax is too small for a float."""
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    total, _ = cross_entropy(logits, torch.tensor([2]))
    assert float(total.detach()) == pytest.approx(600.0)
    total.backward()
    assert torch.equal(logits.grad, torch.tensor([[1.0, 0.0, -1.0]]))  # type: ignore[arg-type]


def test_without_targets_there_is_nothing() -> None:
    for rows in (0, 3):
        total, correct = cross_entropy(torch.randn(rows, 5), torch.full((rows,), IGNORED))
        assert float(total) == 0.0 and int(correct) == 0
