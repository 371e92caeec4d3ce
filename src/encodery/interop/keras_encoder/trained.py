"""A Keras model with its tokenizer and its task: opened from a model folder, given labels, written back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras  # pyright: ignore[reportMissingImports]
import numpy as np
import tokenizers

from encodery.bundle import read_bundle, write_bundle
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError, WeightsError, nearest
from encodery.interop.keras_encoder.model import EncoderModel
from encodery.interop.keras_encoder.options import read_config
from encodery.interop.keras_encoder.weights import get_weights

Text = str | tuple[str, str]
ROUNDED_TO = 16
"""Rows are a multiple of this long, so that few shapes are compiled."""


@dataclass
class KerasTrained:
    """A Keras model with everything needed to use it. `task` is what the folder's config.json says of it: the kind of
    answer, its labels, how texts are cut."""

    model: EncoderModel
    tokenizer: Tokenizer
    task: dict[str, Any] = field(default_factory=lambda: {"kind": "vectors"})

    def inputs(
        self,
        texts: Sequence[Text],
        *,
        length: int | None = None,
        prompt: str | None = None,
        counts: LengthCounts | None = None,
    ) -> dict[str, np.ndarray]:
        """Texts, or pairs of texts, as the model takes them: `ids`, `mask` and `segments` (B, T).

        T is `length`, or what the longest text needs. Longer texts lose their end, which `counts` records. `prompt`
        names one of the model's prompts, which is put before each text; by default the model's own choice, "" for none.
        Raises DataError for what is no text, an unknown prompt, or a length that the model cannot have.
        """
        longest = self.model.options.encoder.max_length
        if length is not None and not 4 <= length <= longest:
            raise DataError(f"length {length}", expected=f"4 to {longest}, the model's max_length")
        room = min(longest, length or longest, self.task.get("max_tokens") or longest)
        maker = SampleMaker.framed(self.tokenizer.frame, room, "cut")
        samples = self._samples(texts, self._words(prompt), maker, LengthCounts() if counts is None else counts)
        found = max((sample.ids.size for sample in samples), default=1)
        width = length or min(longest, -(-found // ROUNDED_TO) * ROUNDED_TO)
        ids = np.full((len(samples), width), self.tokenizer.pad_id, dtype=np.int32)
        mask, segments = np.zeros(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=np.int32)
        for row, sample in enumerate(samples):
            end = sample.ids.size
            ids[row, :end], segments[row, :end], mask[row, :end] = sample.ids, sample.segment, True
        return {"ids": ids, "mask": mask, "segments": segments}

    def with_labels(self, labels: Sequence[str], *, multilabel: bool = False, **options: Any) -> KerasTrained:
        """The same encoder with a new readout that has a logit for each label, not trained yet. `options` are those of
        a document readout: pooling, hidden, drop_rate. Raises DataError when a label stands twice, WeightsError for an
        option that is none of these."""
        if twice := sorted({label for label in labels if list(labels).count(label) > 1}):
            raise DataError(f"the label {twice[0]!r} stands twice", expected="each label once")
        readout = {"kind": "document", "outputs": len(labels), **options}
        config = read_config({**self.model.options.model_dump(mode="json"), "readout": readout})
        model = EncoderModel(config, self.model.pad_id, weights=_body(get_weights(self.model)), new_readout=True)
        kind = "multilabel" if multilabel else "classify"
        # What an answer before this one may have had; and long texts are cut, since labels are learned from `inputs`.
        plain = {"center": 0.0, "scale": 1.0, "temperature": 1.0, "long": "cut"}
        task = {**self.task, **plain, "kind": kind, "labels": list(labels)}
        return KerasTrained(model, self.tokenizer, task)

    def save(self, folder: str | Path, *, card: str = "", metrics: Mapping[str, Any] | None = None) -> None:
        """Write a model folder that `encodery.load` opens: config.json, model.safetensors, tokenizer.json, card.md,
        metrics.json. Raises WeightsError for a model without a readout, or when the disk is full."""
        options = self.model.options
        if options.readout is None:
            raise WeightsError("a model without a readout is no model folder", fix="give it labels: with_labels([...])")
        card = card or f"# Model\n\nTrained with Keras {keras.__version__} on {keras.backend.backend()}.\n"
        write_bundle(
            Path(folder),
            config={
                "model": options.model_dump(mode="json"),
                "task": self.task,
                "tokenizer": self.tokenizer.facts(),
            },
            weights=get_weights(self.model),
            tokenizer_json=self.tokenizer.to_json(),
            card=card,
            metrics=metrics or {},
        )

    def _words(self, prompt: str | None) -> str:
        """What stands before each text."""
        prompts, name = self.task.get("prompts") or {}, self.task.get("prompt") if prompt is None else prompt
        if name and name not in prompts:
            known = ", ".join(prompts) or "none"
            raise DataError(f"prompt {name!r}{nearest(name, prompts)}", expected=f"one of the model's: {known}")
        if name and self.task.get("paired"):
            raise DataError(f"prompt {name!r}", expected="no prompt: this model was trained on pairs of texts")
        return prompts[name] if name else ""

    def _samples(self, texts: Sequence[Text], words: str, maker: SampleMaker, counts: LengthCounts) -> list[Any]:
        paired = bool(self.task.get("paired"))
        for number, text in enumerate(texts):
            if not (isinstance(text, tuple | list) and len(text) == 2 if paired else isinstance(text, str)):
                wanted = "a pair of texts: this model reads pairs" if paired else "one text (a string)"
                raise DataError(f"text {number + 1} is {text!r:.80}", expected=wanted)
        if not paired:
            encoded = self.tokenizer.encode_batch([f"{words}{text}" for text in texts], with_offsets=False)
            return [maker.single(one.ids, one.starts_word, row, counts)[0] for row, one in enumerate(encoded)]
        sides = [self.tokenizer.encode_batch([pair[side] for pair in texts], with_offsets=False) for side in (0, 1)]
        both = [[(one.ids, one.starts_word) for one in side] for side in sides]
        return [maker.pair(first, second, row, counts)[0] for row, (first, second) in enumerate(zip(*both))]


def load(folder: str | Path, *, readout: bool = True) -> KerasTrained:
    """Open a model folder in Keras. `readout=False` opens the encoder alone, whose answers are the vectors.

    Raises WeightsError when the folder is missing, damaged, or holds a model with an option that the Keras encoder does
    not have (the message names the option).
    """
    folder = Path(folder)
    files = read_bundle(folder, tensors="np")
    if files.knowledge_json is not None:
        raise WeightsError(
            f"{folder} has a knowledge.json: what it knows of entities is written into its samples",
            expected="a model of texts alone",
            fix="use this model with torch (encodery.load)",
        )
    given, task = files.config.get("model"), files.config.get("task")
    if not isinstance(given, dict) or not isinstance(task, dict):
        raise WeightsError(f"{folder / 'config.json'} has no model and task", fix="write the folder again")
    weights = files.weights if readout else _body(files.weights)
    config = read_config(given if readout else {**given, "readout": None})
    if files.tokenizer_json is None:
        raise WeightsError(f"{folder} has no tokenizer.json", fix="copy it from the run that made the folder")
    inner = tokenizers.Tokenizer.from_str(files.tokenizer_json)
    tokenizer = Tokenizer(inner, files.config.get("tokenizer"), where=str(folder / "tokenizer.json"))
    # Other makers round the rows of the table up; a converted tokenizer says to how many.
    rows = tokenizer.facts().get("rows", tokenizer.vocab_size)
    if rows != config.frontend.vocab_size or tokenizer.vocab_size > rows:
        raise WeightsError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.frontend.vocab_size}",
            fix="the tokenizer.json is of another model: copy the right one",
        )
    return KerasTrained(EncoderModel(config, tokenizer.pad_id, weights=weights), tokenizer, task)


def from_config(config: Mapping[str, Any], tokenizer: Tokenizer, labels: Sequence[str]) -> KerasTrained:
    """A model of labels that has learned nothing yet. `config` has the sections `frontend` and `encoder` of a model;
    the size of the vocabulary comes from the tokenizer, the weights from Keras's seed (keras.utils.set_random_seed)."""
    frontend = {**config.get("frontend", {}), "vocab_size": tokenizer.vocab_size}
    options = read_config({**config, "frontend": frontend, "readout": None})
    return KerasTrained(EncoderModel(options, tokenizer.pad_id), tokenizer).with_labels(labels)


def _body(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights without those of the readout."""
    return {name: value for name, value in weights.items() if not name.startswith("readout.")}
