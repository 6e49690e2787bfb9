"""What tests share: their part of the cores, triton's interpreter, and a folder that refuses writing."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Workers of pytest-xdist share the cores; threads beyond them spend their time waiting for each other. It is
# read when torch is imported, here and by the processes that a test starts. The process that starts the
# workers sets nothing: they would inherit it.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers builds networks from a configuration: nothing to ask for

import torch

if not torch.cuda.is_available():  # before any test imports triton: its kernels then run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

# torchvision's wheel is compiled for torch with CUDA. Beside a torch without, its kernels do not load, and
# its Python fails too unless it finds the names of two of them. timm, spandrel and transformers import it.
torchvision_names = torch.library.Library("torchvision", "FRAGMENT")
if importlib.util.find_spec("torchvision") and torch.version.cuda is None:
    for name in ("nms", "qnms"):
        torchvision_names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

NOBODY = 65534


@pytest.fixture
def read_only():
    """``with read_only({name: content}) as folder``: readable, and not to be written to.

    No mode of a folder stops root, so tests that run as root act as another user in the meantime.
    """

    @contextlib.contextmanager
    def folder_of(files: dict[str, bytes]) -> Iterator[Path]:
        root = os.geteuid() == 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            folder.chmod(0o555)
            if root:
                os.seteuid(NOBODY)
            try:
                yield folder
            finally:
                if root:
                    os.seteuid(0)
                folder.chmod(0o755)

    return folder_of
