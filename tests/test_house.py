"""The rules of the house: every file says its purpose, stays small, and touches only what its room may touch."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "encodery"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in SOURCES}

MOST_LINES = 600
WANTED_LINES = 400
LONGER = {
    "cli.py": "one function a verb; every verb is here and nowhere else",
    "data/places.py": "every kind of place that rows come from, behind one interface",
}
"""Files over WANTED_LINES, each with the reason why it is still one file."""
MOST_FUNCTION_LINES = 80
REFUSED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "core", "misc"}

# Who may touch what. A folder stands for all files in it.
MAY_PRINT = ("cli.py", "printing.py", "printing_previews.py")
MAY_READ_ENVIRONMENT = ("cli.py", "training/parallel.py")
MAY_OPEN_FILES = (
    "config.py",  # the recipe
    "bundle.py",
    "durable.py",
    "data/places.py",
    "data/lines.py",
    "data/readers.py",
    "data/sources.py",
    "data/streams.py",
    "data/hub.py",
    "data/embedded.py",
    "data/store.py",
    "data/tokenizers.py",
    "training/",
    "evaluation/results.py",  # the name of the processor, from /proc/cpuinfo
    "interop/",  # the folders of other makers
    "use/score.py",  # the figures and the report of an evaluation, where they were asked for
    "cli.py",
)
MAY_DRAW_FROM_TORCH = ("bricks/dropout.py",)
MAY_SEED_TORCH = ("training/",)  # dropout draws from torch's own generator; the loop sets it at every step

_FILE_CALLS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "makedirs", "unlink", "rmdir", "rmtree", "touch",
    "rename", "symlink_to", "hardlink_to", "chmod", "copyfile", "copytree", "mkdtemp", "mkstemp", "TemporaryDirectory",
    "NamedTemporaryFile", "memmap", "fromfile", "tofile", "save_file", "load_file", "open", "fdopen", "fsync",
}  # fmt: skip


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def _allowed(file: Path, places: tuple[str, ...]) -> bool:
    return any(_name(file) == place or (place.endswith("/") and _name(file).startswith(place)) for place in places)


def dotted(node: ast.expr) -> str:
    """`np.random.normal` for the expression of that name; calls and indices inside are left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def imported(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every name a file imports, in full: `torch.nn`, `os.environ`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


# -- what counts as touching ------------------------------------------------------------------------


def printing(tree: ast.AST) -> Iterator[int]:
    for call, name in calls(tree):
        if name in ("print", "input") or name.startswith(("sys.stdout.", "sys.stderr.")):
            yield call.lineno


def environment(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.environb", "os.getenv", "os.putenv"):
            yield node.lineno
    yield from (node.lineno for node, name in imported(tree) if name in ("os.environ", "os.getenv", "os.putenv"))


def file_access(tree: ast.AST) -> Iterator[int]:
    """Contents read or written, folders made, files moved. Asking whether a path exists is not counted."""
    for call, name in calls(tree):
        last = name.rsplit(".", 1)[-1]
        moves = name in ("os.replace", "os.remove", "shutil.move", "shutil.copy", "np.save", "np.load", "np.savez")
        if last in _FILE_CALLS or moves:
            yield call.lineno


def unhanded_randomness(tree: ast.AST) -> Iterator[int]:
    """Draws from a hidden generator: the module-level ones of random and numpy, unseeded new ones, torch's own."""
    torch_draws = {"rand", "randn", "randint", "randperm", "multinomial", "normal", "bernoulli"}
    numpy_makers = (".default_rng", ".Generator", ".PCG64", ".SFC64", ".SeedSequence", ".Philox")
    for call, name in calls(tree):
        given = bool(call.args or call.keywords)
        of_numpy = name.startswith(("np.random.", "numpy.random.")) and not (name.endswith(numpy_makers) and given)
        of_python = name.startswith("random.") and not (name == "random.Random" and given)
        of_torch = name.startswith("torch.") and name.removeprefix("torch.") in torch_draws
        if of_numpy or of_python or (of_torch and all(keyword.arg != "generator" for keyword in call.keywords)):
            yield call.lineno


def torch_seeds(tree: ast.AST) -> Iterator[int]:
    for call, name in calls(tree):
        if name in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"):
            yield call.lineno


def dangerous(tree: ast.AST) -> Iterator[int]:
    """Whatever could run code that came with data: pickles, eval, shells."""
    modules = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "subprocess")
    for node, name in imported(tree):
        if name.split(".")[0] in modules:
            yield node.lineno
    refused = ("eval", "exec", "compile", "__import__", "torch.load", "torch.save", "os.system", "os.popen")
    for call, name in calls(tree):
        pickles = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
        plain = any(isinstance(value, ast.Constant) and value.value is False for value in pickles)
        if name in refused or name.startswith(("yaml.unsafe", "yaml.full")) or (name.endswith("np.load") and not plain):
            yield call.lineno


RULES: list[tuple[Callable[[ast.AST], Iterator[int]], tuple[str, ...]]] = [
    (printing, MAY_PRINT),
    (environment, MAY_READ_ENVIRONMENT),
    (file_access, MAY_OPEN_FILES),
    (unhanded_randomness, MAY_DRAW_FROM_TORCH),
    (torch_seeds, MAY_SEED_TORCH),
    (dangerous, ()),
]


@pytest.mark.parametrize(("rule", "rooms"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_only_the_rooms_that_may_do_it(rule: Callable[[ast.AST], Iterator[int]], rooms: tuple[str, ...]) -> None:
    found = [
        f"{_name(file)}:{line}" for file, tree in TREES.items() if not _allowed(file, rooms) for line in rule(tree)
    ]
    assert not found, f"{rule.__name__} is for {', '.join(rooms) or 'no room'}, but stands in: {', '.join(found)}"


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (printing, "print(1)"),
        (printing, "sys.stderr.write('x')"),
        (environment, "home = os.environ['HOME']"),
        (environment, "from os import environ"),
        (file_access, "open('x')"),
        (file_access, "Path('x').open()"),
        (file_access, "(folder / 'x').write_text('y')"),
        (file_access, "os.replace(a, b)"),
        (file_access, "np.load(x, allow_pickle=False)"),
        (unhanded_randomness, "np.random.normal()"),
        (unhanded_randomness, "np.random.default_rng()"),
        (unhanded_randomness, "random.shuffle(x)"),
        (unhanded_randomness, "torch.randn(3)"),
        (torch_seeds, "torch.manual_seed(1)"),
        (dangerous, "import pickle"),
        (dangerous, "from subprocess import run"),
        (dangerous, "np.load(x)"),
        (dangerous, "np.load(x, allow_pickle=True)"),
        (dangerous, "torch.load(x)"),
        (dangerous, "eval(x)"),
    ],
)
def test_rules_see_what_they_are_for(rule: Callable[[ast.AST], Iterator[int]], line: str) -> None:
    assert list(rule(ast.parse(f"\n{line}"))) == [2]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (printing, "console.print(1)"),
        (file_access, "text.replace('a', 'b'); path.exists()"),
        (unhanded_randomness, "np.random.default_rng(seed); random.Random(3); torch.randn(3, generator=g)"),
        (dangerous, "model.eval(); re.compile('x'); np.load(x, allow_pickle=False)"),
    ],
)
def test_rules_leave_the_rest_alone(rule: Callable[[ast.AST], Iterator[int]], line: str) -> None:
    assert list(rule(ast.parse(line))) == []


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*SOURCES, *sorted((ROOT / "examples").glob("*.py"))], ids=lambda file: file.name)
def test_first_line_states_the_purpose(file: Path) -> None:
    first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n", 1)[0].strip()
    assert len(first) >= 12, f"{file.name} does not say in the first line of its docstring what it is for"


def test_files_stay_small() -> None:
    lines = {_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}, "split these files in two"
    longer = {name for name, count in lines.items() if count > WANTED_LINES}
    assert not longer - set(LONGER), f"over {WANTED_LINES} lines: split in two, or give the reason in LONGER"
    assert set(LONGER) <= set(lines), "LONGER names a file that is gone"


def test_functions_stay_small() -> None:
    long = [
        f"{_name(file)}:{node.lineno} {node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert not long


def test_no_name_that_says_nothing() -> None:
    assert not [_name(path) for path in PACKAGE.rglob("*") if path.stem in REFUSED_NAMES]


def test_data_has_no_weights() -> None:
    """The data room makes tensors, but nothing that learns."""
    found = [
        f"{_name(file)}:{node.lineno}"
        for file, tree in TREES.items()
        if _name(file).startswith("data/")
        for node, name in imported(tree)
        if name.startswith(("torch.nn", "torch.optim"))
    ]
    assert not found


def test_pages_and_examples_are_numbered_without_gaps() -> None:
    for folder, pattern, begin in (
        ("docs", "[0-9]*.md", 0),
        ("docs/encoder", "[0-9]*.md", 1),
        ("examples", "[0-9]*.py", 1),
    ):
        numbers = [int(file.name[:2]) for file in sorted((ROOT / folder).glob(pattern))]
        assert numbers == list(range(begin, begin + len(numbers))), f"{folder}/ is numbered {numbers}"


def test_test_folders_are_rooms() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= rooms, f"folders of tests that mirror no room: {', '.join(sorted(folders - rooms))}"


def test_version_is_one() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    package = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = [re.search(r'^_*version_* = "(.+)"$', text, re.MULTILINE) for text in (project, package)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][1] == found[1][1]


COMES_WITH = {"pydantic-core": "pydantic", "markupsafe": "jinja2", "click": "typer"}


def test_every_package_that_is_imported_is_declared() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = [
        *project["dependencies"],
        *(entry for extra in project["optional-dependencies"].values() for entry in extra),
    ]
    declared = {re.split(r"[\[<>=!~ ]", entry)[0].lower().replace("_", "-") for entry in wanted}
    owners = packages_distributions()
    missing: dict[str, str] = {}
    for file, tree in TREES.items():
        for _, name in imported(tree):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "encodery":
                continue
            owner = owners.get(top, [top])[0].lower().replace("_", "-")
            if COMES_WITH.get(owner, owner) not in declared:
                missing[owner] = _name(file)
    assert not missing


def test_every_target_of_make_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.M)
    assert targets is not None
    helped = set(re.findall(r"^([a-z]+):.*## \S", makefile, re.M))
    assert set(targets[1].split()) == helped
