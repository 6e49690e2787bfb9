"""The manifest of the image sets, and the check of a folder against the hashes of its pixels.

``data/manifest.csv`` says what each set is, where it comes from and under which licence;
``data/pixel_hashes.csv`` holds, image by image, the SHA-256 of the RGB pixels (uint8, row by row, R G B),
whatever the file format.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from taylorir.datasets.sets import FOLDERS
from taylorir.images import READABLE_SUFFIXES, read_image
from taylorir.rows import DATA_FOLDER

CANONICAL, DIFFERS, MISSING, UNREADABLE, NOT_LISTED = (
    "canonical",
    "differs",
    "missing",
    "unreadable",
    "not listed",
)


@dataclass(frozen=True)
class ImageHash:
    """One image: its size in pixels, the SHA-256 of its RGB pixels, and its file below the set's ``url``."""

    image: str
    width: int
    height: int
    sha256: str
    file: str


@dataclass(frozen=True)
class SetEntry:
    """One image set.

    Attributes:
        name: of the set.
        folder: ``benchmarks`` or ``train``, below the data root.
        images: how many it has.
        content: what they show.
        limits: what to know before numbers on them are believed.
        source: page that it comes from.
        url: of an archive, or what precedes each image's ``file``.
        archive_hash: ``md5:...`` or ``sha256:...`` of the archive; empty where images are fetched one by one.
        licence: as far as the source states one.
        citation: whom to cite.
        hashes: its images; empty for a set that is only counted.
    """

    name: str
    folder: str
    images: int
    content: str
    limits: str
    source: str
    url: str
    archive_hash: str
    licence: str
    citation: str
    hashes: tuple[ImageHash, ...]


@functools.cache
def read_manifest(folder: Path = DATA_FOLDER) -> tuple[SetEntry, ...]:
    """All sets, in the order of the manifest.

    Raises:
        FileNotFoundError: the package runs without the ``data`` folder of its repository.
    """
    if not (folder / "manifest.csv").is_file():
        raise FileNotFoundError(f"no manifest.csv in {folder}: run from a checkout of the repository")
    hashes: dict[str, list[ImageHash]] = {}
    for row in _rows(folder / "pixel_hashes.csv"):
        image = ImageHash(row["image"], int(row["width"]), int(row["height"]), row["sha256"], row["file"])
        hashes.setdefault(row["set"], []).append(image)
    return tuple(
        SetEntry(
            name=row["set"],
            folder=row["folder"],
            images=int(row["images"]),
            content=row["content"],
            limits=row["limits"],
            source=row["source"],
            url=row["url"],
            archive_hash=row["archive_hash"],
            licence=row["licence"],
            citation=row["citation"],
            hashes=tuple(hashes.get(row["set"], ())),
        )
        for row in _rows(folder / "manifest.csv")
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest_entry(name: str) -> SetEntry:
    """The entry of a set.

    Raises:
        ValueError: there is no such set.
    """
    for entry in read_manifest():
        if entry.name == name:
            return entry
    raise ValueError(f"unknown dataset {name!r}; known: {', '.join(FOLDERS)}")


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 of the RGB pixels, uint8 ``[H, W, 3]``, row by row."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def set_files(entry: SetEntry, root: Path) -> dict[str, Path]:
    """The image files of a set below a data root, by stem."""
    folder = root / entry.folder / entry.name
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return {f.stem: f for f in files if f.suffix.lower() in READABLE_SUFFIXES and not f.name.startswith(".")}


def check_file(path: Path, expected: ImageHash) -> str:
    """``canonical``, ``differs`` or ``unreadable``."""
    try:
        return CANONICAL if pixel_hash(read_image(path)) == expected.sha256 else DIFFERS
    except (ValueError, OSError):
        return UNREADABLE


def check_root(root: Path, *, progress: bool = False) -> pd.DataFrame:
    """Compare a data root with the manifest.

    Args:
        root: the data root.
        progress: show a bar over the images.

    Returns:
        Columns set, image, status, file. A row an image of each set: ``canonical``, ``differs``,
        ``unreadable`` or ``missing``; ``not listed`` for a file that the manifest does not know. Of a set
        without hashes (DIV2K) each file is ``not listed``, and the images that lack are one row each.
    """
    jobs = [(entry, set_files(entry, root)) for entry in read_manifest()]
    rows = []
    with tqdm(
        total=sum(len(f) for _, f in jobs), desc="check", unit="image", disable=not progress, leave=False
    ) as bar:
        for entry, files in jobs:
            listed = {image.image for image in entry.hashes}
            for image in entry.hashes:
                path = files.get(image.image)
                rows.append(
                    (entry.name, image.image, check_file(path, image) if path else MISSING, _name(path))
                )
                bar.update(path is not None)
            others = [stem for stem in files if stem not in listed]
            rows += [(entry.name, stem, NOT_LISTED, _name(files[stem])) for stem in others]
            bar.update(len(others))
            if not entry.hashes:
                rows += [(entry.name, "", MISSING, "")] * max(entry.images - len(files), 0)
    return pd.DataFrame(rows, columns=["set", "image", "status", "file"])


def _name(path: Path | None) -> str:
    return path.name if path else ""
