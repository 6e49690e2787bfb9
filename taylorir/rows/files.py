"""Files that appear whole or not at all, and errors in one line."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write through a hidden neighbour that is renamed when complete and removed when anything fails.

    Args:
        path: the file to be.
        write: called with the open binary file.

    Raises:
        OSError: the file cannot be written; the message names ``path``, not the neighbour.
        ValueError: ``write`` refused the content.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with partial.open("wb") as file:
                write(file)
            os.replace(partial, path)
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise type(error)(f"cannot write {path}: {reason}") from None
        except (ValueError, struct.error) as error:
            raise ValueError(f"cannot write {path}: {one_line(error)}") from None
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
