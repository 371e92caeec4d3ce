"""The smallest real uses: importing, one thread, one row; each in a fresh process where that matters."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import encodery


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_takes_under_a_second_and_loads_no_heavy_library() -> None:
    """Row 25."""
    code = (
        "import sys, time; begin = time.perf_counter(); import encodery; took = time.perf_counter() - begin;"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'datasets', 'pyarrow', 'scipy', 'tokenizers'} & set(sys.modules);"
        "print(took, sorted(heavy))"
    )
    took, heavy = min((python(code).split(" ", 1) for _ in range(2)), key=lambda found: float(found[0]))
    assert float(took) < 1.0 and heavy == "[]"


PACKAGE = Path(encodery.__file__).parent


def modules() -> dict[str, Path]:
    """Every module by name."""
    names = {file: (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts) for file in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): file for file, parts in names.items()}


def imported_at_once(file: Path, known: Container[str]) -> Iterator[str]:
    """What a module imports when it is imported itself: not inside functions, not for type checkers alone."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{file}: imports are absolute here"
            for name in node.names:  # a module of a package, or something that a module has
                whole = f"{node.module}.{name.name}"
                yield whole if whole in known else node.module
        waiting += ast.iter_child_nodes(node)


def packages_of(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:size]) for size in range(1, len(parts))}


def test_every_module_can_be_imported_first() -> None:
    """No import goes in a circle, so none depends on another one having come before."""
    files, needs = modules(), {}
    assert {"encodery", "encodery.batch", "encodery.training.loop", "encodery.cli"} <= set(files)
    for name, file in files.items():
        found = set(imported_at_once(file, files)) & set(files)
        # With a module come the packages that hold it, but for those that are there because they hold this one.
        held = {package for other in found for package in packages_of(other)} - packages_of(name)
        needs[name] = found | held - {name}
    list(TopologicalSorter(needs).static_order())


def test_imports_say_nothing() -> None:
    """Nothing is printed or warned about. Neither the Keras encoder nor the program itself: its own tests import the
    first where Keras is installed."""
    names = [name for name in modules() if ".keras_encoder." not in name and "__main__" not in name]
    assert python(f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)") == ""


def test_one_thread_and_no_compiler_will_do() -> None:
    """Row 6: a plain processor is enough, without compiler or graphics card."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import torch\n"
        "threads = torch.get_num_threads()\n"
        "import conftest\n"
        "from encodery.data.tokenizers import TokenizerConfig, train_tokenizer\n"
        "texts = [text for text, _ in conftest.make_texts(50)]\n"
        "tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=100), seed=1)\n"
        "fit = conftest.make_fit(tokenizer, training={'budget': '3 steps'}, validate=True)\n"
        "assert fit.advance()\n"
        "print(threads, fit.state.step)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CC": "/nonexistent", "CXX": "/nonexistent", "OMP_NUM_THREADS": "1"},
        cwd=os.path.dirname(os.path.dirname(__file__)),
        check=False,
    )
    assert done.stdout.split()[-2:] == ["1", "3"], done.stderr
