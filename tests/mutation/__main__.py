"""Mutation testing of attention/ and networks/.

``python -m tests.mutation [--mutants 320] [more options of pytest]``, half an hour on one core. Rows go to
``mutants.csv``; the last line says how many mutants were killed. Kernels in Triton and C++ are not Python and
have no mutants here.
"""

import os
import sys
from pathlib import Path

FILES = [
    str(file)
    for room in ("attention", "networks")
    for file in sorted(Path("taylorir", room).rglob("*.py"))
    if "triton" not in file.name and file.name != "__init__.py"
]
TESTS = [
    "tests/attention",
    "--ignore=tests/attention/test_triton.py",
    "tests/networks",
    "tests/cost/test_memory.py",
]
PYTEST = ["-p", "tests.mutation.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-q"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
mutate = [f"--mutate={file}" for file in FILES]
os.execv(sys.executable, [sys.executable, "-m", "pytest", *PYTEST, *TESTS, *mutate, *sys.argv[1:]])
