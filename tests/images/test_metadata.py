"""metadata: whatever a file says beside its pixels, they are read, upright; a sound profile is kept."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from taylorir.images.io import open_picture, read_image
from tests.pictures import PNG_SIGNATURE, noise, png, png_chunk

PIXELS = noise(4, 6, 3)
MIB = 2**20
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of tags in the order given: tag, type, count, four bytes of value."""
    table = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)


def turned(orientation: int) -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack("<I", orientation)


def saved(suffix: str, **options) -> bytes:
    file = BytesIO()
    if suffix == ".webp":
        options |= {"lossless": True}
    Image.fromarray(PIXELS).save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def read(tmp_path: Path, suffix: str, content: bytes) -> np.ndarray:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    return read_image(path)


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    content = saved(".jpg")
    new = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return content[:2] + new + content[2:]


# the field's table of orientations: what to do with the stored pixels
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_read_beside_tags_of_a_wrong_type(tmp_path, suffix, orientation):
    plain = read(tmp_path, suffix, saved(suffix))
    if suffix == ".tif":
        file = BytesIO()
        tags = [(0x0112, 3, 1, orientation, True), (0x011A, 2, 4, "abc", True), (0x8769, 2, 4, "abc", True)]
        tifffile.imwrite(file, PIXELS, photometric="rgb", metadata=None, resolution=None, extratags=tags)
        content = file.getvalue()
    else:
        wrong = (0x010F, 13, 1, b"\xff\xff\0\0"), (0x011A, 2, 4, b"abc\0"), (0x8769, 2, 4, b"abc\0")
        content = saved(suffix, exif=exif(wrong[0], turned(orientation), *wrong[1:]))
    assert np.array_equal(read(tmp_path, suffix, content), UPRIGHT[orientation](plain))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0" + noise(500).tobytes(),
        b"Exif\0\0II*\0" + b"\xff" * 40,
        b"Exif\0\0",
        exif(turned(9)),
        exif(turned(0)),
        exif((0x0112, 2, 4, b"six\0")),
        exif((0x0112, 12, 400, b"\xff\xff\xff\x7f")),
    ],
    ids=["noise", "ones", "empty", "nine", "zero", "a word", "far away"],
)
def test_junk_exif_is_passed_over(tmp_path, suffix, block):
    assert np.array_equal(
        read(tmp_path, suffix, saved(suffix, exif=block)), read(tmp_path, suffix, saved(suffix))
    )


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3 * MIB)),
        png_chunk(b"tEXt", b"Comment\0" + b"x" * 3 * MIB),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 3 * MIB)),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\nzz")),
        png_chunk(b"iCCP", b"wide\0\0" + zlib.compress(b"x" * 3 * MIB)),
        png_chunk(b"iCCP", b"none\0\7nothing"),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"cHRM", b"\0" * 5),
        png_chunk(b"gAMA", b""),
        png_chunk(b"acTL", b"\0"),
        png_chunk(b"tEXt", b"Comment\0x")[:-4] + b"xxxx",
        png_chunk(b"zTXt", b"Comment\0\7" + b"x" * 9),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
def test_chunks_beside_the_pixels_do_not_matter_in_a_png(tmp_path, chunk):
    content = png(PIXELS, chunk)
    assert np.array_equal(read(tmp_path, ".png", content), PIXELS)
    end = png_chunk(b"IEND", b"")
    late = png(PIXELS).removesuffix(end) + chunk + end
    assert np.array_equal(read(tmp_path, ".png", late), PIXELS)


def test_a_large_profile_of_a_png_is_kept(tmp_path):
    profile = PROFILE + bytes(3 * MIB)
    (tmp_path / "x.png").write_bytes(png(PIXELS, png_chunk(b"iCCP", b"wide\0\0" + zlib.compress(profile))))
    assert open_picture(tmp_path / "x.png").profile == profile


@pytest.mark.parametrize(
    "segment",
    [
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed\x00\x00\x00\x00\x00\x02ab8BIM"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + noise(200).tobytes()),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + noise(200).tobytes()),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"FPXR\0"),
        (0xFE, noise(65000).tobytes()),
    ],
    ids=["resolution", "short", "pages", "xmp", "profile", "flashpix", "comment"],
)
def test_segments_beside_the_pixels_do_not_matter_in_a_jpeg(tmp_path, segment):
    plain = read(tmp_path, ".jpg", saved(".jpg"))
    assert np.array_equal(read(tmp_path, ".jpg", jpeg_with(segment)), plain)
    assert open_picture(tmp_path / "x.jpg").profile is None


def test_a_profile_in_parts_is_put_together_in_a_jpeg(tmp_path):
    parts = [PROFILE[:200], PROFILE[200:]]
    segments = [(0xE2, b"ICC_PROFILE\0" + bytes([k + 1, 2]) + part) for k, part in enumerate(parts)]
    (tmp_path / "x.jpg").write_bytes(jpeg_with(*segments[::-1]))
    assert open_picture(tmp_path / "x.jpg").profile == PROFILE


@pytest.mark.parametrize(
    "tag",
    [
        (0x8773, 3, 4, (1, 2, 3, 4), True),
        (0x8773, 7, 400, b"x" * 400, True),
        (0x8769, 4, 1, 0xFFFFFF, True),
        (0x02BC, 3, 2, (1, 2), True),
        (0x0128, 2, 4, "abc", True),
        (0x0112, 2, 4, "abc", True),
    ],
    ids=["profile", "no profile", "exif", "xmp", "unit", "orientation"],
)
def test_tags_beside_the_pixels_do_not_matter_in_a_tiff(tmp_path, tag):
    file = BytesIO()
    resolution = {} if tag[0] == 0x0128 else {"resolution": (3, 3), "resolutionunit": 3}
    tifffile.imwrite(file, PIXELS, photometric="rgb", metadata=None, extratags=[tag], **resolution)
    assert np.array_equal(read(tmp_path, ".tif", file.getvalue()), PIXELS)
    assert open_picture(tmp_path / "x.tif").profile is None


def test_what_makes_a_picture_still_counts(tmp_path):
    content = png(PIXELS)
    (tmp_path / "x.png").write_bytes(content.replace(b"IDAT", b"IDAt"))
    with pytest.raises(ValueError, match=r"x\.png"):
        read_image(tmp_path / "x.png")
    header = content[len(PNG_SIGNATURE) : len(PNG_SIGNATURE) + 25]
    (tmp_path / "x.png").write_bytes(content.replace(header, header[:-1] + b"x"))
    with pytest.raises(ValueError, match=r"x\.png"):
        read_image(tmp_path / "x.png")


def test_a_jpeg_that_is_decoded_over_and_over_is_refused(tmp_path):
    content = saved(".jpg", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="more than 200 scans"):
        read(tmp_path, ".jpg", content[:-2] + scan * 200 + content[-2:])
