"""What Windows and macOS lack is not needed: the package works with the modules of Unix hidden."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_UNIX = """
import sys
import filelock, matplotlib.pyplot, pandas, PIL.Image, psutil, scipy.stats
import skimage.metrics, torch, tqdm, typer

for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None  # an import of it is an ImportError now
"""

EVERY_MODULE = """
import importlib, pkgutil, taylorir

for module in pkgutil.walk_packages(taylorir.__path__, "taylorir."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

UPSCALE = """
import PIL.Image, taylorir

assert taylorir.upscale(PIL.Image.new("RGB", (20, 16)), 2).size == (40, 32)
"""

TRAIN = """
from taylorir.cli.main import main

sys.argv = ["taylorir", "train", "swinir_tiny_x2", "--out", "run", "--num-iters", "2", "--device", "cpu"]
sys.argv += ["--set", "crop_size=16", "--set", "batch_size=1", "--quiet"]
main()
"""


@pytest.mark.parametrize("use", [EVERY_MODULE, UPSCALE, TRAIN], ids=["import", "upscale", "train"])
def test_no_module_of_unix_is_needed(use, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + use], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
