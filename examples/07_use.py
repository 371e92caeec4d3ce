"""Use a trained model: labels, vectors, the nearest text, and what the model folder says about itself.

python 07_use.py [MODEL FOLDER]      without one, a small model is trained first
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from made_text import messages, write_csv

import encodery

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:
    place = Path(tempfile.mkdtemp(prefix="encodery-"))
    recipe = {
        "output": str(place / "run"),
        "data": {"train": str(write_csv(place / "train.csv", 400)), "label": "topic"},
        "tokenizer": {"vocab_size": 400},
        "encoder": {"preset": "tiny", "depth": 1, "max_length": 64},
        "objective": "classify",
        "training": {"budget": "10 epochs", "batch_tokens": 1024},
        "evaluation": {"compare": ["majority"]},
    }
    folder = encodery.train(recipe).folder

model = encodery.load(folder)
for answer in model.predict(["my parcel is lost", "the kettle makes a noise"], top=2):
    print(f"{answer['label']} ({answer['probability']:.2f}), then {list(answer['probabilities'])[1]}")

# Vectors: one a text, of length 1, so that a product is a cosine.
texts = [text for text, _ in messages(300, seed=5)]
vectors = model.embed(texts)
asked = model.embed(["i forgot my password"])[0]
nearest = int(np.argmax(vectors @ asked))
print(f"nearest of {len(texts)} texts: {texts[nearest]}")

print("files:", ", ".join(sorted(file.name for file in folder.iterdir() if file.is_file())))
record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
accuracy = record["metrics"]["accuracy"]
print(f"accuracy {accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})")
