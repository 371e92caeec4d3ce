"""The demo: the whole road, from raw text to a measured encoder, in a few minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from encodery.data.embedded import ABOUT, write_demo_files
from encodery.durable import replace_file

RECIPE = """\
# The demo of Encodery: few labelled reviews, many without a label.
# Data: {about}.
# Run it again with changes:  encodery train {folder}/recipe.yaml pretrain.training.budget=10m
name: demo
output: {folder}/run

data:
  train: data/train.jsonl            # {train} rows with a label
  validation: data/validation.jsonl  # {validation} rows: every choice is made by them
  test: data/test.jsonl              # {test} rows: read once, for the table
  label: label

tokenizer:
  kind: bpe                          # frequent Chinese words become one token
  vocab_size: 6000

encoder:
  preset: mini                       # vectors of 256 numbers, 4 heads
  depth: 3
  max_length: 128

pretrain:                            # learn from the text alone first ...
  data: [data/unlabelled.txt]        # {unlabelled} more reviews, without labels
  training:
    budget: 190s

objective: classify                  # ... then from the labels
training:
  budget: 3 epochs                   # not a time: so much is learned on a slow machine as well
  batch_tokens: 2048

evaluation:
  compare: [majority, tfidf, scratch]  # scratch: the same encoder without pretraining
"""

LABELLED, VALIDATION, TEST = 2000, 1000, 3000


def write_demo(folder: Path) -> Path:
    """Write the demo's data and its recipe into `folder`; the path of the recipe.

    Raises MissingExtra when the package that carries the text is not installed.
    """
    files = write_demo_files(folder / "data", labelled=LABELLED, validation=VALIDATION, test=TEST)
    recipe = folder / "recipe.yaml"
    counts = {name: f"{rows:,}" for name, rows in files.rows.items()}
    replace_file(recipe, RECIPE.format(about=ABOUT, folder=folder, **counts).encode())
    return recipe
