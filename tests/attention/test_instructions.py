"""The C++ kernels as other processors have them: their tests pass there too."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from taylorir.attention.kernels import cpp_operator

ROOT = Path(__file__).resolve().parents[2]
BUILT_FOR_ANOTHER = """
import sys
import pytest
from taylorir.attention.kernels import cpp_operator
cpp_operator.OPTIONS = tuple(sys.argv[1] if x.startswith("-march") else x for x in cpp_operator.OPTIONS)
cpp_operator.build()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not build and not crossover", *sys.argv[2:]]))
"""
FILES = tuple(f"tests/attention/test_{name}.py" for name in ("cpp", "layers", "softmax"))


@pytest.mark.skipif(not cpp_operator.load(), reason="no C++ compiler")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86's instruction sets")
@pytest.mark.parametrize("instructions", ["x86-64", "x86-64-v3"], ids=["plain registers", "AVX2"])
def test_kernels_pass_their_tests_on_older_processors(instructions):
    command = [sys.executable, "-c", BUILT_FOR_ANOTHER, f"-march={instructions}", *FILES]
    # a worker's name in the environment would be read as pytest-xdist's own
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
