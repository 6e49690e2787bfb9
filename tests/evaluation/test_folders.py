"""A folder: no result is lost, nothing is passed over in silence, and no file stops the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taylorir.evaluation.folders import distinct_names, upscale_folder


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("a.png b.jpg", "a b"),
        ("a.jpg a.png b.png", "a_jpg a_png b"),
        ("a.jpg a.png a_jpg.png", "a_jpg_2 a_png a_jpg"),
        ("a.jpg a.png a_jpg.png a_jpg_2.png", "a_jpg_3 a_png a_jpg a_jpg_2"),
        ("A.png a.jpg", "A_png a_jpg"),
        ("A.PNG a.png", "A_PNG a_png_2"),
        ("a a.png", "a_ a_png"),
    ],
)
def test_no_two_results_have_one_name(files, names):
    parts = [(Path(name).stem, Path(name).suffix.lstrip(".")) for name in files.split()]
    assert distinct_names(parts) == names.split()


class Counted(str):
    """Counts how often names are compared or hashed."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        Counted.looks += 1
        return str.__hash__(self)

    def casefold(self) -> str:
        return Counted(str.casefold(self))


def test_names_take_a_few_looks_a_file():
    files = [(Counted(f"picture{i}"), "png") for i in range(2000)]
    Counted.looks = 0
    assert distinct_names(files) == [stem for stem, _ in files]
    assert 0 < Counted.looks <= 20 * len(files)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "a.png", "b.png", ".hidden.png"):
        (source / name).touch()
    os.mkfifo(source / "pipe.png")
    (source / "link.png").symlink_to("gone.png")
    (source / "inner").mkdir()
    return source


def test_every_entry_is_written_or_reported(folder):
    def upscale_one(file: Path, result: Path) -> list[str]:
        if not file.is_file():
            raise ValueError("no file")
        result.touch()
        return ["grey"] if file.stem == "b" else []

    lines: list[str] = []
    target = folder.parent / "out"
    assert upscale_folder(folder, target, upscale_one, report=lines.append) == (
        3,
        {"link.png": "no file", "pipe.png": "no file"},
    )
    assert sorted(file.name for file in target.iterdir()) == ["a_jpg.png", "a_png.png", "b.png"]
    assert lines == [
        f"a.jpg -> {target}/a_jpg.png (another file takes the name a.png)",
        f"a.png -> {target}/a_png.png (another file takes the name a.png)",
        f"b.png -> {target}/b.png (grey)",
        "link.png: FAILED, no file",
        "pipe.png: FAILED, no file",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("by zero"), "by zero"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "out of memory"),
        (MemoryError(), "out of memory"),
        (RecursionError(), "RecursionError"),
        (StopIteration(), "StopIteration"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_no_file_stops_a_folder(folder, error, reason):
    def upscale_one(file: Path, result: Path) -> list[str]:
        if file.name == "a.png":
            raise error
        return []

    done, failures = upscale_folder(folder, folder.parent / "out", upscale_one, report=lambda line: None)
    assert done == 4 and failures == {"a.png": reason}


def test_names_that_are_no_text_are_printed(folder, capsys):
    os.rename(folder / "b.png", os.fsencode(folder / "b") + b"\xff.png")
    done, _ = upscale_folder(folder, folder.parent / "out", lambda file, result: [])
    assert done == 5 and "b\\xff.png -> " in capsys.readouterr().out


def test_stopping_by_hand_stops(folder):
    def upscale_one(file: Path, result: Path) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_folder(folder, folder.parent / "out", upscale_one)
