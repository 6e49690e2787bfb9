"""Window geometry: who may meet, where tokens go, and what is kept of it, from any thread and transform."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from taylorir.networks import windows
from taylorir.networks.variants import build_model
from tests.random_networks import stirred

CPU = torch.device("cpu")
KEPT = (
    windows.kept_regions,
    windows.window_mask,
    windows.relative_offsets,
    windows.window_order,
    windows.image_order,
)


@pytest.fixture
def nothing_kept():
    for function in KEPT:
        function.kept.clear()


def test_geometry_is_computed_once_and_kept_within_bounds():
    windows.window_mask.kept.clear()
    device = torch.device("cpu")
    first = windows.window_mask(8, 12, 4, 2, device)
    assert windows.window_mask(8, 12, 4, 2, device) is first
    for side in range(4, 140, 4):
        windows.window_mask(side, 128, 4, 2, device)
        windows.kept_regions(side, 128, 4, 2, device)
    big = windows.window_mask(1536, 2048, 8, 4, device)
    assert big.nbytes > windows.CACHE_BYTES
    assert 0 < sum(tensor.nbytes for tensor in windows.window_mask.kept.values()) <= windows.CACHE_BYTES


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(12, 8, 4, 2), (4, 4, 4, 2), (10, 15, 5, 2)]
)
def test_tokens_that_may_meet_are_in_one_window_of_the_shifted_grid(height, width, window, shift):
    mask = windows.window_mask(height, width, window, shift, torch.device("cpu"))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack((rows, columns), -1).roll((-shift, -shift), (0, 1))
    place = windows.partition(place[None], window, window)[0]  # [nW, N, 2], where each token was in the image
    assert torch.equal(windows.to_windows(rows[None, ..., None], window, shift), place[None, ..., :1])
    cell = torch.div(place - shift, window, rounding_mode="floor")
    assert torch.equal(mask, (cell[:, :, None] == cell[:, None, :]).all(-1))


@pytest.mark.parametrize(
    ("length", "window", "shift", "expected"),
    [
        (12, 4, 0, [(0, 12, 4)]),
        (12, 4, 2, [(0, 2, 2), (2, 8, 4), (10, 2, 2)]),
        (5, 5, 2, [(0, 2, 2), (2, 3, 3)]),
        (14, 4, 0, [(0, 12, 4), (12, 2, 2)]),
        (13, 4, 2, [(0, 2, 2), (2, 8, 4), (10, 3, 3)]),
        (3, 4, 0, [(0, 3, 3)]),
        (1, 4, 2, [(0, 1, 1)]),
    ],
)
def test_bands_cut_an_axis_where_the_shifted_grid_does(length, window, shift, expected):
    assert windows.bands(length, window, shift) == expected


def test_position_bias_reads_the_row_of_each_offset():
    window, height, width = 3, 2, 3
    table = torch.randn(25, 2, dtype=torch.float64, requires_grad=True)
    bias = windows.position_bias(table, window, height, width)
    expected = torch.empty(2, 6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            dy, dx = i // 3 - j // 3, i % 3 - j % 3
            expected[:, i, j] = table.detach()[(dy + 2) * 5 + dx + 2]
    assert torch.equal(bias.detach(), expected)
    bias.sum().backward()
    assert table.grad[12].tolist() == [6.0, 6.0]  # offset (0, 0): once for each token
    assert table.grad[0].tolist() == [0.0, 0.0]  # offset (-2, -2) does not occur in 2 rows


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 16), (5, 3), (2, 9), (1, 5), (1, 1), (30, 1)])
def test_padding_reflects_images_of_any_size(height, width):
    image = np.random.default_rng(0).random((9, 3, height, width))
    padded = windows.pad_reflect(torch.from_numpy(image), 8)
    expected = np.pad(image, ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
    assert np.array_equal(padded.numpy(), expected)


def test_buffers_for_files_of_the_authors_by_hand():
    index = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert windows.official_index(2).tolist() == index
    mask = windows.official_mask(4, 2, 1)
    assert mask.shape == (4, 4, 4) and not mask[0].any()
    assert mask[1][:2, :2].tolist() == [[0, -100], [-100, 0]]  # the right column came from the left border
    assert mask[2][::2, ::2].tolist() == [[0, -100], [-100, 0]]  # the lower row came from the upper border
    assert mask[3].tolist() == (torch.eye(4) * 100 - 100).tolist()


@pytest.mark.parametrize("shift", [0, 2])
def test_orders_and_their_inverse(shift):
    place = (8, 12, 4, shift, CPU)
    order, inverse = windows.window_order(*place), windows.image_order(*place)
    assert torch.equal(order[inverse], torch.arange(96))
    assert order[:5].tolist() == [shift * 13 + column for column in (0, 1, 2, 3, 12)]
    x = torch.randn(2, 8, 12, 3)
    assert torch.equal(windows.from_windows(windows.to_windows(x, 4, shift), 8, 12, 4, shift), x)


@pytest.mark.parametrize("attention", ["softmax", "taylor"])
def test_threads_share_a_network(attention, monkeypatch, nothing_kept):
    """Little may be kept, so that each thread's geometry pushes out what the others are about to read."""
    monkeypatch.setattr(windows, "CACHE_BYTES", 2**12)
    settings = {"embed_dim": 4, "num_heads": 1, "depths": (2,), "window_size": 4}
    model = stirred(build_model("swinir_tiny_x2", attention=attention, **settings)).eval()
    sizes = torch.randint(1, 25, (60, 2), generator=torch.Generator().manual_seed(0)).tolist()
    images = [torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) for size in sizes]
    begin = threading.Barrier(8)

    def outputs(first: int) -> list[torch.Tensor]:
        begin.wait()
        with torch.no_grad():
            return [model(image) for image in images[first:] + images[:first]]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = [future.result() for future in [pool.submit(outputs, 7 * n) for n in range(8)]]
    finally:
        sys.setswitchinterval(interval)
    with torch.no_grad():
        expected = [model(image) for image in images]
    for n, results in enumerate(found):
        for result, wanted in zip(results, expected[7 * n :] + expected[: 7 * n], strict=True):
            assert torch.equal(result, wanted)


def test_labels_may_be_edited_without_harm_to_the_network():
    model = stirred(build_model("taylorswinir_tiny_x2", depths=(2,), window_size=4)).eval()
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        before = model(image)
        windows.window_regions(8, 8, 4, 2, CPU).zero_()
        assert windows.window_regions(8, 8, 4, 2, CPU).max() == 3
        assert torch.equal(model(image), before)


def test_nothing_is_kept_of_a_transform_that_ends(nothing_kept):
    """Tensors made within torch.func.grad are wrapped, and die with it."""
    settings = {"embed_dim": 4, "num_heads": 1, "depths": (2,), "window_size": 4, "softmax_backend": "naive"}
    model = stirred(build_model("swinir_tiny_x2", **settings)).eval()
    image = torch.rand(1, 3, 8, 8)
    torch.func.grad(lambda x: model(x).sum())(image)
    assert not any(function.kept for function in KEPT)
    with torch.no_grad():
        model(image)
    assert windows.window_mask.kept and windows.window_order.kept
