"""resize: bicubic is MATLAB's to the bit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from taylorir.images.io import read_image
from taylorir.images.pixels import mod_crop, to_tensor
from taylorir.images.resize import imresize
from tests.pictures import noise

SHARED = Path(os.environ.get("TAYLORIR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN = SHARED / "datasets" / "golden" / "Set5_LR_bicubic"


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


def test_16_bit_rounds_and_clips_after_each_pass():
    image = np.random.default_rng(0).choice(np.array([0, 40_001, 65_535], np.uint16), (24, 36, 3))
    rows, columns = one_pass(24, 1 / 3), one_pass(36, 1 / 3)
    once = np.clip(np.floor(np.einsum("oh,hwc->owc", rows, image.astype(float)) + 0.5), 0, 65535)
    twice = np.clip(np.floor(np.einsum("ow,hwc->hoc", columns, once) + 0.5), 0, 65535)
    assert np.array_equal(imresize(image, 1 / 3), twice.astype(np.uint16))


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


# MATLAB's imresize.m step by step, positions from 1, one output after the other
def matlab(image: np.ndarray, scale: float | tuple[int, int]) -> np.ndarray:
    old = image.shape[:2]
    new = scale if isinstance(scale, tuple) else [math.ceil(scale * n) for n in old]
    scales = [a / b for a, b in zip(new, old, strict=True)] if isinstance(scale, tuple) else [scale, scale]
    for axis in np.argsort(scales, kind="stable"):
        weights, indices = contributions(old[axis], new[axis], scales[axis])
        lines = np.moveaxis(image.astype(float), axis, 0)
        total = np.zeros((new[axis], *lines.shape[1:]))
        for o in range(new[axis]):
            for weight, index in zip(weights[o], indices[o], strict=True):
                total[o] += weight * lines[index - 1]
        top = np.iinfo(image.dtype).max
        image = np.moveaxis(np.clip(np.floor(total + 0.5), 0, top), 0, axis).astype(image.dtype)
    return image


def contributions(in_length: int, out_length: int, scale: float) -> tuple[list, list]:
    kernel_width = 4 / scale if scale < 1 else 4
    weights, indices = [], []
    aux = [*range(1, in_length + 1), *range(in_length, 0, -1)]
    for x in range(1, out_length + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - kernel_width / 2)
        places = [left + k for k in range(math.ceil(kernel_width) + 2)]
        row = [scale * cubic(scale * (u - i)) if scale < 1 else cubic(u - i) for i in places]
        total = 0.0
        for value in row:
            total += value
        weights.append([value / total for value in row])
        indices.append([aux[(i - 1) % len(aux)] for i in places])
    return weights, indices


def cubic(x: float) -> float:
    absx = abs(x)
    absx2 = absx * absx
    absx3 = absx2 * absx
    return (1.5 * absx3 - 2.5 * absx2 + 1) * (absx <= 1) + (-0.5 * absx3 + 2.5 * absx2 - 4 * absx + 2) * (
        1 < absx <= 2
    )


SCALES = [0.25, 1 / 3, 0.5, 0.7, 0.9, 1.1, 1.7, 2.0, 2.5, 3.0, 4.0, 5.3]


@pytest.mark.parametrize("scale", [*SCALES, (37, 90), (80, 31), (50, 50), (7, 10)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_value_differs_from_matlabs_order_of_operations(scale, dtype):
    steps = np.add.outer(np.arange(50), np.arange(70))[..., None] % 3  # many values half-way
    image = np.concatenate([steps, noise(50, 70, 2)], axis=2).astype(dtype)
    expected = matlab(image, scale)
    result = imresize(image, size=scale) if isinstance(scale, tuple) else imresize(image, scale)
    assert result.shape == expected.shape and np.count_nonzero(result != expected) == 0


def test_the_size_is_rounded_up_as_the_product_of_floats_says():
    assert imresize(np.zeros((50, 20), np.uint8), 1.1).shape == (56, 22)  # 1.1 * 50 is 55.00000000000001


def test_a_size_need_not_keep_the_shape():
    image = np.random.default_rng(1).random((6, 9))
    rows, columns = one_pass(6, 12 / 6), one_pass(9, 3 / 9)
    assert imresize(image, size=(12, 3)) == pytest.approx(rows @ image @ columns.T, abs=1e-12)


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
    monkeypatch.setattr("taylorir.images.resize._CHUNK_VALUES", 999)
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
        (np.zeros((4, 4), np.int32), 2.0, TypeError, "uint8, uint16 or floating"),
        (np.zeros(4), 2.0, ValueError, r"\[H, W\]"),
        (np.zeros((0, 4)), 2.0, ValueError, "empty"),
        ([[1]], 2.0, TypeError, "numpy array or a torch tensor"),
    ],
)
def test_imresize_refuses(image, scale, error, message):
    with pytest.raises(error, match=message):
        imresize(image, scale)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a scale or a size"),
        ({"scale": 2.0, "size": (8, 8)}, "either a scale or a size"),
        ({"size": (0, 8)}, "positive height and width"),
        ({"size": (8, 8, 3)}, "positive height and width"),
    ],
)
def test_imresize_wants_one_size(arguments, message):
    with pytest.raises(ValueError, match=message):
        imresize(np.zeros((4, 4)), **arguments)
