"""io: odd files read right or fail with one line, writing is atomic."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from taylorir.images.io import open_picture, read_image, write_image
from taylorir.images.resize import imresize
from taylorir.rows.files import write_atomic
from tests.pictures import noise, png_header


def save(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


def test_greyscale_palette_and_bilevel(tmp_path):
    grey = noise(9, 12)
    assert np.array_equal(read_image(save(tmp_path / "g.png", Image.fromarray(grey))), np.dstack([grey] * 3))
    bilevel = Image.fromarray(grey > 127)
    assert set(np.unique(read_image(save(tmp_path / "b.png", bilevel)))) == {0, 255}
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert read_image(save(tmp_path / "p.png", palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparency_is_composited_on_white(tmp_path):
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    read = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert read.tolist() == [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    grey = Image.fromarray(np.array([[[100, 0], [100, 255]]], np.uint8))
    assert grey.mode == "LA" and read_image(save(tmp_path / "la.png", grey))[0, :, 0].tolist() == [255, 100]


def test_float_pixels_have_no_defined_black_and_white(tmp_path):
    path = save(tmp_path / "f.tif", Image.fromarray(np.ones((3, 3), np.float32)))
    with pytest.raises(ValueError, match="no defined black and white"):
        read_image(path)


def test_cmyk(tmp_path):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = save(tmp_path / "c.jpg", ink, quality=95)
    assert np.abs(read_image(path).astype(int) - [255, 0, 0]).max() <= 3
    broken = save(tmp_path / "b.jpg", ink, quality=95, icc_profile=b"not a profile at all")
    assert np.abs(read_image(broken).astype(int) - [255, 0, 0]).max() <= 3
    assert open_picture(path).notes == ("CMYK is turned to sRGB",)


def test_exif_orientation_is_applied(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = save(tmp_path / "r.png", Image.fromarray(pixels), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(pixels, -1))


def test_only_the_first_frame_counts(tmp_path):
    frames = [Image.new("L", (3, 2), value) for value in (50, 200)]
    path = save(tmp_path / "m.tif", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(path) == 50).all()
    assert open_picture(path).notes == ("only the first frame is used",)


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)], ids=str)
def test_extreme_shapes_survive_a_round_trip(tmp_path, size):
    pixels = noise(size[1], size[0], 3)
    write_image(tmp_path / "x.png", pixels)
    assert np.array_equal(read_image(tmp_path / "x.png"), pixels)
    assert imresize(pixels, 2.0).shape == (2 * size[1], 2 * size[0], 3)


@pytest.mark.parametrize("side", [10_500, 14_200, 60_000], ids=["110 MP", "202 MP", "3600 MP"])
def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"limit of 100,000,000 pixels") as caught:
        read_image(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; decoded it is 330,000


@pytest.mark.parametrize("kind", ["text", "empty", "truncated.jpg", "truncated.png", "broken.png", "folder"])
def test_broken_files_fail_with_one_line(tmp_path, kind):
    path = tmp_path / ("x.jpg" if kind.endswith("jpg") else "x.png")
    if kind == "folder":
        path.mkdir()
    elif "." in kind:
        Image.fromarray(noise(64, 64, 3)).save(path)
        content = path.read_bytes()
        content = (
            content[: len(content) // 2]
            if kind.startswith("truncated")
            else content[:60] + b"!" + content[61:]
        )
        path.write_bytes(content)
    else:
        path.write_text("no picture" if kind == "text" else "")
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image file"):
        read_image(tmp_path / "none.png")


# -------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["grey", "rgb", "rgba"])
def test_lossless_formats_keep_every_value(tmp_path, suffix, channels):
    pixels = noise(10, 13, *channels)
    if channels == (4,):
        pixels[..., 3] |= 1  # WebP may drop the colour of fully transparent pixels
    write_image(tmp_path / f"x{suffix}", pixels)
    with Image.open(tmp_path / f"x{suffix}") as picture:
        mode = "L" if not channels else "RGB" if channels == (3,) else "RGBA"
        assert np.array_equal(np.array(picture.convert(mode)), pixels)
    assert [file.name for file in tmp_path.iterdir()] == [f"x{suffix}"]


def test_jpeg_and_profile(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    smooth = np.dstack([np.tile(np.arange(64, dtype=np.uint8), (64, 1))] * 3)
    write_image(tmp_path / "x.jpg", smooth, icc_profile=profile)
    assert open_picture(tmp_path / "x.jpg").profile == profile
    assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize(
    ("name", "image", "error", "message"),
    [
        ("x.bmp", np.zeros((2, 2, 3), np.uint8), ValueError, "suffix must be one of"),
        ("x.png", np.zeros((2, 2, 3)), TypeError, "uint8"),
        ("x.png", np.full((2, 2, 3), np.nan), TypeError, "uint8 or uint16 array, not float64"),
        ("x.png", np.zeros((2, 2, 5), np.uint8), ValueError, "image must be"),
        ("x.webp", np.zeros((2, 2, 3), np.uint16), ValueError, "only PNG holds 16 bits"),
        ("x.jpg", np.zeros((2, 2, 3), np.uint16), ValueError, "only PNG holds 16 bits"),
        ("x.jpg", np.zeros((2, 2, 4), np.uint8), ValueError, "no transparency"),
        ("x.webp", np.zeros((1, 17000), np.uint8), ValueError, "cannot write"),
        ("no/x.png", np.zeros((2, 2, 3), np.uint8), FileNotFoundError, "cannot write .*no/x.png"),
    ],
)
def test_write_image_refuses_and_leaves_nothing(tmp_path, name, image, error, message):
    with pytest.raises(error, match=message):
        write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_keeps_the_old_file(tmp_path):
    (tmp_path / "x.png").write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*x\.png: No space left"):
        write_atomic(tmp_path / "x.png", fail)
    assert (tmp_path / "x.png").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_no_permission_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"^cannot write .*/x\.png: Permission denied$"):
        write_image(tmp_path / "x.png", noise(4, 4, 3))
