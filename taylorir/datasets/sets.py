"""Image sets: the photographs in installed wheels, the benchmark sets in a folder, and LR/HR pairs.

A data root is a folder that holds ``benchmarks/<Set>/*`` and ``train/<Set>/*``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taylorir.images import READABLE_SUFFIXES, degrade, mod_crop, read_image, to_grey

#: The environment variable that names the folder of image sets.
DATA_ROOT_VARIABLE = "TAYLORIR_DATA"
UPSCALES = (2, 3, 4)

# Natural colour photographs that the wheels themselves hold (no download). The held-out ones were stored
# without loss, so that no JPEG artefact counts as detail; of the stereo pair only one view is used.
SAMPLES: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
SAMPLES_HELD_OUT = ("astronaut", "chelsea", "coffee")
#: Sets of photographs that scikit-image and scikit-learn carry: they are always there.
SAMPLE_SETS: dict[str, tuple[str, ...]] = {
    "samples": tuple(SAMPLES),
    "samples_training": tuple(name for name in SAMPLES if name not in SAMPLES_HELD_OUT),
    "samples_held_out": SAMPLES_HELD_OUT,
}

FOLDERS: dict[str, str] = {
    "Set5": "benchmarks",
    "Set14": "benchmarks",
    "BSD100": "benchmarks",
    "Urban100": "benchmarks",
    "Manga109": "benchmarks",
    "Set12": "benchmarks",
    "McMaster": "benchmarks",
    "classic5": "benchmarks",
    "RealSRSet": "benchmarks",
    "DIV2K": "train",
    "BSDS400": "train",
    "T91": "train",
}
#: What restoration is measured on: denoising of grey and of colour, JPEG artefacts of grey.
RESTORATION = ("Set12", "McMaster", "classic5")
#: Photographs as they were found, degraded by nobody knows what: there is no truth to measure against.
REAL = ("RealSRSet",)
#: What super-resolution is measured on.
BENCHMARKS = tuple(
    name for name, folder in FOLDERS.items() if folder == "benchmarks" and name not in (*RESTORATION, *REAL)
)
DATASETS = (*SAMPLE_SETS, *FOLDERS)


@dataclass(frozen=True, eq=False)
class NamedImage:
    """An image and what it is called: uint8 RGB ``[H, W, 3]``."""

    name: str
    image: np.ndarray


def data_root(root: str | os.PathLike[str] | None = None) -> Path | None:
    """The data root: the argument, else the variable TAYLORIR_DATA, else None.

    Raises:
        FileNotFoundError: it is named but no folder.
    """
    chosen = root if root is not None else os.environ.get(DATA_ROOT_VARIABLE) or None
    if chosen is None:
        return None
    if not Path(chosen).is_dir():
        raise FileNotFoundError(f"the data root is no folder: {chosen}")
    return Path(chosen)


def image_files(name: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The files of a set, sorted by name.

    Args:
        name: one of ``DATASETS``.
        root: the data root (see :func:`data_root`); not used by the samples.

    Raises:
        ValueError: an unknown set, or no data root for one that needs it.
        FileNotFoundError: the set's folder is missing or empty, or a wheel lacks a sample image.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    if name in SAMPLE_SETS:
        return [_sample_file(*SAMPLES[sample]) for sample in SAMPLE_SETS[name]]
    base = data_root(root)
    if base is None:
        raise ValueError(
            f"dataset {name!r} needs a data root: give --data-root, or set {DATA_ROOT_VARIABLE}, "
            f"to a folder that holds {FOLDERS[name]}/{name}"
        )
    folder = base / FOLDERS[name] / name
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in READABLE_SUFFIXES and p.name[0] != ".")
    if not files:
        raise FileNotFoundError(f"no images of dataset {name!r} in {folder}")
    return files


def iterate_images(name: str, root: str | os.PathLike[str] | None = None) -> Iterator[NamedImage]:
    """Like :func:`load_images`, one image in memory at a time (for sets as large as DIV2K)."""
    files = image_files(name, root)
    for stem, file in zip(SAMPLE_SETS.get(name, [file.stem for file in files]), files, strict=True):
        yield NamedImage(stem, read_image(file))


def load_images(name: str, root: str | os.PathLike[str] | None = None) -> list[NamedImage]:
    """All images of a set.

    Args:
        name: ``samples``, ``samples_training``, ``samples_held_out``, ``Set5``, ``Set14``, ``BSD100``,
            ``Urban100``, ``Manga109``, ``Set12``, ``McMaster``, ``classic5``, ``RealSRSet``, ``BSDS400``,
            ``T91`` or ``DIV2K``.
        root: the data root (see :func:`data_root`); not used by the samples.

    Returns:
        One :class:`NamedImage` a file, sorted by name (samples: in the order of ``SAMPLES``).

    Raises:
        ValueError: an unknown set, no data root for one that needs it, or a file that is no image.
        FileNotFoundError: the set's folder is missing or empty.
    """
    return list(iterate_images(name, root))


def sample_split() -> tuple[list[NamedImage], list[NamedImage]]:
    """The sample photographs as (training, held out): four and three images that share no content."""
    return load_images("samples_training"), load_images("samples_held_out")


def make_pair(
    hr: np.ndarray, upscale: int, *, degradation: str = "none", grey: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Low- and high-resolution image by the protocol: mod-crop, then MATLAB bicubic on 8 bits.

    Args:
        hr: uint8 ``[H, W, 3]``.
        upscale: an integer of at least 1.
        degradation: of the low-resolution image, by a name of :func:`taylorir.images.degrade`.
        grey: turn both to grey first, with one channel.
        seed: of the noise.

    Returns:
        (lr, hr), uint8 ``[H // s, W // s, C]`` and ``[H - H % s, W - W % s, C]``.

    Raises:
        ValueError: the image is smaller than ``upscale``, or an unknown degradation.
    """
    cropped = mod_crop(hr, upscale)
    cropped = to_grey(cropped) if grey else cropped
    return degrade(cropped, upscale, degradation, seed=seed), cropped


def _sample_file(package: str, path: str) -> Path:
    """The file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the sample image {path} needs the package {package!r}; it is not installed")
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.is_file():
        raise FileNotFoundError(
            f"this version of the package {package!r} does not hold the sample image {path}"
        )
    return file
