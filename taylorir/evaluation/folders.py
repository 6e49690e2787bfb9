"""Upscale a folder of pictures: each file is written or its reason given, whatever is in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from taylorir.evaluation.targets import check_writable
from taylorir.images import WRITABLE_SUFFIXES
from taylorir.rows import is_out_of_memory, one_line


def upscale_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    upscale_one: Callable[[Path, Path], list[str]],
    *,
    suffix: str = ".png",
    report: Callable[[str], object] = print,
) -> tuple[int, dict[str, str]]:
    """Upscale every file of a folder; one that fails is noted, and the rest goes on.

    Args:
        source: what is in it, but for hidden files and subfolders, is taken in the order of the names.
        target: made when missing. ``a.jpg`` becomes ``a.png`` there, or ``a_jpg.png`` if another file would
            take that.
        upscale_one: called with a file and its target; returns notes.
        suffix: of the results.
        report: called with a line for each file.

    Returns:
        How many succeeded, and the reason of each failure by file name.

    Raises:
        ValueError: an empty folder, an unknown suffix, or results that would replace the sources.
        OSError: the source cannot be listed, the target folder cannot be made or written to.
    """
    source, target = Path(source), Path(target)
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}, not {suffix!r}")
    files = sorted(file for file in source.iterdir() if not (file.name.startswith(".") or file.is_dir()))
    if not files:
        raise ValueError(f"there is no file in {source}")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot make the folder {target}: {error.strerror}") from None
    if target.samefile(source):
        raise ValueError(f"the results would go to {source} itself; give another folder")
    check_writable(target / f"result{suffix}")
    failures: dict[str, str] = {}
    names = distinct_names((file.stem, file.suffix.lstrip(".")) for file in files)
    for file, name in zip(files, names, strict=True):
        result = target / f"{name}{suffix}"
        try:
            notes = upscale_one(file, result)
        except Exception as error:  # whatever a file does, it is reported and the others are done
            failures[file.name] = "out of memory" if is_out_of_memory(error) else one_line(error)
            report(_printable(f"{file.name}: FAILED, {failures[file.name]}"))
            continue
        if name != file.stem:
            notes = [*notes, f"another file takes the name {file.stem}{suffix}"]
        report(_printable(f"{file.name} -> {result}" + (f" ({'; '.join(notes)})" if notes else "")))
    return len(files) - len(failures), failures


def distinct_names(parts: Iterable[tuple[str, str]]) -> list[str]:
    """A name for each file of a folder, none twice, not even where upper and lower case are one.

    Args:
        parts: stem and extension of each file.

    Returns:
        The stem where no other file has it; else ``stem_extension``, and with a number where that is taken.
    """
    parts = list(parts)
    alike = Counter(stem.casefold() for stem, _ in parts)
    taken = {key for key, count in alike.items() if count == 1}
    tried: Counter[str] = Counter()
    names = []
    for stem, extension in parts:
        if alike[stem.casefold()] > 1:
            longer = stem = f"{stem}_{extension}"
            while stem.casefold() in taken:
                tried[longer.casefold()] += 1
                stem = f"{longer}_{tried[longer.casefold()] + 1}"
            taken.add(stem.casefold())
        names.append(stem)
    return names


def _printable(text: str) -> str:
    """Bytes of file names that are no text are shown by their numbers: printing them would fail."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
