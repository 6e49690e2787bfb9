"""The forms in C++ for the CPU (``cpp/``): features and weights never leave the processor's first cache.

They compute what :mod:`efficient` and :mod:`direct` compute, and save the same. They are built once for this
processor by torch's own loader of extensions into its cache (``TORCH_EXTENSIONS_DIR``), under a name that
stands for their source, the compiler's options, torch and the processor: nothing stale is ever loaded.

Where the processor has a tile unit (AMX), wide heads in float32 use it (``cpp/tiles.h``); with
TAYLORIR_TILES=0 they use vector registers, as on every other processor.

Shape legend: q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; labels [B, N] and [B, M]; tau [H]
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from taylorir.attention.kernels.segments import output_memory

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("cpp")
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")


@functools.cache
def load() -> bool:
    """Whether the operators ``taylorir_cpp::forward`` and ``::backward`` are there, built if need be.

    Says in one line of the log that it builds, or why it cannot; tries once a process.
    """
    try:
        build()
    except (OSError, RuntimeError, ImportError, subprocess.CalledProcessError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning("the C++ kernels cannot be built, plain PyTorch serves: %s", reason[0])
        return False
    return True


def uses_tiles() -> bool:
    """Whether wide heads run on the processor's tile unit."""
    return _uses_tiles(os.environ.get("TAYLORIR_TILES", ""))


@functools.cache
def _uses_tiles(asked: str) -> bool:
    return load() and torch.ops.taylorir_cpp.uses_tiles()


@contextlib.contextmanager
def tile_unit(used: bool) -> Iterator[None]:
    """Whether wide heads run on the tile unit, where there is one, inside of this."""
    before = os.environ.get("TAYLORIR_TILES")
    os.environ["TAYLORIR_TILES"] = str(int(used))
    try:
        yield
    finally:
        os.environ.pop("TAYLORIR_TILES") if before is None else os.environ.update(TAYLORIR_TILES=before)


def build(*, verbose: bool = False) -> Path:
    """Build the kernels unless the cache has them, load them, and return the library's path.

    Raises:
        RuntimeError: no compiler, or one that fails.
        OSError: a cache that cannot be written to.
    """
    from torch.utils import cpp_extension

    name = f"taylorir_cpp_{_fingerprint()}"
    folder = Path(cpp_extension._get_build_directory(name, verbose=False))
    library = folder / f"{name}.so"
    with FileLock(folder / "taylorir.lock"):
        if not library.is_file():
            if shutil.which(compiler := cpp_extension.get_cxx_compiler()) is None:
                raise RuntimeError(f"no C++ compiler: {compiler} is not on the path")
            logger.warning("building the C++ kernels of attention, once, which takes a while: %s", folder)
            parts = folder / "parts"
            shutil.rmtree(parts, ignore_errors=True)  # of a build that was killed, and its lock
            parts.mkdir()
            cpp_extension.load(
                name,
                [str(path) for path in sorted(SOURCES.glob("*.cpp"))],
                extra_cflags=list(OPTIONS),
                extra_ldflags=["-fopenmp"],
                build_directory=str(parts),
                is_python_module=False,
                verbose=verbose,
            )
            os.replace(parts / library.name, library)
    torch.ops.load_library(str(library))
    return library


def _fingerprint() -> str:
    """Of all that the library's code depends on."""
    parts = [torch.__version__, *OPTIONS, sys.platform, platform.machine(), _processor()]
    parts += [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir()) if path.is_file()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _processor() -> str:
    """What ``-march=native`` looks at: the instruction sets, where the system names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def labels_of(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as the kernels take them, in memory of their own: int64, contiguous."""
    own = queries.to(torch.int64, copy=True).contiguous()
    return own, own if keys is queries else keys.to(torch.int64, copy=True).contiguous()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    *,
    efficient: bool,
    segments: tuple[Tensor, Tensor] | None,
    output_scale: float,
    execution: object = None,
) -> list[Tensor]:
    """y [B, H, N, d_v], 1 / b [B, H, N, 1] and the states, of the dtype of the temperature.

    Args:
        efficient: the efficient form, or the direct one, which has no states.
        segments: labels, or None where all tokens of a window attend to all.
    """
    y, inverse = output_memory(q, v, temperature.dtype)
    labels = segments or (None, None)
    states = torch.ops.taylorir_cpp.forward(
        q, k, v, temperature, *labels, output_scale, efficient, y, inverse
    )
    return [y, inverse, states]


def backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    y: Tensor,
    inverse: Tensor,
    states: Tensor | None = None,
    *,
    efficient: bool,
    segments: tuple[Tensor, Tensor] | None,
    output_scale: float,
    execution: object = None,
    needs_temperature: bool = True,
) -> list[Tensor]:
    """dq, dk, dv and the temperature's gradient. States that were not kept are summed again."""
    labels = segments or (None, None)
    options = (temperature, *labels, output_scale, efficient)
    if states is None:
        again = torch.empty_like(y), torch.empty_like(inverse)
        states = torch.ops.taylorir_cpp.forward(q, k, v, *options, *again)
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    if segments is not None:  # keys of a label that no query has are in no segment
        gradients = [x.zero_() for x in gradients]
    dtau = torch.ops.taylorir_cpp.backward(dy, q, k, v, *options, y, inverse, states, *gradients)
    return [*gradients, dtau]
