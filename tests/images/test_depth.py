"""depth: samples of 9 to 16 bits of every kind come out as their own range says, and go into a PNG again."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from taylorir.evaluation.files import upscale_file
from taylorir.images.depth import to_8_bits
from taylorir.images.io import open_picture, read_image, write_image
from tests.pictures import png, png_chunk

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = [0, 128, 129, 385, 386, 0x0800, 0x7FFF, 0x8000, 65406, 65407, 65535]
SHALLOW = [0, 0, 1, 1, 2, 8, 127, 128, 254, 255, 255]  # v / 257 rounded; 257 is odd: no value lies half-way


def samples(channels: int) -> np.ndarray:
    """Each channel runs through the values from another one on."""
    return np.stack([np.roll(np.array(DEEP, np.uint16), k) for k in range(channels)], -1)[None]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tiff(values: np.ndarray, **options) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def pixels_of(path: Path) -> np.ndarray:
    picture = open_picture(path)
    assert picture.notes == () and picture.pixels.dtype == np.uint16
    return picture.pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(tmp_path, channels):
    path = written(tmp_path / "x.png", png(samples(channels)))
    assert np.array_equal(pixels_of(path), samples(channels))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_tiff(tmp_path, channels, compression, byteorder):
    options = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if channels > 1:
        options["planarconfig"] = "contig"
    if channels in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    values = samples(channels) if channels > 1 else samples(1)[..., 0]
    content = tiff(values, compression=compression, byteorder=byteorder, **options)
    assert np.array_equal(pixels_of(written(tmp_path / "x.tif", content)), samples(channels))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_tiff_in_planes(tmp_path, channels, byteorder):
    planes = np.ascontiguousarray(samples(channels).transpose(2, 0, 1))
    options = {"photometric": "rgb", "planarconfig": "separate", "byteorder": byteorder}
    if channels == 4:
        options["extrasamples"] = ["unassalpha"]
    path = written(tmp_path / "x.tif", tiff(planes, **options))
    assert np.array_equal(pixels_of(path), samples(channels))
    with pytest.raises(ValueError, match="interleaved channels"):
        read_image(written(tmp_path / "z.tif", tiff(planes, compression="zlib", **options)))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_white_is_zero(tmp_path, compression, byteorder):
    content = tiff(samples(1)[..., 0], photometric="miniswhite", byteorder=byteorder, compression=compression)
    assert np.array_equal(pixels_of(written(tmp_path / "x.tif", content)), 65535 - samples(1))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_premultiplied_tiff(tmp_path, byteorder):
    # 0x0102 is a quarter of the alpha 0x0408, and a quarter of 65535 is 16383.75
    values = np.array([[[0x0102, 0x0408, 0, 0x0408], [0, 0, 0, 0]]], np.uint16)
    content = tiff(values, photometric="rgb", extrasamples=["assocalpha"], byteorder=byteorder)
    assert pixels_of(written(tmp_path / "x.tif", content)).tolist() == [
        [[16384, 65535, 0, 0x0408], [0, 0, 0, 0]]
    ]


def test_16_bit_cmyk_tiff(tmp_path):
    values = np.array([[[0, 65535, 65535, 0], [0x00FF, 0, 0, 0]]], np.uint16)
    path = written(tmp_path / "x.tif", tiff(values, photometric="separated"))
    assert read_image(path).tolist() == [[[255, 0, 0], [254, 255, 255]]]  # 0x00FF / 257 is nearly 1
    assert open_picture(path).notes == ("16 bits are reduced to 8", "CMYK is turned to sRGB")


def test_12_bit_tiff(tmp_path):
    # two samples in three bytes: 0x800 0xFFF, 0x008 0x009, 0x000 0x7FF; v * 255 / 4095 rounded
    picture = Image.new("I;16", (6, 1))
    picture.save(tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        page = file.pages[0]
        page.tags["BitsPerSample"].overwrite(12)
        file.filehandle.seek(page.dataoffsets[0])
        file.filehandle.write(bytes.fromhex("800fff0080090007ff"))
    assert read_image(tmp_path / "x.tif")[0, :, 0].tolist() == [128, 255, 0, 1, 0, 127]
    # v * 65535 / 4095: 2048 * 16.0037 = 32775.5, up; 8 and 9 * 16.0037 = 128.03 and 144.03
    assert pixels_of(tmp_path / "x.tif")[0, :, 0].tolist() == [32776, 65535, 128, 144, 0, 32759]


@pytest.mark.parametrize(
    ("kind", "largest", "values", "shallow"),
    [
        (5, 1023, [0, 2, 3, 512, 1023], [0, 0, 1, 128, 255]),
        (5, 65535, DEEP, SHALLOW),
        (6, 65535, DEEP[:6], SHALLOW[:6]),
        (6, 1023, [0, 3, 1023], [0, 1, 255]),
        (5, 15, [0, 7, 15], [0, 119, 255]),
        (6, 100, [0, 50, 100], [0, 128, 255]),
        (2, 1023, [0, 2, 3, 512, 1023], [0, 0, 1, 128, 255]),
        (3, 1023, [0, 512, 1023], [0, 128, 255]),
    ],
)
def test_portable_maps(tmp_path, kind, largest, values, shallow):
    bands = 3 if kind in (3, 6) else 1
    header = f"P{kind}\n# a comment\n{len(values) // bands} 1\n{largest}\n".encode()
    body = (
        " ".join(map(str, values)).encode()
        if kind < 4
        else np.array(values, ">u2" if largest > 255 else "u1").tobytes()
    )
    path = written(tmp_path / "x.ppm", header + body)
    pixels = open_picture(path).pixels
    assert to_8_bits(pixels).reshape(-1).tolist() == shallow
    if kind == 3:  # of colour in plain text, Pillow's decoder keeps 8 bits
        assert pixels.dtype == np.uint8
    elif largest > 255:
        assert pixels.reshape(-1).tolist() == [round(value * 65535 / largest) for value in values]
    with pytest.raises(ValueError, match=r"damaged or cut short"):
        read_image(written(path, (header + body)[:-2] if kind > 3 else header))


@pytest.mark.parametrize("kind", [1, 4])
def test_bitmaps(tmp_path, kind):
    body = b"0 1 1 0" if kind == 1 else b"\x60"
    path = written(tmp_path / "x.ppm", f"P{kind}\n4 1\n".encode() + body)
    assert read_image(path)[0, :, 0].tolist() == [255, 0, 0, 255]
    assert open_picture(path).notes == ()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_compared_at_its_own_depth(tmp_path, bits):
    largest = 2**bits - 1
    dtype = np.uint16 if bits == 16 else np.uint8
    values = np.array([[[0], [largest], [largest - 1]]], dtype)
    content = png(values, png_chunk(b"tRNS", largest.to_bytes(2, "big")), bits=bits if bits < 8 else None)
    picture = open_picture(written(tmp_path / "x.png", content))
    assert picture.is_grey
    assert to_8_bits(picture.alpha).tolist() == [[255, 0, 255]]


def test_a_transparent_colour_of_16_bits_is_compared_with_all_of_them(tmp_path):
    values = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD]]], np.uint16)
    content = png(values, png_chunk(b"tRNS", values[0, 0].astype(">u2").tobytes()))
    assert open_picture(written(tmp_path / "x.png", content)).alpha.tolist() == [[0, 65535]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])
def test_16_bits_survive_a_round_trip(tmp_path, channels, height):
    pixels = np.random.default_rng(0).integers(0, 2**16, (height, 5, channels), dtype=np.uint16)
    write_image(tmp_path / "x.png", pixels, icc_profile=PROFILE)
    picture = open_picture(tmp_path / "x.png")
    assert np.array_equal(picture.pixels, pixels) and picture.profile == PROFILE
    with Image.open(tmp_path / "x.png") as other:  # Pillow keeps the upper bytes of colour
        other.load()
        if channels in (3, 4):
            assert np.array_equal(np.asarray(other), pixels >> 8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_in_16_bits_out(tmp_path, channels):
    ramp = np.linspace(20_000, 40_000, 16, dtype=np.uint16)
    pixels = np.broadcast_to(ramp[None, :, None], (16, 16, channels)).copy()
    if channels in (2, 4):
        pixels[..., -1] = 0x8001
    write_image(tmp_path / "x.png", pixels)
    assert upscale_file("bicubic", tmp_path / "x.png", tmp_path / "y.png", upscale=2) == []
    result = open_picture(tmp_path / "y.png").pixels
    assert result.shape == (32, 32, channels) and result.dtype == np.uint16
    # at a quarter of a pixel between two of the ramp
    middle = ramp[7] + (int(ramp[8]) - int(ramp[7])) / 4
    assert np.abs(result[16, 15, 0] - middle) <= 1
    if channels in (2, 4):
        assert (result[..., -1] == 0x8001).all()
    assert upscale_file("bicubic", tmp_path / "x.png", tmp_path / "y.webp", upscale=2) == [
        "16 bits are reduced to 8"
    ]
    assert open_picture(tmp_path / "y.webp").pixels.dtype == np.uint8
