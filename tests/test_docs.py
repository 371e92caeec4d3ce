"""What README and the pages say is true: blocks run, recipes load, commands, links and drawn parts exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

from encodery.cli import app
from encodery.config import load_config
from encodery.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
TEXTBOOK = ROOT / "docs" / "encoder"

# Laid over whatever a page trains, so that it takes seconds.
SMALL = [
    "encoder=tiny",
    "encoder.max_length=64",
    "encoder.depth=1",
    "tokenizer.vocab_size=300",
    "training.budget=10 steps",
    "training.batch_tokens=256",
    "evaluation.resamples=100",
]
SMALL_PRETRAINING = ["pretrain.training.budget=5 steps", "pretrain.training.batch_tokens=256"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the `<!-- test: ... -->` line above it, and what the page says
    that it prints, in a ```text block of its own below `<!-- prints -->`."""

    page: Path
    line: int
    language: str
    text: str
    note: str
    prints: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


FENCE = re.compile(
    r"(?:<!-- test: (?P<note>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"(?:\n\n<!-- prints -->\n```text\n(?P<prints>.*?)^```$)?",
    re.M | re.S,
)


def blocks(*languages: str) -> Iterator[Block]:
    for page in PAGES:
        # Quoted source is no program: its lines are kept, so that numbers of lines stay right, but empty.
        content = re.sub(
            r"<!-- code: .*?<!-- /code -->",
            lambda quote: "\n" * quote[0].count("\n"),
            page.read_text(encoding="utf-8"),
            flags=re.S,
        )
        for found in FENCE.finditer(content):
            if found["language"] in languages:
                line = content.count("\n", 0, found.start("text")) + 1
                yield Block(page, line, found["language"], found["text"], found["note"] or "", found["prints"])


def commands(text: str) -> list[list[str]]:
    """The lines of a shell block as words, comments left out."""
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up data of the names that the pages use."""
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(1)
    topics = {"delivery": ["parcel", "van", "late", "lost"], "payment": ["card", "bill", "twice", "refund"]}
    lines = ["text,topic"]
    for _ in range(120):
        topic = str(rng.choice(list(topics)))
        words = [*rng.choice(topics[topic], size=int(rng.integers(2, 5))), *rng.choice(["my", "the", "please"], size=3)]
        lines.append(f"{' '.join(rng.permutation(words))},{topic}")
    (folder / "my.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "more-text.txt").write_text("\n".join(line.split(",")[0] for line in lines[1:]), encoding="utf-8")
    (folder / "messages.txt").write_text("my parcel is late\nthe card was charged twice\n", encoding="utf-8")
    return folder


def run(words: list[str], folder: Path) -> str:
    """Run `encodery ...` in `folder`; what it printed."""
    assert words[0] == "encodery", f"not a command of ours: {words[0]}"
    if words[1] == "train":
        has_pretraining = "pretrain" in yaml.safe_load((folder / words[2]).read_text(encoding="utf-8"))
        words = [*words, *SMALL, *(SMALL_PRETRAINING if has_pretraining else [])]
    done = subprocess.run(
        [sys.executable, "-m", "encodery", *words[1:]], cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, f"{shlex.join(words)} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def mine(place: Path) -> Path:
    """`place` after README's first use: new, train, predict, with tiny budgets."""
    (block,) = [block for block in blocks("sh") if block.note == "first use"]
    said = [run(words, place) for words in commands(block.text)]
    assert '"label"' in said[-1], "predict answered without a label"
    return place


def test_first_use_of_the_readme(mine: Path) -> None:
    recipe = (mine / "recipe.yaml").read_text(encoding="utf-8")
    assert "#" in recipe, "the recipe for one's own file is commented"
    made = {file.name for file in (mine / "runs" / "mine").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "card.md", "metrics.json", "report.html"} <= made


PYTHON = list(blocks("python"))


@pytest.mark.parametrize("block", [block for block in PYTHON if block.page.parent != TEXTBOOK], ids=str)
def test_python_runs(block: Block, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine)
    given = yaml.safe_load((mine / "recipe.yaml").read_text(encoding="utf-8"))
    small = SMALL + (SMALL_PRETRAINING if "pretrain" in given else [])
    text = block.text.replace('"output=runs/mine-again"', ", ".join(map(repr, ["output=runs/mine-again", *small])))
    exec(compile(text, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", [block for block in PYTHON if block.page.parent == TEXTBOOK], ids=str)
def test_snippets_print_what_the_page_says(
    block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages about the encoder: every snippet is short and prints what stands below it. Where that varies, the page
    says so in a note, and only the first word of each line is compared."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert block.prints is not None, f"{block} does not show what it prints:\n{printed}"
    said, shown = printed, block.prints
    if block.note.startswith("varies"):
        said, shown = ("\n".join(line.split()[0] for line in text.splitlines()) for text in (said, shown))
    assert same_but_for_rounding(said, shown), f"{block} prints:\n{printed}\nthe page says:\n{block.prints}"
    assert len([line for line in block.text.splitlines() if line.strip()]) <= 15


def same_but_for_rounding(one: str, other: str) -> bool:
    """Whether two outputs have the same words, and numbers that differ by 3 % or two of the last digit at most."""
    number = re.compile(r"-?\d+(?:\.(\d+))?(?:e[-+]?\d+)?")
    if re.split(r"\s+", number.sub("#", one).strip()) != re.split(r"\s+", number.sub("#", other).strip()):
        return False
    for mine, theirs in zip(number.finditer(one), number.finditer(other)):
        step = 2 * 10.0 ** -len(theirs[1]) if theirs[1] else 0.0
        if abs(float(mine[0]) - float(theirs[0])) > max(step, 0.03 * abs(float(theirs[0]))):
            return False
    return True


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("loss 4.01\n", "loss  4.00", True),
        ("loss 4.31", "loss 4.00", False),
        ("12 keys", "12 tokens", False),
        ("12 keys", "17 keys", False),
        ("1 2", "1", False),
        ("-0.001", "0.001", True),
    ],
)
def test_what_counts_as_the_same_output(one: str, other: str, same: bool) -> None:
    assert same_but_for_rounding(one, other) == same


@pytest.mark.parametrize("block", list(blocks("yaml")), ids=str)
def test_recipes_load(block: Block, tmp_path: Path) -> None:
    """Whole recipes, and parts of one laid over the least that a recipe needs."""
    file = tmp_path / "recipe.yaml"
    file.write_text(block.text, encoding="utf-8")
    least = {"data": {"train": "my.csv"}}
    if "objective" not in (yaml.safe_load(block.text) or {}):
        least["objective"] = "classify"  # type: ignore[assignment]
    load_config(Recipe, file, [], environment={}, defaults=least)


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_recipes_load_and_say_how_they_are_run(file: Path) -> None:
    resolved = load_config(Recipe, file, [], environment={"ENCODERY_DATA": "/data", "MADE": "/made"})
    assert resolved.config.name
    head = "\n".join(line for line in file.read_text(encoding="utf-8").splitlines()[:15] if line.startswith("#"))
    assert f"encodery train recipes/{file.name}" in head, "the head of a recipe shows the command that runs it"


VERBS = typer.main.get_command(app)


@pytest.mark.parametrize("block", list(blocks("sh")), ids=str)
def test_commands_exist(block: Block) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for words in commands(block.text):
        if words[0] == "make":
            named = [word for word in words[1:] if "=" not in word]
            assert set(named) <= targets, f"no such target: {shlex.join(words)}"
        elif words[0] == "encodery":
            verb = VERBS.commands.get(words[1])  # type: ignore[attr-defined]
            if isinstance(verb, typer.core.TyperGroup):
                verb = verb.commands.get(words.pop(2))
            assert verb is not None, f"no such command: {shlex.join(words)}"
            known = {name for parameter in verb.params for name in parameter.opts}
            assert {word for word in words[2:] if word.startswith("-")} <= known, f"no such option: {shlex.join(words)}"
            if words[1] in ("train", "inspect"):
                given = [word for word in words[3:] if not word.startswith("-")]
                defaults = {"data": {"train": "my.csv"}, "objective": "classify", "pretrain": {}}
                load_config(Recipe, None, given, environment={}, defaults=defaults)


INSPECTING = [words for block in blocks("sh") for words in commands(block.text) if words[1] in ("inspect", "evaluate")]


@pytest.mark.parametrize("words", INSPECTING, ids=shlex.join)
def test_looking_as_the_pages_say(words: list[str], mine: Path) -> None:
    """`inspect` and `evaluate` run as they stand there, and say something."""
    assert len(run(words, mine).splitlines()) > 3


def test_predict_as_the_page_says(mine: Path) -> None:
    """The commands of the page about use, as they stand there."""
    block = next(block for block in blocks("sh") if block.page == ROOT / "docs" / "07_use.md")
    said = [run(words, mine) for words in commands(block.text)]
    assert len(said[0].splitlines()) == 2
    assert len(said[1].splitlines()) == 2
    assert '"vector"' in said[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#\s]+)", prose)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_files_named_on_the_pages_exist() -> None:
    """`training/loop.py` on a page is a file of the package."""
    for page in PAGES:
        named = re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8"))
        roots = (ROOT, ROOT / "src" / "encodery")
        missing = [name for name in named if not any((root / name).exists() for root in roots)]
        assert not missing, f"{page.name} names {', '.join(missing)}"


def program(name: str) -> ModuleType:
    """A program of the folder docs, as a module."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def generator() -> ModuleType:
    return program("generate")


def test_drawn_parts_are_current() -> None:
    """The file tree of the README, the keys of a recipe and the quoted lines are what the code says."""
    stale = generator().stale()
    assert not stale, f"out of date: {', '.join(stale)}; run: python docs/generate.py"


def test_quotations_are_lines_of_the_source(tmp_path: Path) -> None:
    file = tmp_path / "part.py"
    lines = [
        "class A:",
        '    """It."""',
        "    def f(self, x):",
        '        """Doubles."""',
        "        y = 2 * x",
        "        return y",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    quotation = generator().quotation
    assert quotation(file, "A.f") == "def f(self, x):\n    y = 2 * x\n    return y"
    assert quotation(file, "A.f", "y =", "return") == "y = 2 * x\nreturn y"


@pytest.mark.parametrize(
    "mark",
    ["bricks/nothing.py f", "batch.py nobody", 'batch.py layout_of from "no such line" to "return"'],
)
def test_a_quotation_of_what_is_gone_is_refused(mark: str) -> None:
    with pytest.raises(SystemExit, match=r"missing|has no"):
        generator().quoted(f"<!-- code: {mark} -->\n<!-- /code -->", TEXTBOOK / "page.md")


def test_a_changed_quotation_is_out_of_date() -> None:
    page = TEXTBOOK / "page.md"
    drawn = generator().quoted("<!-- code: batch.py Layout.positions -->\n<!-- /code -->", page)
    assert "return self.rows * self.length" in drawn
    assert generator().quoted(drawn.replace("self.rows", "rows"), page) == drawn


def test_every_key_has_a_meaning() -> None:
    keys = (ROOT / "docs" / "08_recipes.md").read_text(encoding="utf-8").split("<!-- keys -->")[1]
    silent = [row for row in re.findall(r"^\| `\w+` .*\|  \|$", keys, re.M) if not row.startswith("| `kind`")]
    assert not silent


def test_pictures_are_those_that_the_pages_show() -> None:
    drawn = {f"{one.__name__}.png" for one in program("pictures").DRAWN}
    folder = ROOT / "docs" / "images" / "encoder"
    assert {file.name for file in folder.iterdir()} == drawn
    shown = re.findall(r"images/encoder/(\w+\.png)", "".join(page.read_text(encoding="utf-8") for page in PAGES))
    assert set(shown) == drawn
    assert not {file.name for file in folder.iterdir() if file.stat().st_size > 60_000}


UNTRAINED = [one.__name__ for one in program("pictures").DRAWN if one.__name__ not in program("pictures").TRAINED]


@pytest.mark.parametrize("name", UNTRAINED)
def test_pictures_are_what_the_code_draws(name: str, tmp_path: Path) -> None:
    """Those that need no training, drawn anew; fonts may differ a little from machine to machine."""
    file = program("pictures").draw(name, tmp_path)
    anew, kept = (
        np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        for path in (file, ROOT / "docs" / "images" / "encoder" / file.name)
    )
    assert abs(anew.shape[0] - kept.shape[0]) <= 8 and abs(anew.shape[1] - kept.shape[1]) <= 8
    height, width = np.minimum(anew.shape, kept.shape)
    assert np.abs(anew[:height, :width] - kept[:height, :width]).mean() < 4, "run: python docs/pictures.py"


def lines_of(page: str) -> list[list[str]]:
    """The cells of every line of every table of a page that has a name, without stars."""
    lines = (ROOT / page).read_text(encoding="utf-8").replace("**", "").splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells for cells in found if cells[0].strip("- ")]


def test_figures_of_the_readme_are_those_of_the_bench() -> None:
    """Each result with its interval stands in the line of its set, and so do the minutes."""
    measured: dict[str, str] = {}
    for cells in lines_of("bench/quality/RESULTS.md"):
        measured[cells[0]] = measured.get(cells[0], "") + " | ".join(cells)
    checked = 0
    for name, *cells in (cells for cells in lines_of("README.md") if cells[0].split()[0] in measured):
        line = measured[name.split()[0]]
        for figure in cells[:2]:
            assert figure in line, f"{name}: {figure} is not in bench/quality/RESULTS.md"
        assert f" {cells[2].split()[0]} " in line, f"{name}: {cells[2]}"
        checked += 1
    assert checked >= 14


def test_what_five_minutes_are_worth_is_what_the_bench_found() -> None:
    measured = {cells[0].split(" (")[0]: cells for cells in lines_of("bench/pretraining/RESULTS.md")}
    called = {
        "embeddings from co-occurrence counts alone": "co-occurrence alone",
        "masked tokens, blocks that grow": "3 blocks, grown from 1",
    }
    checked = 0
    for name, *figures in lines_of("docs/04_objectives.md"):
        name = name.split(" (")[0]
        row = measured.get(called.get(name, name))
        if row is not None and len(figures) == 4:
            assert figures == [cell.split(" (")[0] for cell in row[1:5]], name
            checked += 1
    assert checked == 11
