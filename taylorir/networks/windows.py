"""Window geometry: which tokens attend to which. Knows shapes only, no weights.

Shape legend
    B    images of a batch
    H, W height and width of the token grid, multiples of the window where windows are rolled
    w, s window size and shift (0 or w // 2)
    nW   windows of an image: (H / w) (W / w), row by row
    N    tokens of a window: w w, row by row

A shifted window is the plain window of an image rolled by (-s, -s). Windows of the last row and column then
hold tokens from two opposite borders, which must not meet. They are told apart in one of three ways, all
equal: ``kept_regions`` (integer labels), ``window_mask`` (boolean), and ``bands``, which does not roll at
all but cuts the image at s, s + w, ..., so that what is left at the borders are smaller rectangles. So cut,
an image may be of any size.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional

CACHE_BYTES = 48 * 2**20
"""Most bytes that the tensors kept for one geometry function may take, all shapes together."""

NUM_REGIONS = 4
"""Labels of :func:`window_regions`: 0 .. 3."""


def cached_by_shape(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator: keep the results of a function of sizes and a device, the latest ``CACHE_BYTES`` of them.

    All callers get the same tensor, from any thread, and must not change it. Not kept are traced tensors,
    those of a transform of ``torch.func``, which end with it, and fake ones outside of :func:`kept_apart`.
    What is made in inference mode may be used in training.
    """
    real: OrderedDict[tuple, Tensor] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(function)
    def cached(*key) -> Tensor:
        if torch.compiler.is_compiling():
            return function(*key)
        stores = _stores_apart.get()
        if stores is None and not _makes_plain_tensors():
            return function(*key)
        kept = real if stores is None else stores.setdefault(function, OrderedDict())
        with lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        with torch.inference_mode(False):
            made = function(*key)
        if made.nbytes > CACHE_BYTES:
            return made
        if made.is_cuda:  # another thread may read it on another stream
            torch.cuda.current_stream(made.device).synchronize()
        with lock:
            made = kept.setdefault(key, made)
            while sum(tensor.nbytes for tensor in kept.values()) > CACHE_BYTES:
                kept.popitem(last=False)
        return made

    cached.kept = real
    return cached


def _makes_plain_tensors() -> bool:
    made = torch.empty(0)
    return type(made) is Tensor and not is_functorch_wrapped_tensor(made)


_stores_apart: ContextVar[dict[Callable, OrderedDict[tuple, Tensor]] | None] = ContextVar(
    "_stores_apart", default=None
)


@contextmanager
def kept_apart() -> Iterator[None]:
    """Within the block nothing is kept at first and all is forgotten at its end, tensors without contents
    included, so that memory is accounted for as used."""
    token = _stores_apart.set({})
    try:
        yield
    finally:
        _stores_apart.reset(token)


def window_regions(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Labels [nW, N] (0..3) of the shifted windows: tokens of equal labels are neighbours in the image.

    The tokens that ``roll`` brought from the first s rows get +2, those from the first s columns +1.
    Made at each call, so the caller may change them.
    """
    rows = torch.arange(height, device=device) >= height - shift
    columns = torch.arange(width, device=device) >= width - shift
    labels = 2 * rows[:, None].long() + columns[None, :].long()  # [H, W]
    return partition(labels[None, :, :, None], window, window)[0, :, :, 0].contiguous()


kept_regions = cached_by_shape(window_regions)
"""Labels as :func:`window_regions` makes them, made once for all blocks."""


@cached_by_shape
def kept_places(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Place [nW, N] of each token of the shifted windows within the rectangle that is its region.

    It is written as a place of the plain window, row by row, the rectangle's first token being 0.
    """
    rows, columns = (
        (torch.arange(side, device=device) % window)
        - (window - shift) * (torch.arange(side, device=device) >= side - shift)
        for side in (height, width)
    )
    places = rows[:, None] * window + columns[None, :]
    return partition(places[None, :, :, None], window, window)[0, :, :, 0].contiguous()


@cached_by_shape
def window_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Boolean mask [nW, N, N], True = may attend: equal labels of :func:`window_regions`."""
    regions = kept_regions(height, width, window, shift, device)
    return regions[:, :, None] == regions[:, None, :]


@cached_by_shape
def relative_offsets(window: int, device: torch.device) -> Tensor:
    """[w, w]: the offset of token i from token j along one axis, shifted to 0..2w-2: i - j + w - 1."""
    index = torch.arange(window, device=device)
    return index[:, None] - index[None, :] + window - 1


def position_bias(table: Tensor, window: int, height: int, width: int) -> Tensor:
    """The bias [heads, n, n] of the n = height width tokens of a rectangle, from the table of offsets.

    Two [w, w] index maps, one an axis, do the work of the original's [N, N] map (:eq:`eq-position-bias`).

    Args:
        table: [(2w-1)^2, heads], the row of offset (dy, dx) being (dy + w - 1)(2w - 1) + dx + w - 1.
        window: w; height and width may be smaller, as a bias depends on offsets only.
    """
    offsets = relative_offsets(window, table.device)
    rows, columns = offsets[:height, :height], offsets[:width, :width]
    grid = table.t().reshape(-1, 2 * window - 1, 2 * window - 1)
    bias = grid[:, rows[:, None, :, None], columns[None, :, None, :]]  # [heads, y, x, y', x']
    return bias.reshape(-1, height * width, height * width)


def partition(x: Tensor, tall: int, wide: int) -> Tensor:
    """Rectangles [B, n, tall wide, C] of x [B, H, W, C], row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // tall, tall, width // wide, wide, channels)
    return x.transpose(2, 3).reshape(batch, -1, tall * wide, channels)


def merge(parts: Tensor, height: int, width: int, tall: int, wide: int) -> Tensor:
    """The inverse of :func:`partition`: [B, n, tall wide, C] to [B, H, W, C]."""
    batch, _, _, channels = parts.shape
    x = parts.reshape(batch, height // tall, width // wide, tall, wide, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


@cached_by_shape
def window_order(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """The place [H W] in the image of each token of the shifted windows, window by window."""
    place = torch.arange(height * width, device=device).view(1, height, width, 1)
    return partition(place.roll((-shift, -shift), (1, 2)), window, window).flatten()


@cached_by_shape
def image_order(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """The inverse of :func:`window_order`: the place of each pixel in the list of windows."""
    tokens = torch.arange(height * width, device=device).view(1, -1, window * window, 1)
    return merge(tokens, height, width, window, window).roll((shift, shift), (1, 2)).flatten()


def to_windows(x: Tensor, window: int, shift: int) -> Tensor:
    """Shifted windows [B, nW, N, C] of x [B, H, W, C]: roll and partition in one copy.

    A compiler joins the two by itself, and does not trace functions with a ``jvp``.
    """
    if torch.compiler.is_compiling():
        return partition(x.roll((-shift, -shift), (1, 2)), window, window)
    batch, height, width, channels = x.shape
    place = (height, width, window, shift, x.device)
    x = _Reorder.apply(x.flatten(1, 2), window_order(*place), image_order(*place))
    return x.view(batch, -1, window * window, channels)


def from_windows(x: Tensor, height: int, width: int, window: int, shift: int) -> Tensor:
    """The inverse of :func:`to_windows`: [B, nW, N, C] to [B, H, W, C]."""
    if torch.compiler.is_compiling():
        return merge(x, height, width, window, window).roll((shift, shift), (1, 2))
    batch, _, _, channels = x.shape
    place = (height, width, window, shift, x.device)
    x = _Reorder.apply(x.flatten(1, 2), image_order(*place), window_order(*place))
    return x.view(batch, height, width, channels)


class _Reorder(torch.autograd.Function):
    """Tokens [B, L, C] in another order, differentiable any number of times, in both directions.

    PyTorch's own backward of ``index_select`` would add, here nothing meets.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _, order, inverse = inputs
        ctx.save_for_backward(order, inverse)
        ctx.save_for_forward(order, inverse)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Reorder.apply(gradient, inverse, order), None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, _order: None, _inverse: None) -> Tensor:
        order, inverse = ctx.saved_tensors
        return _Reorder.apply(tangent, order, inverse)


def bands(length: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """How an axis of any length is cut into shifted windows: (first token, tokens, period).

    Border bands are narrower: the first has s tokens, the last what is left.
    """
    first = min(shift, length)
    inner = (length - first) // window * window
    cut = ((0, first, first), (first, inner, window), (first + inner, length - first - inner, 0))
    return [(start, tokens, period or tokens) for start, tokens, period in cut if tokens]


def rectangles(x: Tensor, tall: int, wide: int) -> Tensor:
    """The rectangles of x [B, H, W, C] as a view [B, rows, columns, tall, wide, C]."""
    return x.unflatten(2, (-1, wide)).unflatten(1, (-1, tall)).transpose(2, 3)


def pad_reflect(x: Tensor, multiple: int) -> Tensor:
    """Pad [..., H, W] at the bottom and the right, by reflection, to multiples of ``multiple``.

    As SwinIR does, but for images of any size: where the padding is longer than the image it is reflected
    again and again (as in ``numpy.pad``), and a side of one pixel is repeated.
    """
    # so written, a compiler sees that the padded sides are multiples, whatever the sides are
    down, right = ((side + multiple - 1) // multiple * multiple - side for side in x.shape[-2:])
    if down < x.shape[-2] and right < x.shape[-1]:
        return functional.pad(x, (0, right, 0, down), mode="reflect") if down or right else x
    x = x.index_select(-2, _reflection(x.shape[-2], down, x.device))
    return x.index_select(-1, _reflection(x.shape[-1], right, x.device))


def _reflection(length: int, pad: int, device: torch.device) -> Tensor:
    period = max(2 * (length - 1), 1)
    index = torch.arange(length + pad, device=device) % period
    return torch.minimum(index, period - index)


def official_index(window: int) -> Tensor:
    """The authors' ``relative_position_index`` [N, N]: rows of the bias table."""
    offsets = relative_offsets(window, torch.device("cpu"))
    index = offsets[:, None, :, None] * (2 * window - 1) + offsets[None, :, None, :]
    return index.reshape(window**2, window**2)


def official_mask(size: int, window: int, shift: int) -> Tensor:
    """The authors' ``attn_mask`` [nW, N, N], of 0 and -100; the network itself has booleans."""
    mask = window_mask(size, size, window, shift, torch.device("cpu"))
    return torch.zeros(mask.shape).masked_fill_(~mask, -100.0)
