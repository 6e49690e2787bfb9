"""A promise of memory, measured: each run is a process of its own, and the system tells what it held."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from taylorir.evaluation import promise
from taylorir.evaluation.files import upscale_file
from taylorir.evaluation.promise import Promise, held_for
from taylorir.images.io import write_image
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = 1.1  # of the promise

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")


def smooth(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Something like a photograph: it compresses somewhat, and everything is not seen where alpha is 0."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    base = 128 + 100 * np.sin(rows / 50) * np.cos(columns / 70) + np.random.default_rng(0).normal(0, 3, width)
    image = np.dstack([base.clip(0, 255)] * channels).astype(dtype)
    if channels == 4:
        image[..., 3] = np.where(base > 128, 255, 0)
    return image * dtype(257 if dtype is np.uint16 else 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = build_model("swinir_tiny_x2", embed_dim=6, depths=(1,), num_heads=(1,))
    return save_weights(tmp_path_factory.mktemp("model") / "tiny.safetensors", network, {})


def run(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "taylorir", "upscale", *map(str, arguments), "--quiet"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def peak_mib(done: subprocess.CompletedProcess) -> int:
    assert done.returncode == 0, done.stderr
    return int(re.search(r"at most ([\d,]+) MiB", done.stdout)[1].replace(",", ""))


@needs_linux
@pytest.mark.parametrize(
    ("size", "dtype", "suffix"),
    [
        ((600, 800, 3), np.uint8, ".png"),
        ((64, 20_000, 3), np.uint8, ".png"),  # a strip: what waits for the next tile must not grow with it
        ((400, 500, 4), np.uint8, ".webp"),
        ((400, 500, 4), np.uint16, ".png"),
    ],
    ids=["picture", "strip", "WebP", "16 bits"],
)
def test_the_promise_is_kept(tmp_path, model, size, dtype, suffix):
    write_image(tmp_path / "in.png", smooth(*size, dtype))
    done = run(tmp_path / "in.png", tmp_path / f"out{suffix}", "--model", model, "--memory", "360MiB")
    assert peak_mib(done) <= ALLOWED * 360


@needs_linux
def test_the_tile_follows_the_promise(tmp_path, model):
    picture, result = tmp_path / "in.png", tmp_path / "out.png"
    write_image(picture, smooth(600, 800, 3))
    refused = run(picture, result, "--model", model, "--memory", "230MiB")
    assert refused.returncode == 2 and not result.exists()
    assert re.search(r"memory is too small: .* needs about [\d,]+ MiB in all, ", refused.stderr), (
        refused.stderr
    )
    little, much = (run(picture, result, "--model", model, "--memory", size) for size in ("340MiB", "2GiB"))
    assert peak_mib(little) + 40 < peak_mib(much) and peak_mib(little) <= ALLOWED * 340


def test_what_a_picture_holds_by_hand(monkeypatch):
    monkeypatch.setattr(promise, "_BLEEDING", (8, 100))
    monkeypatch.setattr(promise, "_RESIZING", (1000, 7))
    grey, colour, cut_out = (np.empty((10, 20, channels), np.uint8) for channels in (1, 3, 4))
    # 800 result pixels; of grey no copy is made to write it, and two and three channels take 4 bytes more
    assert held_for(grey, 2, ".png", bicubic=False) == 800 + 200 * 4
    assert held_for(colour, 2, ".png", bicubic=False) == 2400 + 3200
    assert held_for(colour, 2, ".webp", bicubic=False) == 2400 + 40_000
    # 3 channels of 800 and of 400 while the second pass runs, and a chunk of 1000 values
    assert held_for(colour, 2, ".png", bicubic=True) == 2400 + 1200 + 2400 + 1200 + 7000
    # alpha: the result, the picture and its colours, the alpha channel of 400 and 800, and a chunk of all 800
    assert held_for(cut_out, 2, ".png", bicubic=False) == 3200 + 1400 + 1200 + 5600
    monkeypatch.setattr(promise, "_BLEEDING", (8, 1000))
    assert held_for(cut_out, 2, ".png", bicubic=False) == 1400 + 8 * 8 * 1000
    deep = np.empty((10, 20, 3), np.uint16)
    assert held_for(deep, 2, ".png", bicubic=False) == 4800 + 2400


def test_a_picture_is_refused_by_its_header(tmp_path, monkeypatch):
    write_image(tmp_path / "in.png", smooth(30, 40, 3))
    monkeypatch.setattr("taylorir.evaluation.files.open_picture", lambda path: pytest.fail("it was decoded"))
    with pytest.raises(
        ValueError, match=r"reading .*in\.png needs about [\d,]+ MiB in all, 50 MiB are allowed"
    ):
        upscale_file("bicubic", tmp_path / "in.png", tmp_path / "out.png", upscale=2, memory="50MiB")
    assert not (tmp_path / "out.png").exists()


def test_without_a_promise_the_machine_is_the_bound(monkeypatch):
    monkeypatch.setattr(promise, "available_memory", lambda: 1000)
    bound = Promise.for_picture("bicubic", None)
    bound.check(1000, "this")
    with pytest.raises(ValueError, match=r"this needs about [\d,]+ MiB in all, [\d,]+ MiB are there"):
        bound.check(1001, "this")


class Overflows(torch.nn.Module):
    """Doubles the sides; a factor overflows in half precision, and a division undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Conv2d(3, 3, 1, bias=False)
        torch.nn.init.constant_(self.up.weight, 1e5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.up(x) / 3e5).repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_half_precision_falls_back_and_says_so(tmp_path):
    write_image(tmp_path / "in.png", np.full((9, 9, 3), 200, np.uint8))
    options = {"upscale": 2, "tile": None}
    notes = upscale_file(Overflows(), tmp_path / "in.png", tmp_path / "o.png", precision="float16", **options)
    assert notes == ["float16 gives NaN or infinity; computed in bfloat16"]
    assert upscale_file(Overflows(), tmp_path / "in.png", tmp_path / "o.png", **options) == []
    broken = Overflows()
    torch.nn.init.constant_(broken.up.weight, float("nan"))
    (tmp_path / "o.png").unlink()
    with pytest.raises(ValueError, match="the network returns NaN or infinity in float32"):
        upscale_file(broken, tmp_path / "in.png", tmp_path / "o.png", precision="bfloat16", **options)
    assert not (tmp_path / "o.png").exists()


CONTAINED = """
import sys
from pathlib import Path
from taylorir.cli.main import main
from taylorir.evaluation import memory_limit
memory_limit._CGROUPS, memory_limit._OWN_CGROUPS = Path(sys.argv[1]), Path(sys.argv[1]) / "own"
main(sys.argv[2:])
"""


@needs_linux
def test_a_default_run_stays_within_its_container(tmp_path, model):
    """The limit is read from files like a container's; the kernel does not enforce it here."""
    limit = 600_000_000
    for name, content in (
        ("own", "0::/"),
        ("memory.max", f"{limit}"),
        ("memory.current", "280000000"),  # about what Python and torch hold
        ("memory.stat", "inactive_file 0"),
    ):
        (tmp_path / name).write_text(f"{content}\n")
    write_image(tmp_path / "in.png", smooth(600, 800, 3))
    command = [sys.executable, "-c", CONTAINED, str(tmp_path), "upscale", str(tmp_path / "in.png")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "out.png"), "--model", str(model), "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert 320 < peak_mib(done) <= limit / 2**20
