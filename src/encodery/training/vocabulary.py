"""A tokenizer on its own: trained on files, measured on texts it has not seen, written as one tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from encodery.config import load_config
from encodery.data.corpus import Reading
from encodery.data.coverage import Coverage, coverage
from encodery.data.sources import DataConfig
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.durable import replace_file
from encodery.errors import ConfigError

HELD_OUT = 0.05
_MEASURED_TEXTS = 5000


@dataclass(frozen=True)
class MadeTokenizer:
    """The tokenizer, where it lies, and how it fits held-out texts (None when there were too few)."""

    tokenizer: Tokenizer
    path: Path
    coverage: Coverage | None
    example: tuple[str, list[str]] | None


def make_tokenizer_file(
    files: Sequence[str],
    output: Path,
    *,
    options: Mapping[str, Any],
    text: str | None = None,
    seed: int = 1,
    on_progress: Callable[[str, float], None] | None = None,
) -> MadeTokenizer:
    """Train on 95 % of the rows, measure on the others, write `output` (a .json file, or a folder for it).

    `options` are those of TokenizerConfig; None leaves the default. Raises ConfigError for wrong options and when
    the file exists already or cannot be written, DataError for files that cannot be read.
    """
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    config = load_config(TokenizerConfig, None, given, environment={}).config
    path = output if output.suffix == ".json" else output / "tokenizer.json"
    if path.exists():
        raise ConfigError(f"{path} exists already and is left as it is", fix="choose another place with --output")
    data = DataConfig.model_validate({"train": list(files), "validation_share": HELD_OUT, "text": text or "text"})
    reading = Reading(data, Path(), seed, "none", Path())
    tokenizer = train_tokenizer(reading.texts("train"), config, seed=seed, on_progress=on_progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, tokenizer.to_json().encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", fix="choose another place: --output") from error
    held = _held(reading)
    example = None
    if held:
        short = min(held[:100], key=lambda one: abs(len(one) - 80))
        example = (short, tokenizer.tokens(tokenizer.encode_batch([short])[0].ids))
    return MadeTokenizer(tokenizer, path, coverage(tokenizer, held) if held else None, example)


def _held(reading: Reading) -> list[str]:
    """Held-out texts; none when no row fell to them (a handful of rows)."""
    from encodery.errors import DataError

    try:
        return list(islice(reading.texts("validation"), _MEASURED_TEXTS))
    except DataError:
        return []
