"""mutants: of pictures broken at random each is read or refused in one line, alone and in a folder.

``TAYLORIR_MUTANTS=2400 pytest tests/images/test_mutants.py -s`` sends so many through the command.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from taylorir.evaluation.files import SMALLEST_SIDE
from taylorir.images.decode import open_undecoded
from taylorir.images.io import open_picture, read_image
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from tests.images.mutants import mutants, pictures

QUICK = 250_000  # pixels; what is sound and larger takes the network too long
NUMBER = int(os.environ.get("TAYLORIR_MUTANTS", "0"))
# the command, and a line on standard error for each process that it starts
WATCHED = """
import sys
import taylorir.cli.main, taylorir.evaluation, taylorir.images, torch
starts = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.spawn")
sys.addaudithook(lambda event, _: event in starts and print("STARTED", event, file=sys.stderr))
taylorir.cli.main.main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", pictures())
def test_what_is_to_be_broken_is_sound(tmp_path, name):
    (tmp_path / name).write_bytes(pictures()[name])
    assert read_image(tmp_path / name).shape in ((20, 24, 3), (24, 20, 3))


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_picture_is_read_or_refused_in_one_line(tmp_path, seed):
    outcomes = collections.Counter()
    for name, content in mutants(100, seed):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            image = read_image(path, max_pixels=QUICK)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
            outcomes["read"] += 1
    assert outcomes["refused"] >= 20 and outcomes["read"] >= 20


@pytest.mark.skipif(not NUMBER, reason="TAYLORIR_MUTANTS is the number of files to send through the command")
def test_a_folder_of_broken_pictures_goes_through_the_command(tmp_path):
    source, target, large = tmp_path / "in", tmp_path / "out", 0
    source.mkdir()
    for name, content in mutants(NUMBER, seed=99):
        (source / name).write_bytes(content)
        if is_slow(source / name):
            (source / name).unlink()
            large += 1
    torch.manual_seed(0)
    save_weights(tmp_path / "tiny.safetensors", build_model("swinir_tiny_x2"), {})
    started = time.monotonic()
    command = ["upscale", source, target, "--model", tmp_path / "tiny.safetensors", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *command], capture_output=True, text=True, timeout=3600
    )
    seconds = time.monotonic() - started
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "STARTED" not in done.stderr
    results = dict(re.findall(r"^(\d{5}-\S+) -> (\S+)", done.stdout, re.MULTILINE))
    failed = dict(re.findall(r"^(\d{5}-\S+): FAILED, (.*)$", done.stdout, re.MULTILINE))
    names = {path.name for path in source.iterdir()}
    assert results.keys() | failed.keys() == names and not results.keys() & failed.keys()
    assert {path.name for path in target.iterdir()} == {Path(result).name for result in results.values()}
    for name, result in results.items():
        before, after = open_picture(source / name).pixels, open_picture(result).pixels
        assert after.dtype == before.dtype
        assert after.shape == (2 * before.shape[0], 2 * before.shape[1], before.shape[2])
    reasons = collections.Counter(reason_of(reason) for reason in failed.values())
    print(f"\n{len(names)} files in {seconds:.0f} s, {large} left out for their size: {len(results)} written")
    print(*(f"{count:6d} {reason}" for reason, count in reasons.most_common()), sep="\n")


def is_slow(path: Path) -> bool:
    """Whether the header claims a picture that would be read, and is large."""
    with path.open("rb") as file:
        try:
            width, height = open_undecoded(file).picture.size
        except Exception:  # what is not even a header is for the command
            return False
    return QUICK < width * height <= 100_000_000


def reason_of(line: str) -> str:
    for phrase in ("not an image that can be read", "damaged or cut short", "limit of", "defined black"):
        if phrase in line:
            return phrase
    return f"below {SMALLEST_SIDE} pixels" if "are needed" in line else line
