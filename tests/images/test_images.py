"""images: bicubic is MATLAB's to the bit, odd files read right or fail with one line, writing is atomic."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from taylorir.images.images import (
    imresize,
    mod_crop,
    open_picture,
    pad_to_multiple,
    read_image,
    rgb_to_y,
    to_image,
    to_tensor,
    write_image,
)
from taylorir.rows.files import write_atomic
from tests.pictures import noise, png_header

SHARED = Path(os.environ.get("TAYLORIR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN = SHARED / "datasets" / "golden" / "Set5_LR_bicubic"


# ---------------------------------------------------------------------------------------------------- bicubic


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden MATLAB images (set TAYLORIR_SHARED)")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imresize_is_matlabs_to_the_bit(scale):
    values = 0
    for file in sorted((SHARED / "datasets" / "benchmarks" / "Set5").glob("*.png")):
        expected = read_image(GOLDEN / f"X{scale}" / f"{file.stem}x{scale}.png")
        lr = imresize(mod_crop(read_image(file), scale), 1 / scale)
        assert np.count_nonzero(lr != expected) == 0
        values += lr.size
    assert values == {2: 425592, 3: 187962, 4: 106398}[scale]


def test_upscaling_by_two_useskeys_weights():
    # at a quarter of a pixel, the kernel with a = -1/2 weighs the four neighbours by these 128ths
    row = torch.tensor([[0.0, 0.0, 0.0, 128.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    up = imresize(row, 2.0)[0]
    expected = [0, 0, 0, -3, -9, 29, 111, 111, 29, -9, -3, 0, 0, 0]
    torch.testing.assert_close(up.tolist(), [float(x) for x in expected], rtol=0, atol=1e-12)


def test_halving_stretches_the_kernel():
    # the same 128ths, spread over eight pixels: output o is centred on 2 o + 1/2
    column = torch.zeros(16, 1, dtype=torch.float64)
    column[7] = 256.0
    assert imresize(column, 0.5)[:, 0].tolist() == pytest.approx([0, 0, -9, 111, 29, -3, 0, 0], abs=1e-12)


def test_border_repeats_the_edge():
    # the first output is centred on -1/4: pixels -2, -1, 0, 1 are b, a, a, b
    a, b = 10.0, 50.0
    expected = (-3 * b + 29 * a + 111 * a - 9 * b) / 128
    assert imresize(np.array([[a, b, 0.0, 0.0]]), 2.0)[0, 0] == pytest.approx(expected, abs=1e-12)


def test_8_bit_rounds_half_up_after_each_pass_vertical_first():
    image = noise(24, 36, 3)
    rows, columns = one_pass(24, 1 / 3), one_pass(36, 1 / 3)
    once = np.clip(np.floor(np.einsum("oh,hwc->owc", rows, image.astype(float)) + 0.5), 0, 255)
    twice = np.clip(np.floor(np.einsum("ow,hwc->hoc", columns, once) + 0.5), 0, 255)
    assert np.array_equal(imresize(image, 1 / 3), twice.astype(np.uint8))


def one_pass(n: int, scale: float) -> np.ndarray:
    """One pass as a matrix, built from the definition by loops."""
    out = int(np.ceil(n * scale))
    stretch = min(scale, 1.0)
    matrix = np.zeros((out, n))
    for o in range(out):
        centre = (o + 0.5) / scale - 0.5
        taps = range(int(centre - 3 / stretch) - 2, int(centre + 3 / stretch) + 3)
        weights = [keys((centre - i) * stretch) for i in taps]
        for i, weight in zip(taps, weights, strict=True):
            j = i % (2 * n)
            matrix[o, j if j < n else 2 * n - 1 - j] += weight / sum(weights)
    return matrix


def keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (11, 6)], ids=str)
@pytest.mark.parametrize("scale", [2.0, 3.0, 0.5, 0.25])
def test_imresize_equals_its_definition_on_awkward_shapes(shape, scale):
    image = np.random.default_rng(1).random(shape)
    rows, columns = (one_pass(n, scale) for n in shape)
    assert imresize(image, scale) == pytest.approx(rows @ image @ columns.T, abs=1e-12)


def test_numpy_and_torch_agree_and_memory_chunks_do_not_show(monkeypatch):
    image = noise(50, 70, 3)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    expected = imresize(image, 0.25)
    assert np.array_equal(imresize(tensor[None], 0.25)[0].numpy().transpose(1, 2, 0), expected)
    monkeypatch.setattr("taylorir.images.images._CHUNK_VALUES", 999)
    assert np.array_equal(imresize(image, 0.25), expected)


def test_read_only_arrays_do_not_warn():
    image = noise(6, 1, 3)
    image.flags.writeable = False
    assert imresize(image, 2.0).shape == (12, 2, 3) and to_tensor(image).shape == (1, 3, 6, 1)


def test_imresize_has_the_right_gradient():
    image = torch.rand(1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), image)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 2.0), image)


@pytest.mark.parametrize(
    ("image", "scale", "error", "message"),
    [
        (np.zeros((4, 4)), 0.0, ValueError, "scale must be positive"),
        (np.zeros((4, 4)), float("nan"), ValueError, "scale must be positive"),
        (np.zeros((4, 4), np.int32), 2.0, TypeError, "uint8 or floating"),
        (np.zeros(4), 2.0, ValueError, r"\[H, W\]"),
        (np.zeros((0, 4)), 2.0, ValueError, "empty"),
        ([[1]], 2.0, TypeError, "numpy array or a torch tensor"),
    ],
)
def test_imresize_refuses(image, scale, error, message):
    with pytest.raises(error, match=message):
        imresize(image, scale)


# ----------------------------------------------------------------------------------- luma, crop, pad, tensors


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert rgb_to_y(colours)[0] == pytest.approx([16.0, 235.0, 81.481, 144.553, 40.966], abs=1e-12)
    assert rgb_to_y(torch.from_numpy(colours).permute(2, 0, 1))[0].tolist() == pytest.approx(
        [16.0, 235.0, 81.481, 144.553, 40.966], abs=1e-12
    )


def test_mod_crop_cuts_bottom_and_right():
    image = noise(7, 11, 3)
    assert np.array_equal(mod_crop(image, 3), image[:6, :9])
    assert mod_crop(image[:6, :9], 3).shape == (6, 9, 3)
    with pytest.raises(ValueError, match="2x7 pixels cannot be cropped"):
        mod_crop(image[:, :2], 3)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("reflect", [1, 2, 3], [1, 2, 3, 2]),
        ("reflect", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("reflect", [1, 2], [1, 2, 1, 2]),
        ("reflect", [1], [1, 1, 1, 1]),
        ("flip", [1, 2, 3], [1, 2, 3, 3]),
        ("flip", [1, 2, 3, 4], [1, 2, 3, 4, 4, 3, 2, 1]),
        ("flip", [1], [1, 1, 1, 1]),
    ],
)
def test_padding_by_hand(mode, values, expected):
    row = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    assert pad_to_multiple(row.expand(1, 1, 4, -1), 4, mode)[0, 0, 0].tolist() == expected
    assert pad_to_multiple(row.mT.expand(1, 1, -1, 4), 4, mode)[0, 0, :, 0].tolist() == expected


def test_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="reflect, flip"):
        pad_to_multiple(torch.zeros(1, 3, 4, 4), 4, "wrap")


def test_tensor_and_back():
    image = noise(5, 7, 3)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 5, 7) and tensor[0, 1, 2, 3].item() == pytest.approx(image[2, 3, 1] / 255)
    assert np.array_equal(to_image(tensor), image)
    assert to_image(torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1)).tolist() == [[[0, 128, 255]]]


# ------------------------------------------------------------------------------------------------- odd files


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


def test_16_bit_is_scaled_and_noted(tmp_path):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = save(tmp_path / "d.png", Image.fromarray(deep))
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert open_picture(path).info["notes"] == ["16 bits are reduced to 8"]
    assert read_image(save(tmp_path / "d.tif", Image.fromarray(deep)))[0, :, 0].tolist() == [
        0,
        0,
        1,
        1,
        128,
        255,
    ]


def test_float_pixels_have_no_8_bit_meaning(tmp_path):
    path = save(tmp_path / "f.tif", Image.fromarray(np.ones((3, 3), np.float32)))
    with pytest.raises(ValueError, match="no defined 8-bit meaning"):
        read_image(path)


def test_cmyk(tmp_path):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = save(tmp_path / "c.jpg", ink, quality=95)
    assert np.abs(read_image(path).astype(int) - [255, 0, 0]).max() <= 3
    broken = save(tmp_path / "b.jpg", ink, quality=95, icc_profile=b"not a profile at all")
    assert np.abs(read_image(broken).astype(int) - [255, 0, 0]).max() <= 3
    assert open_picture(path).info == {"notes": ["CMYK is turned to sRGB"]}


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
    assert open_picture(path).info["notes"] == ["only the first frame is used"]


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
    assert open_picture(tmp_path / "x.jpg").info["icc_profile"] == profile
    assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize(
    ("name", "image", "error", "message"),
    [
        ("x.bmp", np.zeros((2, 2, 3), np.uint8), ValueError, "suffix must be one of"),
        ("x.png", np.zeros((2, 2, 3)), TypeError, "uint8"),
        ("x.png", np.zeros((2, 2, 5), np.uint8), ValueError, "image must be"),
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
