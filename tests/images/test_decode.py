"""decode: a list of formats whatever the suffix, the first frame, and any fault of a file in one line."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from taylorir.images.io import READABLE_SUFFIXES, open_picture, read_image
from tests.pictures import noise, png, png_chunk

PIXELS = noise(9, 7, 3)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 7\n%%EndComments\n{ } loop\n%%EOF\n"


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_every_readable_suffix_is_read(tmp_path, suffix):
    grey = suffix in (".pgm", ".gif")
    Image.fromarray(PIXELS[..., 0] if grey else PIXELS).save(tmp_path / f"x{suffix}")
    (tmp_path / f"x{suffix}").rename(tmp_path / "x.txt")
    read = read_image(tmp_path / "x.txt").astype(int)
    lossy = suffix in (".jpg", ".jpeg", ".webp")
    assert read.shape == PIXELS.shape
    assert lossy or np.array_equal(read, np.dstack([PIXELS[..., 0]] * 3) if grey else PIXELS)


@pytest.mark.parametrize(
    "format",
    ["AVIF", "DDS", "ICO", "PCX", "SGI", "TGA", "JPEG2000", "QOI", "ICNS", "MSP", "EPS", "PDF"],
)
def test_any_other_format_is_refused_whatever_its_suffix(tmp_path, format, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    path = tmp_path / "holiday.png"
    if format == "EPS":
        path.write_bytes(EPS)
    else:
        picture = Image.new("1" if format == "MSP" else "RGB", (32, 32))
        picture.save(path, format)
    with pytest.raises(ValueError, match=r"holiday\.png is not an image that can be read \(PNG, JPEG, WebP"):
        read_image(path)
    assert started == []


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp"])
def test_one_frame_is_no_reason_for_a_note_and_two_are(tmp_path, suffix):
    frames = [Image.new("L", (8, 8), value).convert("RGB") for value in (0, 255)]
    frames[0].save(tmp_path / f"x{suffix}")
    assert open_picture(tmp_path / f"x{suffix}").notes == ()
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / f"x{suffix}").notes == ("only the first frame is used",)
    assert not read_image(tmp_path / f"x{suffix}").any()


@pytest.mark.parametrize(("frames", "notes"), [(1, ()), (2, ("only the first frame is used",))])
def test_frames_of_a_png(tmp_path, frames, notes):
    (tmp_path / "x.png").write_bytes(png(PIXELS, png_chunk(b"acTL", struct.pack(">II", frames, 0))))
    assert open_picture(tmp_path / "x.png").notes == notes
    assert np.array_equal(read_image(tmp_path / "x.png"), PIXELS)


@pytest.mark.parametrize("page", [b"", b"\xff" * 200, noise(200).tobytes(), b"\1\0" + b"\0\1\3\0" * 9])
def test_a_broken_second_page_does_not_matter(tmp_path, page):
    path = tmp_path / "x.tif"
    Image.fromarray(PIXELS).save(path)
    content = bytearray(path.read_bytes())
    table = int.from_bytes(content[4:8], "little")
    following = table + 2 + 12 * int.from_bytes(content[table : table + 2], "little")
    content[following : following + 4] = len(content).to_bytes(4, "little")
    path.write_bytes(bytes(content) + page)
    assert np.array_equal(read_image(path), PIXELS)
    assert open_picture(path).notes == ("only the first frame is used",)


def test_a_broken_second_frame_of_a_gif_does_not_matter(tmp_path):
    frames = [Image.fromarray(noise(9, 7, seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "x.gif").read_bytes()
    second = content.rindex(b"\x2c\0\0\0\0\7\0\x09\0")
    (tmp_path / "x.gif").write_bytes(content[: second + 5])
    assert np.array_equal(read_image(tmp_path / "x.gif")[..., 0], noise(9, 7))


def test_of_many_pages_the_tables_are_not_read(tmp_path, monkeypatch):
    pages = [Image.new("L", (2, 2))] * 50
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    tables = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda *args: tables.append(args) or load(*args)
    )
    assert open_picture(tmp_path / "x.tif").notes == ("only the first frame is used",)
    assert len(tables) <= 2  # that of the first page, by Pillow twice


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_the_limit_of_pixels_holds_for_every_format(tmp_path, suffix):
    Image.new("L", (20, 10)).save(tmp_path / f"x{suffix}")
    with pytest.raises(ValueError, match="is 20x10, more than the limit of 199 pixels"):
        read_image(tmp_path / f"x{suffix}", max_pixels=199)
    assert read_image(tmp_path / f"x{suffix}", max_pixels=200).shape == (10, 20, 3)


@pytest.mark.parametrize("step", ["open_undecoded", "decode"])
@pytest.mark.parametrize(
    "error",
    [KeyError("tag"), RuntimeError("C"), RecursionError(), AssertionError(), MemoryError(), TypeError()],
)
def test_whatever_a_decoder_raises_is_the_fault_of_the_file(tmp_path, monkeypatch, step, error):
    def fail(_):
        raise error

    (tmp_path / "x.png").write_bytes(png(PIXELS))
    monkeypatch.setattr(f"taylorir.images.io.{step}", fail)
    with pytest.raises(ValueError, match=r"x\.png is (not|damaged)") as caught:
        read_image(tmp_path / "x.png")
    assert "\n" not in str(caught.value)


def test_an_interrupt_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    (tmp_path / "x.png").write_bytes(png(PIXELS))
    monkeypatch.setattr("taylorir.images.io.decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(tmp_path / "x.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ValueError, match="is no file, expected an image file"):
        read_image(tmp_path / "x.png")


def test_a_dangling_link_is_a_missing_file(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*x\.png"):
        read_image(Path(tmp_path / "x.png"))
