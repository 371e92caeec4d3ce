"""The smallest real uses: importing, one thread, one row; each in a fresh process where that matters."""

from __future__ import annotations

import os
import subprocess
import sys


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


def test_every_module_can_be_imported_first() -> None:
    """No import depends on another one having come before; and nothing is printed or warned about. The Keras encoder's
    modules are imported by its own tests, where Keras is installed."""
    code = (
        "import pkgutil, encodery\n"
        "names = [m.name for m in pkgutil.walk_packages(encodery.__path__, 'encodery.') if '__main__' not in m.name]\n"
        "names = [name for name in names if '.keras_encoder.' not in name]\n"
        "print(' '.join(names))"
    )
    names = python(code).split()
    assert {"encodery.batch", "encodery.training.loop", "encodery.cli"} <= set(names)
    # Each starts alone in a process forked after the foreign libraries are loaded, which is quick.
    code = (
        "import importlib, os, sys\n"
        f"names = {names!r}\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'encodery']:\n"
        "    del sys.modules[name]\n"
        "for name in names:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            importlib.import_module(name)\n"
        "        except BaseException as error:\n"
        "            sys.stderr.write(f'{name}: {error!r}'); sys.stderr.flush(); os._exit(1)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, name\n"
    )
    assert python(code) == ""


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
