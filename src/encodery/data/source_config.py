"""The `data:` part of a recipe: the sources of each split and the columns that matter."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from encodery.config import Config
from encodery.data.knowledge import KnowledgeConfig
from encodery.data.places import suffix_format
from encodery.errors import DataError
from encodery.typed_paths import a_path

Split = Literal["train", "validation", "test"]


class SourceConfig(Config):
    """One place rows come from. A bare string is taken as its path."""

    path: Annotated[str, Field(min_length=1), a_path]
    """File, folder, glob, or `hub:owner/name[:config][@split]`; .gz and .zst are unpacked while reading."""
    format: Literal["auto", "text", "csv", "tsv", "jsonl", "json", "parquet", "folder"] = "auto"
    """`auto`: told by the suffix. `folder`: folder/LABEL/x.txt, one text a file, its label the sub-folder."""
    documents: Literal["line", "blank", "file"] = "line"
    """Plain text: one document a line, separated by blank lines, or one a file."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often each row appears in an epoch of training: 2 twice, 0.5 half of the rows, 1.5 all and half of
    them again. Which half is told by a hash of the text. Validation and test data are never weighted."""
    text: str | list[str] | None = None
    """Column of the text for this source alone (none: as `data.text` says)."""
    pair: str | None = None
    """Column of the second text for this source alone (none: as `data.pair` says)."""
    label: str | None = None
    """Column of the label for this source alone (none: as `data.label` says)."""
    group: str | None = None
    """Column of the group for this source alone (none: as `data.group` says, and no group for what `pretrain`
    adds; '': its rows have no group)."""
    encoding: str = "utf-8"
    """Of the characters: utf-8, utf-16, gb18030, latin-1, shift_jis, ..."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """csv and tsv: the character between fields (none: a comma, for tsv a tab)."""
    quotes: Literal["auto", "yes", "no"] = "auto"
    """csv and tsv: whether a field may stand in double quotes. auto: yes in csv; in tsv a field wholly in
    quotes loses them, and a line is always one row. yes: a quoted field may hold the delimiter and line
    breaks."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=name)
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f"'{name}' is no text encoding; common ones are utf-8, utf-16, gb18030, latin-1") from None

    @field_validator("text")
    @classmethod
    def _some_text(cls, text: str | list[str] | None) -> str | list[str] | None:
        return _not_empty(text)


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str | dict | SourceConfig) else given


def _not_empty(text: Any) -> Any:
    if text == "" or text == []:
        raise ValueError("at least one column name is needed")
    return text


Sources = Annotated[list[SourceConfig], BeforeValidator(_as_list), Field(min_length=1)]


class DataConfig(Config):
    """The data of a run: sources for training, validation and test, and the columns that matter."""

    train: Sources
    """A path, or a list of paths and of objects with `path`, `weight`, `format`, ..."""
    validation: Sources | None = None
    """Rows that choices are made by. Missing: a share of the training rows is kept apart for it."""
    test: Sources | None = None
    """Rows that the result is measured on, once."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Used when `validation` is missing: the share of training rows kept apart, chosen by a hash of the text
    and the seed, so that copies of a text never fall on both sides. 0: no validation."""
    group: str | None = None
    """Column of what rows have in common, such as a patient, a product or a question: when `validation` is
    missing, rows with the same value fall on the same side. Without it, a model may be chosen by how well it
    knows them again."""
    text: str | list[str] = "text"
    """Column of the text; several are joined by one space. Plain text files need none."""
    pair: str | None = None
    """Column of the second text, for tasks on pairs."""
    negatives: str | list[str] | None = None
    """Column, or columns, of texts that look like the second one and are wrong: a text, or a list of texts."""
    label: str | None = None
    """Column of the label; none for unlabelled data and for the format `folder`."""
    target: str | None = None
    """Column of the text that is to be written; a list of texts where several are right."""
    answers: str | None = None
    """Column of the answers to the question that is the pair, each with the place in the text where it begins."""
    choices: str | None = None
    """Column of the options that the label chooses between."""
    tags: str | None = None
    """Column of the tags of words: a list, or one string with spaces between them. `text` then holds a list of words,
    or a text whose words stand between spaces."""
    spans: str | None = None
    """Column of the spans of a text: [[start, stop, label], ...] in characters."""
    label_separator: Annotated[str, Field(min_length=1)] = "|"
    """Several labels a row: what stands between them in one string."""
    long: Literal["split", "cut"] = "split"
    """A text longer than encoder.max_length: split into windows whose answers are averaged, or cut at the
    end. Pairs are always cut. Either way the report counts them."""
    tokens: Literal["cached", "streamed"] = "cached"
    """cached: tokenise once into a file of two to four bytes a token, then shuffle freely. streamed: tokenise
    while training, in the order of the files, shuffled in stretches: for corpora not worth a cache."""
    bad_rows: Literal["skip", "refuse"] = "skip"
    """skip: count bad rows, show where they are and go on; refuse: stop at the first one."""
    bad_rows_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """With `skip`: stop when more than this share of the rows is bad."""

    knowledge: KnowledgeConfig | None = None
    """Entities that the texts mention, and what is known of them; none when left out."""

    @field_validator("text")
    @classmethod
    def _some_text(cls, text: str | list[str]) -> str | list[str]:
        return _not_empty(text)

    @model_validator(mode="after")
    def _mentions_of_one_column(self) -> DataConfig:
        texts = [self.text, *(source.text for source in (*self.train, *(self.validation or ()), *(self.test or ())))]
        if self.knowledge is not None and self.knowledge.mentions and any(isinstance(text, list) for text in texts):
            raise ValueError("knowledge.mentions counts the characters of one column: text cannot be several")
        return self


def with_more(data: DataConfig, more: list[SourceConfig]) -> DataConfig:
    """The data with more training sources. Where the rows are pairs, a source that is plain text, or names a column for
    its text and none for a second one, has single texts; each text of a pair is then a row of its own as well."""
    single = [source.pair is None and (source.text is not None or _plain(source)) for source in more]
    more = [source if source.group is not None else source.model_copy(update={"group": ""}) for source in more]
    if data.pair is None or not any(single):
        return data.model_copy(update={"train": [*data.train, *more]})
    of_pairs = data.model_copy(update={"train": [source for source, alone in zip(more, single) if not alone]})
    apart = texts_apart(data)
    train = [*apart.train, *texts_apart(of_pairs).train, *(source for source, alone in zip(more, single) if alone)]
    return apart.model_copy(update={"train": train})


def _plain(source: SourceConfig) -> bool:
    known = suffix_format(Path(source.path)) if source.format == "auto" else source.format
    return known == "text"


def texts_apart(data: DataConfig) -> DataConfig:
    """The same data with each text of a pair as a row of its own: what is learned without labels from pairs that are
    not read together."""

    def apart(sources: list[SourceConfig] | None) -> list[SourceConfig] | None:
        if sources is None:
            return None
        found = []
        for source in sources:
            found.append(source.model_copy(update={"pair": None}))
            if (pair := source.pair or data.pair) is not None:
                found.append(source.model_copy(update={"pair": None, "text": pair}))
        return found

    splits = {name: apart(getattr(data, name)) for name in ("train", "validation", "test")}
    return data.model_copy(update={**splits, "pair": None})


def has_split(data: DataConfig, split: Split) -> bool:
    """Whether `read_rows` can give this split."""
    if split == "train":
        return True
    if split == "test":
        return data.test is not None
    return data.validation is not None or data.validation_share > 0


def sources_of(data: DataConfig, split: Split) -> tuple[list[SourceConfig], Split | None]:
    """The sources to read, and the side of the training rows to keep when the split has to be made."""
    if not has_split(data, split):
        advice = "add `data.test:` with the path of rows that were not trained on"
        if split == "validation":
            advice = "add `data.validation:` with a path, or set `data.validation_share` above 0"
        raise DataError(f"the recipe has no {split} data", expected=f"`data.{split}:`", fix=advice)
    if split == "test":
        assert data.test is not None
        return data.test, None
    if split == "validation" and data.validation is not None:
        return data.validation, None
    made = data.validation is None and data.validation_share > 0
    return data.train, split if made else None
