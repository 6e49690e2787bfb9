"""Files that appear whole or not at all, and errors in one line."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import platform
import re
import secrets
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pandas as pd

_PART = re.compile(r"\.taylorir-(?P<host>.+)-(?P<pid>\d+)-(?P<run>[0-9a-f]{8})-\d+\.part")
_RUN = secrets.token_hex(4)  # process numbers come back: a container that starts again often has the same
_COUNT = itertools.count()


def write_rows(path: str | os.PathLike[str], rows: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table as CSV, whole or not at all, with the same bytes on every system.

    Args:
        path: the file to be.
        rows: without their index.
        float_format: of numbers, as "%.4g"; None writes all digits.

    Raises:
        OSError: as :func:`write_atomic`.
    """
    content = rows.to_csv(index=False, lineterminator="\n", float_format=float_format).encode()
    write_atomic(path, lambda file: file.write(content))


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write through a hidden neighbour that is renamed when it is complete and on the disk.

    The neighbour is removed when anything fails; when the process is killed, the first write to the folder by
    a later process removes it.

    Args:
        path: the file to be; its name may be as long as the file system allows.
        write: called with the open binary file.

    Raises:
        OSError: the file cannot be written; the message names ``path``, not the neighbour.
        ValueError: ``write`` refused the content.
    """
    path = Path(path)
    _sweep_once(path.parent)
    partial = part_path(path.parent)
    try:
        with partial.open("xb") as file:  # new, and through no link
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise _named(error, path) from error
    except (ValueError, struct.error) as error:
        raise ValueError(f"cannot write {path}: {one_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # it would hide the error that led here
            partial.unlink()


def part_path(folder: Path) -> Path:
    """A hidden name in a folder for what this process makes there and is not done with, new at each call."""
    host = re.sub(r"[^\w.]", "_", platform.node())[:24]
    return folder / f".taylorir-{host}-{os.getpid()}-{_RUN}-{next(_COUNT)}.part"


def sweep_parts(folder: Path) -> None:
    """Remove what processes of this machine that are no more left under a :func:`part_path` of a folder."""
    import psutil

    mine = _PART.fullmatch(part_path(folder).name)
    try:
        names = os.listdir(folder)
    except OSError:  # the write that follows says what is wrong with the folder
        return
    for name in names:
        part = _PART.fullmatch(name)
        if not part or part["host"] != mine["host"] or part.group("pid", "run") == mine.group("pid", "run"):
            continue  # a fork of this process has its run and a number of its own
        if part["pid"] != mine["pid"] and psutil.pid_exists(int(part["pid"])):
            continue
        shutil.rmtree(folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(folder / name)


@functools.cache
def _sweep_once(folder: Path) -> None:
    sweep_parts(folder)


def _named(error: OSError, path: Path) -> OSError:
    """The error, with its number and so with its class, in words about ``path``."""
    reason = f"cannot write {path}: {error.strerror or one_line(error)}"
    named = type(OSError(error.errno, ""))(reason) if error.errno else OSError(reason)
    named.errno = error.errno
    return named


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
