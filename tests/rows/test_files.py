"""Files appear whole, what was killed is swept, and errors are the true ones in one line."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from taylorir.rows.files import one_line, part_path, sweep_parts, write_atomic, write_rows

ROOT = Path(__file__).resolve().parents[2]


def write(content: bytes):
    return lambda file: file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    for content in (b"one", b"two"):
        write_atomic(tmp_path / "x.csv", write(content))
        assert (tmp_path / "x.csv").read_bytes() == content and names(tmp_path) == ["x.csv"]


def test_a_file_has_the_mode_that_the_user_gives_to_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "x", write(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["n" * 250, "é" * 125], ids=["ascii", "two bytes each"])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    write_atomic(tmp_path / name, write(b"x"))
    assert names(tmp_path) == [name]


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path, monkeypatch):
    planted = part_path(tmp_path)
    (tmp_path / "victim").write_bytes(b"mine")
    planted.symlink_to(tmp_path / "victim")
    monkeypatch.setattr("taylorir.rows.files.part_path", lambda folder: planted)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "x", write(b"evil"))
    assert (tmp_path / "victim").read_bytes() == b"mine" and not (tmp_path / "x").exists()


def raises(error: BaseException):
    def write(_file):
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            OSError(28, "No space left on device", "neighbour"),
            OSError,
            "cannot write {}: No space left on device",
        ),
        (PermissionError(13, "Permission denied"), PermissionError, "cannot write {}: Permission denied"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), ValueError, "cannot write {}: 'ascii' codec"),
        (subprocess.TimeoutExpired("x", 1), subprocess.TimeoutExpired, "timed out"),
    ],
    ids=["disk full", "permission", "value", "another"],
)
def test_the_true_error_stays_even_where_the_part_cannot_be_removed(
    tmp_path, monkeypatch, error, kind, message
):
    def refuse(_path, missing_ok=False):
        raise PermissionError(1, "cannot remove")

    monkeypatch.setattr(Path, "unlink", refuse)
    path = tmp_path / "x"
    with pytest.raises(kind) as caught:
        write_atomic(path, raises(error))
    assert message.format(path) in str(caught.value)
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)
    assert caught.value is error or caught.value.__cause__ is error


class Picky(OSError):
    """An error whose class wants more than a message."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def test_an_error_of_any_class_is_told(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*x: first second"):
        write_atomic(tmp_path / "x", raises(Picky("first", "second")))
    with pytest.raises(FileNotFoundError, match=r"cannot write .*none/x: No such file"):
        write_atomic(tmp_path / "none" / "x", write(b""))
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from taylorir.rows.files import write_atomic
write_atomic(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))
"""
LATER = """
import sys
from pathlib import Path
from taylorir.rows.files import write_atomic
write_atomic(Path(sys.argv[1]), lambda file: file.write(b"whole"))
"""


def test_the_part_of_a_killed_write_is_swept_by_the_next_process(tmp_path):
    def run(code: str) -> int:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], cwd=ROOT).returncode

    assert run(KILLED) == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    assert run(LATER) == 0
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"whole"


def test_only_parts_of_processes_that_are_no_more_are_swept(tmp_path):
    mine = part_path(tmp_path).name
    start, host, _, _, _ = mine.rsplit("-", 4)
    before = f"{start}-{host}-{os.getpid()}-00000000-7.part"  # this number, before the machine started again
    living = f"{start}-{host}-{os.getppid()}-00000000-0.part"
    elsewhere = f"{start}-elsewhere-999999999-00000000-0.part"
    dead = f"{start}-{host}-999999999-00000000-0.part"
    for name in (mine, before, living, elsewhere, "x.part", ".taylorir"):
        (tmp_path / name).touch()
    (tmp_path / dead / "deep").mkdir(parents=True)
    sweep_parts(tmp_path)
    assert names(tmp_path) == sorted([mine, living, elsewhere, "x.part", ".taylorir"])
    sweep_parts(tmp_path / "none")


def test_what_an_error_says_is_one_line():
    assert one_line(ValueError("a\n  b")) == "a b" and one_line(KeyError()) == "KeyError"


def test_rows_are_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "linesep", "\r\n")
    rows = pd.DataFrame({"a": [1.23456789, 2.0], "b": ["x", "y"]}, index=[7, 8])
    write_rows(tmp_path / "all.csv", rows)
    assert (tmp_path / "all.csv").read_bytes() == b"a,b\n1.23456789,x\n2.0,y\n"
    write_rows(tmp_path / "short.csv", rows, "%.3g")
    assert (tmp_path / "short.csv").read_bytes() == b"a,b\n1.23,x\n2,y\n"
