"""Recipes: every mistake is named with its line, all at once; every value knows its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from encodery.config import Config, Count, Duration, Resolved, explain, load_config, problems_of
from encodery.errors import ConfigError
from encodery.typed_paths import a_path
from encodery.yaml_tree import read_yaml, to_yaml


class Transformer(Config):
    kind: Literal["transformer"] = "transformer"
    preset: str | None = None
    depth: int = Field(default=6, gt=0)
    width: int
    rates: dict[str, float] = Field(default_factory=dict)
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"depth": 4, "width": 128, "rates": {"dropout": 0.1}},
        "tiny": {"depth": 2, "width": 64},
    }


class Recurrent(Config):
    kind: Literal["recurrent"] = "recurrent"
    hidden: int = 5


class Training(Config):
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    budget: Duration | None = None
    tokens: Count = 4096
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    steps: int | None = None
    compile: bool = False


class Source(Config):
    shorthand: ClassVar[str] = "path"
    path: str
    weight: float = 1.0


class Data(Config):
    train: list[Source]
    text: str | list[str] = "text"

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("train"), str | dict):
            return {**given, "train": [given["train"]]}
        return given


class Run(Config):
    data: Data
    encoder: Annotated[Transformer | Recurrent, Field(discriminator="kind")] = Transformer(preset="tiny", width=64)
    training: Training = Training()
    second: Training = Training(steps=7, precision="fp32")


def load(tmp_path: Path, text: str, *overrides: str, **environment: str) -> Resolved[Run]:
    recipe = tmp_path / "x.yaml"
    recipe.write_text(text, encoding="utf-8")
    return load_config(Run, recipe, overrides, environment=environment)


def complaint(tmp_path: Path, text: str, *overrides: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides, **environment)
    lines = str(caught.value).replace(str(tmp_path) + "/", "").splitlines()
    return [line.strip() for line in lines[1:]]


good = "data:\n  train: a.txt\n"


def test_all_problems_come_at_once_with_line_key_value_and_expectation(tmp_path: Path) -> None:
    text = """data:
  train: [a.txt, {weigth: 3}]
  text: [1, a]
encoder:
  kind: transformer
  dept: 3
lr: 3
training:
  lr: -1
  budget: 10x
  precision: bf61
  steps: true
  tokens: many
  compile: perhaps
"""
    found = complaint(tmp_path, text, "training.stepss=3", "foo", "training.lr=abc")
    expected = [
        ("x.yaml:2: data.train.1.path: missing", ""),
        ("x.yaml:2: data.train.1.weigth: unknown key", "did you mean 'weight'"),
        ("x.yaml:3: data.text.0: 1 does not fit", "expected text"),
        ("x.yaml:6: encoder.dept: unknown key", "did you mean 'depth'"),
        ("x.yaml:7: lr: unknown key", "did you mean 'training.lr'"),
        ("x.yaml:10: training.budget: '10x'", "90s, 10m, 1h30m"),
        ("x.yaml:11: training.precision: 'bf61'", "did you mean 'bf16'"),
        ("x.yaml:12: training.steps: true does not fit", "a whole number"),
        ("x.yaml:13: training.tokens: 'many'", "8k"),
        ("x.yaml:14: training.compile: 'perhaps'", "true or false"),
        ("command line: foo: not an override", "key=value"),
        ("command line: training.lr=abc: training.lr: 'abc' does not fit", "a number"),
        ("command line: training.stepss=3: training.stepss: unknown key", "did you mean 'steps'"),
    ]
    assert len(found) == len(expected)
    for line, (start, part) in zip(found, expected, strict=True):
        assert line.startswith(start)
        assert part in line


def test_out_of_range_names_the_bound(tmp_path: Path) -> None:
    assert complaint(tmp_path, good + "training:\n  lr: -1\n") == [
        "x.yaml:4: training.lr: -1 does not fit; expected greater than 0"
    ]
    (line,) = complaint(tmp_path, good + "training:\n  lr: .inf\n")
    assert line.startswith("x.yaml:4: training.lr: inf")


def test_missing_section_is_named_with_the_recipe(tmp_path: Path) -> None:
    assert complaint(tmp_path, "training: {lr: 1e-3}\n") == ["x.yaml: data: missing; expected a value"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("data: [a\n", "x.yaml:2: syntax:"),
        ("data:\n\ttrain: a\n", "x.yaml:2: syntax:"),
        ("a: b: c\n", "x.yaml:1: syntax:"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: syntax:"),
        ("a: *nobody\n", "x.yaml:1: syntax:"),
        ("a: \x00\n", "x.yaml: syntax:"),
        (
            good + "training:\n  lr: 1\n  lr: 2\n",
            "x.yaml:5: training.lr: the key is written twice, first on line 4",
        ),
        (good + "training: !!python/object:os.system {}\n", "x.yaml:3: training"),
        (good + "training: {lr: !!timestamp 2001-01-01}\n", "x.yaml:3: training.lr: the tag"),
        (good + "training: &a {lr: *a}\n", "x.yaml:3: training.lr: an alias that contains itself"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, start: str) -> None:
    assert any(line.startswith(start) for line in complaint(tmp_path, text))


def test_aliases_that_explode_are_stopped(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert any("aliases that expand" in line for line in complaint(tmp_path, "\n".join(lines)))


def test_core_schema_scalars() -> None:
    text = "{a: 1e-3, b: no, c: yes, d: on, e: 010, f: 0x1F, g: 0o17, h: ~, i: TRUE, j: .5, k: 1_000, l: -.INF, "
    text += "m: 1:30}"
    problems: list[Any] = []
    node = read_yaml(text, "x", problems)
    assert node is not None
    assert not problems
    assert node.plain() == {
        "a": 1e-3, "b": "no", "c": "yes", "d": "on", "e": 10, "f": 31, "g": 15, "h": None,
        "i": True, "j": 0.5, "k": "1_000", "l": float("-inf"), "m": "1:30",
    }  # fmt: skip


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(
    st.dictionaries(
        st.text(),
        st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
    )
)
def test_written_yaml_reads_back_the_same(value: dict[str, Any]) -> None:
    problems: list[Any] = []
    node = read_yaml(to_yaml(value), "x", problems)
    assert node is not None
    assert not problems
    assert node.plain() == value


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = good + "encoder: &e {kind: transformer, depth: 3, width: 8}\n"
    assert load(tmp_path, text).config.encoder == Transformer(preset="tiny", depth=3, width=8)
    text = "data:\n  train:\n    - &s {path: a, weight: 2}\n    - {<<: *s, path: b}\n"
    assert load(tmp_path, text).config.data.train == [Source(path="a", weight=2), Source(path="b", weight=2)]


def test_environment(tmp_path: Path) -> None:
    resolved = load(tmp_path, "data:\n  train: ${ROOT}/a.txt\n  text: $${ROOT}\n", ROOT="/d")
    assert resolved.config.data == Data(train=[Source(path="/d/a.txt")], text="${ROOT}")
    (line,) = complaint(tmp_path, "data:\n  train: ${ROOT}/a.txt\n", OTHER="/d")
    assert line.startswith("x.yaml:2: data.train: the environment variable ROOT is not set")
    assert "export ROOT=" in line
    (line,) = complaint(tmp_path, "data:\n  train: ${ROOT}/a.txt\n")
    assert "environment=os.environ" in line
    assert load(tmp_path, good, "data.text=${T}", T="body").config.data.text == "body"


def test_overrides(tmp_path: Path) -> None:
    text = good + "encoder: {preset: small, width: 9}\ntraining: {lr: 1, steps: 5}\n"
    config = load(
        tmp_path, text,
        "training.lr=3e-4", "data.train=[b.txt,c.txt]", "training.steps=", "encoder={depth: 3}",
        "data.train.1.weight=2", "training.budget=1h30m",
    ).config  # fmt: skip
    assert config.training.lr == 3e-4
    assert config.training.steps is None
    assert config.training.budget == 5400
    assert config.data.train == [Source(path="b.txt"), Source(path="c.txt", weight=2)]
    assert config.encoder == Transformer(preset="small", depth=3, width=9, rates={"dropout": 0.1})


class Place(Config):
    shorthand: ClassVar[str] = "path"
    path: Annotated[str, a_path]
    column: str = "text"


class Places(Config):
    model: Annotated[str | None, a_path] = None
    name: str = ""
    train: list[Place] = Field(default_factory=list)


def test_paths_of_an_override_are_meant_from_where_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "x.yaml"
    recipe.write_text("model: written\nname: run\ntrain: [{path: a.csv}, {path: b.csv}, {path: c.csv}]\n")
    monkeypatch.chdir(tmp_path)
    typed = ["name=my.csv", "train.0=my.csv", "train.1.path=recipes/in/*.csv", "train.2.column=body"]
    resolved = load_config(Places, recipe, typed, environment={})
    found = resolved.config
    assert (found.model, found.name) == ("written", "my.csv")  # what is no path stays, and what the recipe says
    assert [place.path for place in found.train] == [str(tmp_path / "my.csv"), "in/*.csv", "c.csv"]
    assert found.train[2].column == "body" and resolved.sources["train.0.path"] == "command line"
    others = ["model=../m", "train=[{path: /a}, {path: 'hub:me/set'}]"]
    found = load_config(Places, recipe, others, environment={}).config
    assert found.model == str(tmp_path.parent / "m") and [place.path for place in found.train] == ["/a", "hub:me/set"]
    monkeypatch.chdir(tmp_path / "recipes")
    assert load_config(Places, Path("x.yaml"), ["model=m"], environment={}).config.model == "m"


def test_an_override_without_a_place(tmp_path: Path) -> None:
    found = complaint(tmp_path, good + "training: {lr: 1}\n", "training.lr.x=3", "data.train.x=1", "a..b=1", "lr=[")
    assert "training.lr is 1" in found[0]
    assert "x.yaml:3" in found[0]
    assert found[1].startswith("command line: data.train.x=1: data.train.x: there is no place for it: data.train is")
    assert "not a dotted name" in found[2]
    assert found[3].startswith("command line: lr=[: lr:")


def test_presets_expand_and_are_named_as_the_source(tmp_path: Path) -> None:
    resolved = load(tmp_path, good + "encoder: small\n", "encoder.depth=7")
    assert resolved.config.encoder == Transformer(preset="small", depth=7, width=128, rates={"dropout": 0.1})
    assert resolved.sources["encoder.width"] == "preset small"
    assert resolved.sources["encoder.depth"] == "command line"
    assert resolved.sources["encoder.preset"] == f"{tmp_path}/x.yaml:3"
    assert resolved.sources["training.lr"] == "default"
    changed = load(tmp_path, good + "encoder: small\n", "encoder=tiny").config.encoder
    assert changed == Transformer(preset="tiny", depth=2, width=64)
    other = load(tmp_path, good + "encoder: small\n", "encoder={kind: recurrent, hidden: 3}").config.encoder
    assert other == Recurrent(hidden=3)
    assert load(tmp_path, good + "encoder: recurrent\n").config.encoder == Recurrent()
    text = good + "encoder: {kind: transformer, depth: 3, width: 8}\n"
    assert load(tmp_path, text, "encoder={kind: recurrent}").config.encoder == Recurrent()
    unnamed = good + "encoder: {depth: 3, width: 8}\n"  # of the kind that is the default, by its keys
    assert load(tmp_path, unnamed, "encoder={kind: recurrent}").config.encoder == Recurrent()
    typed = unnamed.replace("depth", "dpeth")
    (line,) = complaint(tmp_path, typed, "encoder={kind: transformer}")
    assert "did you mean 'depth'" in line


def test_a_section_is_laid_over_its_default(tmp_path: Path) -> None:
    resolved = load(tmp_path, good + "second: {steps: 9}\n", "encoder.depth=5")
    assert resolved.config.second == Training(steps=9, precision="fp32")
    assert resolved.sources["second.precision"] == "default"
    assert resolved.config.encoder == Transformer(preset="tiny", width=64, depth=5)
    plain = Run.model_validate({"data": {"train": "a"}, "second": {"lr": 1}, "encoder": {"preset": "small"}})
    assert plain.second == Training(lr=1, steps=7, precision="fp32")
    assert plain.encoder == load(tmp_path, good + "encoder: small\n").config.encoder


def test_presets_in_plain_python() -> None:
    assert Run.model_validate({"data": {"train": "a"}, "encoder": "small"}).encoder == Transformer(
        preset="small", depth=4, width=128, rates={"dropout": 0.1}
    )
    assert Transformer.model_validate({"preset": "tiny", "depth": 9}) == Transformer(preset="tiny", depth=9, width=64)


@pytest.mark.parametrize("written", ["smal", "{preset: smal}", "{kind: transformer, preset: smal}"])
def test_unknown_preset_is_one_problem(tmp_path: Path, written: str) -> None:
    (line,) = complaint(tmp_path, good + f"encoder: {written}\n")
    start = "x.yaml:3: encoder.preset: unknown preset 'smal', did you mean 'small'?"
    assert line == start + "; expected one of small, tiny"


def test_union_messages(tmp_path: Path) -> None:
    (line,) = complaint(tmp_path, good + "encoder:\n  kind: recurent\n")
    start = "x.yaml:4: encoder.kind: unknown kind 'recurent', did you mean 'recurrent'?"
    assert line == start + "; expected one of transformer, recurrent"
    (line,) = complaint(tmp_path, good + "encoder:\n  kind: recurrent\n  hiden: 3\n")
    assert line.startswith("x.yaml:5: encoder.hiden: unknown key, did you mean 'hidden'?")
    (line,) = complaint(tmp_path, good + "encoder: recurent\n")
    assert line.startswith("x.yaml:3: encoder.kind: unknown kind 'recurent', did you mean 'recurrent'?")
    (line,) = complaint(tmp_path, good + "encoder: [1]\n")
    assert line.startswith("x.yaml:3: encoder: [1] does not fit; expected a section")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "agnews.yaml").write_text(good)
    with pytest.raises(ConfigError, match=r"does not exist, did you mean 'agnews\.yaml'"):
        load_config(Run, tmp_path / "agnew.yaml", [], environment={})
    (tmp_path / "x.yaml").write_bytes(b"data:\n  train: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:2: not UTF-8"):
        load_config(Run, tmp_path / "x.yaml", [], environment={})
    (tmp_path / "x.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="the recipe is"):
        load_config(Run, tmp_path / "x.yaml", [], environment={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Run, tmp_path, [], environment={})
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(ConfigError, match="data: missing"):
        load_config(Run, tmp_path / "x.yaml", [], environment={})


def test_without_a_file_and_with_defaults() -> None:
    resolved = load_config(Run, None, ["data.train=a"], environment={}, defaults={"training": {"lr": 0.5, "steps": 3}})
    assert resolved.config.training.lr == 0.5
    assert resolved.sources["training.lr"] == "default"
    assert resolved.sources["data.train.0.path"] == "command line"
    assert resolved.base == Path(".")
    with pytest.raises(ConfigError, match="config: data: missing"):
        load_config(Run, None, [], environment={})


def test_the_resolved_recipe_loads_to_the_same_config(tmp_path: Path) -> None:
    first = load(tmp_path, "data: {train: [a, b], text: 'no'}\nencoder: small\ntraining: {lr: 1e-5, budget: 3m}\n")
    again = load(tmp_path, first.to_yaml())
    assert again.config == first.config
    odd = first.config.model_copy(update={"data": Data(train=[Source(path="${X}: 1e-3\n#")])})
    kept = load(tmp_path, Resolved(odd, {}, tmp_path).to_yaml()).config
    assert kept == odd


def test_explain_lists_every_leaf_with_help(tmp_path: Path) -> None:
    rows = explain(load(tmp_path, good, "training.lr=2"))
    assert ("training.lr", 2.0, "command line", "Peak learning rate.") in rows
    assert [row[0] for row in rows][:3] == ["data.train.0.path", "data.train.0.weight", "data.text"]
    assert rows[0][2] == f"{tmp_path}/x.yaml:2"
    assert rows[1][2] == "default"  # beside a path that was written alone


class Amounts(Config):
    time: Duration = 0
    count: Count = 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10m", 600), ("90s", 90), ("1h30m", 5400), (600, 600), ("600", 600), ("1.5h", 5400), ("2d", 172800),
     ("500ms", 0.5), ("1h 5min", 3900)],
)  # fmt: skip
def test_durations(written: Any, seconds: float) -> None:
    assert Amounts(time=written).time == seconds


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("8k", 8000),
        ("2M", 2_000_000),
        ("1_000_000", 1_000_000),
        (7, 7),
        (1e6, 1_000_000),
        ("1.5M", 1_500_000),
    ],
)
def test_counts(written: Any, count: int) -> None:
    assert Amounts(count=written).count == count


@pytest.mark.parametrize(
    "wrong",
    [{"time": ""}, {"time": "10x"}, {"time": -1}, {"time": True}, {"time": "m"}, {"time": [1]},
     {"time": float("nan")},
     {"count": "1.0005k"}, {"count": 1.5}, {"count": -1}, {"count": True}, {"count": "8 kb"},
     {"count": float("inf")}, {"count": None}],
)  # fmt: skip
def test_wrong_amounts(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Amounts.model_validate(wrong)
    (problem,) = problems_of(caught.value, Amounts)
    assert problem.key in wrong


def test_plain_python_errors_become_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        Run.model_validate({"data": {"train": [{"pth": "a"}]}, "encoder": {"kind": "recurrent", "hidden": "x"}})
    found = {problem.key: str(problem) for problem in problems_of(caught.value, Run)}
    assert set(found) == {"data.train.0.pth", "data.train.0.path", "encoder.hidden"}
    assert "did you mean 'path'" in found["data.train.0.pth"]
    assert len(problems_of(caught.value)) == 3


def test_configs_are_frozen_and_refuse_true_as_a_number() -> None:
    with pytest.raises(ValidationError):
        Training().lr = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Training.model_validate({"steps": True})
