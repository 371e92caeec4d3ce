"""What a score is worth: intervals, a fair comparison on the same rows, and probabilities that mean something."""

from __future__ import annotations

import numpy as np
from made_text import messages

from encodery.evaluation.baselines import majority, tfidf_logistic
from encodery.evaluation.calibration import expected_calibration_error
from encodery.evaluation.intervals import paired_difference
from encodery.evaluation.metrics import score_labels

# Real labels are never all right: here every fifth one is drawn anew.
rng = np.random.default_rng(1)
rows = messages(900)
names = sorted({topic for _, topic in rows})
noisy = [str(rng.choice(names)) if rng.random() < 0.2 else topic for _, topic in rows]
texts = [text for text, _ in rows]
train, test = slice(0, 600), slice(600, None)

lazy = majority(noisy[train], len(texts[test]))
linear = tfidf_logistic(texts[train], noisy[train], texts[test])
truth = np.array([linear.labels.index(label) for label in noisy[test]])
for baseline in (lazy, linear):
    assert baseline.probabilities is not None
    metrics = score_labels(baseline.probabilities, truth, baseline.labels, rng=np.random.default_rng(1))
    print(f"{baseline.name}: " + ", ".join(f"{name} {metrics[name]}" for name in ("accuracy", "f1_macro")))

assert lazy.probabilities is not None
assert linear.probabilities is not None
gain = paired_difference(
    linear.probabilities.argmax(1) == truth, lazy.probabilities.argmax(1) == truth, np.random.default_rng(1)
)
print(f"difference on the same rows: {gain}; beyond chance: {'yes' if gain.excludes_zero else 'no'}")
print(f"probabilities are off by {expected_calibration_error(linear.probabilities, truth):.3f} on average")
