"""The words of a drafted recipe: YAML with every line explained and the alternatives beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from encodery.evaluation.baselines import UNSPACED_LANGUAGES
from encodery.training.draft_pairs import column_line as pair_line
from encodery.training.draft_pairs import pairs_lines
from encodery.training.draft_pointing import PointingSeen, column_line, pointing_lines
from encodery.training.draft_tags import tags_said

if TYPE_CHECKING:
    from encodery.training.draft import Draft

_WIDTH = 44  # column at which comments begin


def recipe_text(draft: Draft, name: str, files: dict[str, list[str]]) -> str:
    """The recipe for what was seen; `files` are the paths as they are meant from the recipe's folder."""
    sections = [
        _head(draft, name),
        _data(draft, files),
        _tokenizer(draft),
        _encoder(draft),
        _objective(draft),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


# With more labelled rows an encoder needs no linear answer beside it.
FEW_ROWS = 100_000


def _line(code: str, comment: str) -> str:
    """A line of YAML with its comment; where the code is long, the comment goes above it."""
    if len(code) < _WIDTH - 1:
        return f"{code:<{_WIDTH}}# {comment}"
    indent = " " * (len(code) - len(code.lstrip()))
    return f"{indent}# {comment}\n{code}"


def _head(draft: Draft, name: str) -> str:
    some = f"the first {draft.rows:,}" if not draft.all_rows else f"all {draft.rows:,}"
    file = Path(draft.files["train"][0]).name
    return "\n".join(
        [
            f"# Drafted from {some} rows of {file} ({draft.megabytes:.1f} MB, {draft.format}).",
            "# Look before you train:  encodery inspect data THIS_FILE   (also: model, config, batch, learning)",
            "# Every key can be changed on the command line: encodery train THIS_FILE training.budget=5m",
            "",
            _line(f"name: {quoted(name)}", "the run's folder is runs/NAME; output: FOLDER puts it elsewhere"),
            _line("seed: 1", "decides all that is random; seeds: 3 runs three times"),
        ]
    )


def quoted(text: str) -> str:
    """A text as YAML writes it on one line; `$` of a variable is escaped."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./\-]*", text) and text.lower() not in {"yes", "no", "true", "false", "null"}
    safe = text.replace("${", "$${")
    return safe if plain and text.lower() not in {"on", "off", "y", "n"} else json.dumps(safe, ensure_ascii=False)


def _data(draft: Draft, files: dict[str, list[str]]) -> str:
    lines = ["data:"]
    for split, why in (
        ("train", "file, folder, glob or hub:owner/name; also a list of them"),
        ("validation", "rows that the weights are chosen by"),
        ("test", "rows that are scored once, at the end"),
    ):
        if split in files:
            paths = [quoted(path) for path in files[split]]
            if draft.format == "folder":
                paths = [f"{{path: {path}, format: folder}}" for path in paths]
                why = f"sub-folders are the labels: {_labels_said(draft)}" if split == "train" else why
            lines.append(_line(f"  {split}: {paths[0] if len(paths) == 1 else '[' + ', '.join(paths) + ']'}", why))
    if "validation" not in files:
        lines.append(_line("  validation_share: 0.1", "kept apart from train, by a hash; or validation: FILE"))
    if draft.group is not None:
        lines.append(_line(f"  group: {quoted(draft.group)}", "rows that have it in common stay on one side"))
    if "test" not in files:
        lines.append(_line("  # test: FILE", "rows that are scored once, at the end"))
    if draft.format not in ("text", "folder") or draft.task != "masked":
        seen = () if draft.tags is None else (draft.tags.tags, draft.tags.spans)
        seen = seen if draft.pointing is None else (draft.pointing.column,)
        others = [column for column in draft.columns if column not in (draft.text, draft.pair, draft.label, *seen)]
        also = f" (columns not used: {', '.join(others[:6])})" if others else ""
        if draft.format not in ("text", "folder"):
            text = quoted(draft.text) if isinstance(draft.text, str) else ", ".join(draft.text)
            lines.append(_line(f"  text: {text}", f"column of the text; [a, b] joins two{also}"))
    if draft.pair:
        key, why = (
            ("pair", "column of the second text of a pair") if draft.pairs is None else pair_line(draft.pairs.kind)
        )
        lines.append(_line(f"  {key}: {quoted(draft.pair)}", why))
    if draft.tags is not None:
        word, column = ("tags", draft.tags.tags) if draft.tags.tags else ("spans", draft.tags.spans or "")
        lines.append(_line(f"  {word}: {quoted(column)}", tags_said(draft.tags)))
    if draft.pointing is not None:
        lines.append(_line(*column_line(draft.pointing, quoted)))
    if draft.label and draft.format != "folder":
        lines.append(_line(f"  label: {quoted(draft.label)}", _labels_said(draft)))
    if draft.task == "multilabel":
        lines.append(_line(f"  label_separator: {quoted(draft.separator)}", "between several labels in one string"))
    if draft.task == "write":
        lines.append(_line("  long: cut", "a source over the limit is cut at its end"))
    if draft.pair is None and draft.pointing is None:
        lines.append(_line("  long: split", "a text over the limit is split and its answers averaged; or cut"))
    lines.append(_line("  bad_rows: skip", "counted and shown with their lines; refuse stops at the first"))
    return "\n".join(lines)


def _labels_said(draft: Draft) -> str:
    if draft.pointing is not None:
        return "column that says which option is right: its number from 0, letter or text"
    if not draft.labels:
        return "column of the number to predict"
    shown = ", ".join(f"{label[:20]} ({count:,})" for label, count in draft.labels.most_common(3))
    more = f", and {len(draft.labels) - 3} more" if len(draft.labels) > 3 else ""
    return f"{len(draft.labels)} labels: {shown}{more}".replace("\n", " ")


def _tokenizer(draft: Draft) -> str:
    size = draft.megabytes
    vocabulary = 4000 if size < 1 else 8000 if size < 20 else 16_000 if size < 200 else 32_000
    language = draft.language if draft.language not in ("unknown", "latin") else "auto"
    # What is tagged character by character is read character by character: figures and Latin words too.
    kind = "characters" if draft.tags is not None and draft.tags.units == "characters" else "wordpiece"
    kind = "byte_bpe" if draft.task == "write" else kind  # what is written must be text again, to the letter
    return "\n".join(
        [
            "tokenizer:",
            _line(f"  kind: {kind}", "or bpe, byte_bpe (nothing is unknown), unigram, bytes, characters"),
            *([_line("  lowercase: false", "capitals tell names")] if draft.task == "tag" else []),
            _line(f"  vocab_size: {vocabulary}", f"fits {size:.1f} MB of text; more text bears more"),
            _line(f"  language: {language}", "rules of normalisation; auto looks at the script"),
        ]
    )


def _encoder(draft: Draft) -> str:
    size = draft.megabytes
    preset = "tiny" if size < 0.5 else "mini" if size < 100 else "small" if size < 2000 else "base"
    return "\n".join(
        [
            "encoder:",
            _line(f"  preset: {preset}", "tiny 2x128, mini 4x256, small 6x384, base 12x768, large 24x1024"),
            _line(
                f"  max_length: {draft.max_length}", f"99 % of the texts have up to {draft.long_tokens} tokens, about"
            ),
        ]
    )


def _pretraining(minutes: str) -> list[str]:
    return [
        _line("pretrain:", "first learn the language, without labels; or remove it"),
        "  training:",
        _line(f"    budget: {minutes}", "longer is better up to hours; also in steps, tokens or epochs"),
        _line("  # data: [MORE_TEXT.txt]", "further unlabelled text of the same kind helps most"),
        "",
    ]


def _training(epochs: int, *, rate: str, firm: bool = False) -> list[str]:
    firmer = [
        _line("  # adversarial: 0.03", "words moved a little against the model; takes twice the time"),
        _line("  # consistency: 1", "R-Drop: two answers under dropout should agree; takes twice the time"),
    ]
    return [
        "",
        "training:",
        _line(f"  budget: {epochs} epochs", "or 5m, 2000 steps, 5M tokens; the schedule is stretched over it"),
        _line("  batch_tokens: 2048", "positions of a batch; small sets learn more from many small ones"),
        _line(f"  optim: {{lr: {rate}}}", "lower it when the loss jumps"),
        *(firmer if firm else []),
        "",
    ]


def _objective(draft: Draft) -> str:
    size = draft.megabytes
    minutes = "1m" if size < 0.5 else "3m" if size < 5 else "10m" if size < 50 else "1h"
    if draft.task == "masked":
        return "\n".join(
            [
                _line("objective: masked", "hide some tokens, guess them from the rest; needs no labels"),
                "",
                "training:",
                _line(f"  budget: {minutes}", "or 2000 steps, 5M tokens, 3 epochs; the schedule is stretched over it"),
                _line("  batch_tokens: 2048", "positions of a batch; small batches learn faster at first"),
                "  optim:",
                _line("    kind: muon", "learns faster than adamw here"),
                _line("    schedule: linear", "or cosine, wsd, constant"),
            ]
        )
    if draft.task == "tag":
        return _tagging(draft, minutes)
    if draft.pairs is not None:
        epochs = 10 if draft.rows < 20_000 else 3
        given = pairs_lines(draft.pairs.kind, minutes, epochs, numbers=draft.label is not None)
        return "\n".join(_line(*line) if line[1] else line[0] for line in given)
    if draft.pointing is not None:
        return _pointing(draft, draft.pointing, minutes)
    epochs = 10 if draft.rows < 5000 else 5 if draft.rows < 20_000 else 3
    lines = [
        *_pretraining(minutes),
        "objective:",
        _line(f"  kind: {draft.task}", "one label; multilabel: several; ordinal: in order; regress: a number"),
        _line("  pooling: mean", "how a text becomes one vector: mean, first, max, attention"),
    ]
    if draft.rows < FEW_ROWS and draft.task != "ordinal":
        letters = 3 if draft.language in UNSPACED_LANGUAGES else 6
        lines += [
            _line("  ngrams: 2", "a linear answer beside the encoder's; with few labels it helps much"),
            _line(f"  letters: {letters}", "it reads runs of letters too"),
        ]
    if draft.task not in ("regress", "ordinal"):
        lines.append(_line("  class_weights: none", "balanced helps when a class is rare"))
    lines += [
        *_training(epochs, rate="5e-4", firm=draft.task != "ordinal"),
        "evaluation:",
        _line("  compare: [majority, tfidf, scratch]", "what the result must beat; scratch: without pretraining"),
    ]
    return "\n".join(lines)


def _pointing(draft: Draft, seen: PointingSeen, minutes: str) -> str:
    epochs = 10 if draft.rows < 5000 else 5 if draft.rows < 20_000 else 3
    lines = [
        *_pretraining(minutes),
    ]
    return "\n".join(lines + [_line(*line) if line[1] else line[0] for line in pointing_lines(seen, epochs)])


def _tagging(draft: Draft, minutes: str) -> str:
    assert draft.tags is not None
    seen = draft.tags
    epochs = 30 if draft.rows < 5000 else 15 if draft.rows < 20_000 else 6
    lines = [
        *_pretraining(minutes),
        "objective:",
        _line("  kind: tag", "a tag for every word or character, and the spans they mark"),
        _line("  scheme: auto", "none, iob1, bio, bioes, bmes; auto mends and counts what does not fit"),
        _line(f"  units: {seen.units}", "characters: every word is a span of its characters, as in Chinese"),
        _line("  crf: true", "learns which tags follow which"),
        _line("  linear: true", "a linear answer beside the encoder's, from words and affixes; it knows rare words"),
    ]
    if draft.label:
        lines.append(_line("  intent: true", "the class of the whole text is learned beside the tags"))
    lines += [
        *_training(epochs, rate="1e-3"),
        "evaluation:",
        _line(
            "  compare: [majority, word, linear, scratch]", "what the result must beat; scratch: without pretraining"
        ),
    ]
    return "\n".join(lines)
