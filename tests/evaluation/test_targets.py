"""What cannot be read or written is said before the work, without waiting and without a trace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taylorir.evaluation import files
from taylorir.evaluation.files import upscale_file
from taylorir.evaluation.targets import LARGEST_SIDE, check_source, check_target, check_writable
from taylorir.images.io import write_image
from tests.pictures import noise


@pytest.fixture
def picture(tmp_path):
    write_image(tmp_path / "a.png", noise(9, 9, 3))
    return tmp_path / "a.png"


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path(os.devnull)):
        with pytest.raises(ValueError, match="is a pipe or a device, expected an image file"):
            check_source(path)
        with pytest.raises(ValueError, match="is a pipe or a device"):
            upscale_file("bicubic", path, tmp_path / "o.png", upscale=2)
        with pytest.raises(ValueError, match="it is a pipe or a device"):
            check_writable(path)


def test_links_to_nothing_are_told_from_nothing(tmp_path):
    (tmp_path / "link.png").symlink_to("gone.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name in ("link", "loop"):
        with pytest.raises(FileNotFoundError, match="is a link to nothing"):
            check_source(tmp_path / f"{name}.png")
    with pytest.raises(FileNotFoundError, match="no such file"):
        check_source(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        check_source(tmp_path)


@pytest.mark.parametrize("suffix", sorted(LARGEST_SIDE))
def test_formats_hold_what_they_are_said_to_hold(tmp_path, suffix):
    side = LARGEST_SIDE[suffix]
    write_image(tmp_path / f"most{suffix}", np.zeros((1, side), np.uint8))
    with pytest.raises((ValueError, OSError)):
        write_image(tmp_path / f"more{suffix}", np.zeros((1, side + 1), np.uint8))


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 8192), (".JPG", 32_751)])
def test_a_formats_limit_is_found_before_the_work(tmp_path, monkeypatch, suffix, side):
    monkeypatch.setattr(files, "super_resolved_parts", lambda *_, **__: pytest.fail("the work had begun"))
    for size in ((8, side), (side, 8)):
        Image.new("L", size).save(tmp_path / "a.png")
        with pytest.raises(
            ValueError, match=rf"has {2 * size[0]}x{2 * size[1]} pixels, {suffix.lower()} at most"
        ):
            upscale_file("bicubic", tmp_path / "a.png", tmp_path / f"o{suffix}", upscale=2)


def test_a_target_is_tried_without_a_trace(picture):
    folder = picture.parent
    (folder / ".o.png.writable").write_text("of another process that tries the same, or of somebody's")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    check_writable(folder / "o.png")
    check_target(picture, folder / "o.png")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_targets_that_cannot_be(picture):
    folder = picture.parent
    for target, error, message in (
        (picture, ValueError, "is the picture itself"),
        (folder / "o.gif", ValueError, "the suffix must be one of"),
        (folder / "none" / "o.png", FileNotFoundError, "none/o.png: No such file or directory"),
        (folder / ("x" * 252 + ".png"), OSError, "File name too long"),
    ):
        with pytest.raises(error, match=message):
            check_target(picture, target)
    (folder / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.png: it is a folder"):
        check_target(picture, folder / "folder.png")
    (folder / "same.png").hardlink_to(picture)
    with pytest.raises(ValueError, match="is the picture itself"):
        check_target(picture, folder / "same.png")


@pytest.mark.parametrize("length", [231, 255])
def test_the_longest_names_are_written(picture, length):
    target = picture.parent / ("x" * (length - 4) + ".png")
    assert upscale_file("bicubic", picture, target, upscale=2) == [] and target.is_file()
