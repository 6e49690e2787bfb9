"""Files of tensors as people have them, read without running code from them; what is none is told so.

What a file is, its content says, not its suffix: safetensors, or what ``torch.save`` writes (``.pth``,
``.pt``, ``.ckpt``, ``.bin``, ``.PTH``).
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from taylorir.rows import one_line

RECORD_KEY = "taylorir"
"""Key of the record in the header of a safetensors file."""
LARGEST_RECORD = 2**20  # bytes of JSON

# Where training scripts put the state dict; averaged weights before others.
_LEVELS = ("params_ema", "params-ema", "ema", "params", "state_dict", "model", "net_g", "generator")
# How a file begins that is something else.
_OTHERS = {
    b"<": "a page of HTML or XML: what was downloaded is a web page, not the file",
    b"{": "JSON text",
    b"[": "JSON text",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself by 'git lfs pull'",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
}


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors by name, on the CPU, and the record that this package sealed into the file, None without one.

    Levels such as ``params_ema`` or ``state_dict`` are entered.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no tensors by name, is damaged, or could only be read by running code from it.
        OSError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(64)
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    if not start:
        raise ValueError(f"{path} is empty")
    for magic, what in _OTHERS.items():
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(magic):
            raise ValueError(f"{path} holds no weights: it is {what}")
    return _read_torch(path), None


def parse_record(text: str | bytes, source: object) -> dict:
    """A JSON object.

    Raises:
        ValueError: not one, nested too deep, or larger than ``LARGEST_RECORD``.
    """
    try:
        record = json.loads(text) if len(text) <= LARGEST_RECORD else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{source} is damaged: its record is no JSON object of at most 1 MiB")
    return record


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(RECORD_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} is no readable safetensors file, it may be damaged or cut short: {one_line(error)[:200]}"
        ) from None
    return tensors, None if text is None else parse_record(text, path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    content = _unpickled(path)
    for _ in _LEVELS:
        level = next((key for key in _LEVELS if isinstance(content, Mapping) and key in content), None)
        if level is None or not isinstance(content[level], Mapping):
            break
        content = content[level]
    if not isinstance(content, Mapping) or not content:
        what = "an empty dict" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds no state dict of tensors, but {what}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path} holds no state dict of tensors by name: {key!r:.80} names a {type(value).__name__}"
            )
    return dict(content)


def _unpickled(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            raise ValueError(f"{path} is a TorchScript program: save its state_dict() and give that")
        if "data.pkl" not in names:
            raise ValueError(f"{path} is a zip archive of other files: if the weights are in it, unpack it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a decoder says of a strange file, the file is at fault
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        why = (
            f"only running code from it could make its {found[1]}; save the state dict alone"
            if found
            else "it is damaged, cut short or of another kind"
        )
        raise ValueError(f"{path} is no weights file that can be read: {why}") from None
