"""What an encoder thought is what it computed: weights, hidden states and sizes on request."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.encoders import kernels, scores
from encodery.encoders.watch import Watch


@pytest.mark.parametrize(
    "encoder",
    [
        {},
        {"positions": "alibi", "norm_place": "post"},
        {"positions": "disentangled"},
        {"score": "additive", "positions": "none"},
        {"pattern": "window", "window": 2, "global_tokens": 1},
        {"kv_heads": 2, "qk_norm": True},
        {"halve_after": [1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("long", [False, True], ids=["rows", "documents"])
def test_watching_changes_nothing_and_keeps_the_weights(
    encoder: dict[str, Any], long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(**encoder)
    first, second, third = documents_of([9, 5, 14])
    batch = batch_of([[first, second], [third]], 16)
    with torch.inference_mode():
        plain = model.encode(batch).vectors
        if long:
            monkeypatch.setattr(scores, "ROWS_UP_TO", 4)
            monkeypatch.setattr(scores, "QUERIES_AT_ONCE", 4)
        watch = Watch()
        watched = model.encode(batch, watch).vectors
    real = batch.layout.document >= 0
    torch.testing.assert_close(watched[real], plain[real], atol=1e-5, rtol=1e-5)
    depth = model.config.encoder.depth
    assert len(watch.hidden) == len(watch.layouts) == depth + 1 and len(watch.weights) == len(watch.sizes) == depth
    for weights, layout in zip(watch.weights, watch.layouts):
        assert [tuple(w.shape[1:]) for w in weights] == [(n, n) for n in layout.lengths.tolist()]
        for weight in weights:
            torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:2]))
    for number, sizes in enumerate(watch.sizes):
        assert set(sizes) == {"attention", "feed_forward", "sum"}
        if model.config.encoder.norm_place == "pre" and not model.config.encoder.halve_after:
            norm = watch.hidden[number + 1].norm(dim=-1)
            torch.testing.assert_close(sizes["sum"], norm, atol=1e-5, rtol=1e-5)


def test_weights_of_a_window_are_zero_outside_of_it() -> None:
    model = tiny_model(pattern="window", window=2)
    watch = Watch()
    model.encode(batch_of([documents_of([12])], 12), watch)
    place = torch.arange(12)
    outside = (place[:, None] - place[None, :]).abs() > 2
    (weight,) = watch.weights[0]
    assert (weight[:, outside] == 0).all() and (weight[:, ~outside] > 0).all()


def test_a_recurrent_encoder_keeps_hidden_states_and_sizes() -> None:
    model = tiny_model(kind="recurrent")
    watch = Watch()
    model.encode(batch_of([documents_of([12])], 12), watch)
    assert len(watch.hidden) == 3 and not watch.weights and set(watch.sizes[0]) == {"recurrence", "sum"}


def test_without_a_watch_the_fast_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(kernels, "attend_rows", lambda *given: used.append(1) or kernels.attend_plainly(*given))
    tiny_model().encode(batch_of([documents_of([12])], 12))
    assert len(used) == 2
