"""Time of attention and of networks: one row a measurement.

How a time is taken: see :func:`taylorir.cost.time_calls`; the row gives the median with the 20% and 80%
quantiles. Out of memory is a result (``status``); any other exception is an error and propagates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import l1_loss, pad, scaled_dot_product_attention

from taylorir.attention import softmax_attention, softmax_fused, taylor_attention, taylor_efficient
from taylorir.cost.timing import Timing, machine_load, time_calls
from taylorir.networks import build_model, image_channels, taylor_efficient_published
from taylorir.rows import provenance

#: What is timed: the forward pass, or forward and backward.
RUNTIME_MODES = ("forward", "train")


# ------------------------------------------------------------------------------------------- attention alone


def _naive(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return softmax_attention(q, k, v, bias=bias)


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return _sdpa(q, k, v, bias, SDPBackend.EFFICIENT_ATTENTION)


def _flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return _sdpa(q, k, v, None, SDPBackend.FLASH_ATTENTION)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, backend: SDPBackend) -> Tensor:
    """PyTorch's fused kernels.

    On a GPU the named one and no other, with d padded to a multiple of 8, else float32 would silently take
    the unfused one. Flash needs half precision there; float32 gets the memory-efficient one.
    """
    if q.device.type != "cuda":
        return scaled_dot_product_attention(q, k, v, bias)
    if q.dtype == torch.float32:
        backend = SDPBackend.EFFICIENT_ATTENTION
    width = q.shape[-1]
    padded = (pad(x, (0, -width % 8)) for x in (q, k, v))
    bias = None if bias is None else bias.expand(*q.shape[:-1], q.shape[-2])
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(*padded, bias, scale=width**-0.5)[..., :width]


def _own(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return softmax_fused(q, k, v)


def _flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """FlexAttention with the bias looked up from SwinIR's table of offsets: no N x N tensor is held."""
    width, tokens = q.shape[-1], q.shape[-2]
    side = math.isqrt(tokens)
    table = _flex_table(side, q.shape[-3], q.device, q.dtype)

    def biased(score, _, head, i, j):  # offsets of token i from token j along both axes
        dy, dx = i // side - j // side + side - 1, i % side - j % side + side - 1
        return score + table[head, dy * (2 * side - 1) + dx]

    padded = (pad(x, (0, 16 - width if width < 16 else -width % 8)) for x in (q, k, v))
    return _compiled_flex()(*padded, score_mod=biased, scale=width**-0.5)[..., :width]


@functools.cache
def _flex_table(side: int, heads: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.zeros(heads, (2 * side - 1) ** 2, device=device, dtype=dtype)


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _direct(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return taylor_attention(q, k, v, crossover=math.inf, backend=_plain_on_gpu(q))


def _published(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return taylor_efficient_published(q, k, v)


def _efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return taylor_efficient(q, k, v, backend=_plain_on_gpu(q))


def _plain_on_gpu(q: Tensor) -> str:
    """On a GPU our plain forms are timed beside the Triton kernels, which have a name of their own."""
    return "torch" if q.device.type == "cuda" else "auto"


def _triton(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return taylor_efficient(q, k, v, backend="triton")


ATTENTION: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "softmax_naive": _naive,
    "softmax_fused": _fused,
    "softmax_flash": _flash,
    "softmax_own": _own,
    "softmax_flex": _flex,
    "taylor_direct": _direct,
    "taylor_published": _published,
    "taylor_efficient": _efficient,
    "taylor_triton": _triton,
}
"""Attention to be timed, by name: called with q, k, v [B, H, N, d] and a bias [1, H, N, N] (two use it)."""


def attention_methods(device: str) -> tuple[str, ...]:
    """The methods that can be timed on a device: the Triton kernels and FlexAttention need a GPU, our own
    kernels for softmax a CPU."""
    other = ("softmax_own",) if torch.device(device).type == "cuda" else ("taylor_triton", "softmax_flex")
    return tuple(name for name in ATTENTION if name not in other)


def attention_rows(
    methods: Sequence[str],
    num_tokens: Iterable[int],
    *,
    head_dim: int = 30,
    num_heads: int = 6,
    total_tokens: int | None = None,
    modes: Sequence[str] = RUNTIME_MODES,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seconds: float = 2.0,
    min_repeats: int = 3,
    max_held_gib: float = 2.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Time attention alone against the number of tokens.

    Args:
        methods: keys of ``ATTENTION``.
        num_tokens: N, each a row.
        total_tokens: the batch is ``total_tokens // N``, at least 1, as if an image was cut in windows;
            None: 1.
        modes: "forward" (no gradients) or "train" (forward and backward).
        max_held_gib: a point whose largest array would exceed this is not run: status "too large".
        seconds, min_repeats: as in :func:`taylorir.cost.time_calls`.

    Returns:
        One row a method, N and mode: latency_ms with quantiles, tokens_per_s, status, provenance.

    Raises:
        ValueError: unknown method or mode.
    """
    _check_names("method", methods, ATTENTION)
    _check_names("mode", modes, RUNTIME_MODES)
    rows = []
    for tokens in num_tokens:
        batch = max((total_tokens or 0) // tokens, 1)
        shape = (batch, num_heads, tokens, head_dim)
        for method in methods:
            for mode in modes:
                row = dict(
                    what="attention",
                    method=method,
                    mode=mode,
                    num_tokens=tokens,
                    head_dim=head_dim,
                    num_heads=num_heads,
                    batch=batch,
                )
                if _held_gib(method, shape) > max_held_gib:
                    rows.append(row | {"status": "too large"})
                    continue
                call = _attention_call(method, mode, shape, device, dtype, seed)
                [timing] = time_calls([call], device=device, seconds=seconds, min_repeats=min_repeats)
                rows.append(row | _timed(timing, batch * num_heads * tokens))
    return _with_provenance(rows, "tokens_per_s", device, dtype, seed)


def _held_gib(method: str, shape: tuple[int, int, int, int]) -> float:
    """The largest array of a method, in GiB of float32: N x N weights, such a bias, or d^2 features."""
    batch, heads, tokens, width = shape
    numbers = {
        "softmax_naive": batch * heads * tokens**2,
        "softmax_fused": heads * tokens**2,
        "taylor_direct": batch * heads * tokens**2,
        "taylor_published": 2 * batch * heads * tokens * width**2,
    }
    return numbers.get(method, 0) * 4 / 2**30


def _attention_call(
    method: str, mode: str, shape: tuple[int, int, int, int], device: str, dtype: torch.dtype, seed: int
) -> Callable[[], Callable[[], object]]:
    """A function that builds the inputs and returns the call to time."""

    def build() -> Callable[[], object]:
        generator = torch.Generator(device).manual_seed(seed)
        train = mode == "train"
        q, k, v, dy = (
            torch.randn(shape, generator=generator, device=device, dtype=dtype).requires_grad_(
                train and i < 3
            )
            for i in range(4)
        )
        tokens, needs_bias = shape[2], method in ("softmax_naive", "softmax_fused")
        bias = torch.zeros(1, shape[1], *(2 * [tokens if needs_bias else 0]), device=device, dtype=dtype)
        attend = ATTENTION[method]

        def forward() -> Tensor:
            with torch.no_grad():
                return attend(q, k, v, bias)

        def train_step() -> tuple[Tensor, ...]:
            return torch.autograd.grad(attend(q, k, v, bias), (q, k, v), dy)

        return train_step if train else forward

    return build


# ------------------------------------------------------------------------------------------- whole networks


@dataclass(frozen=True)
class TimedNetwork:
    """A network to be timed: the variant and its overrides, under the name that tables show.

    Where there is a ``model``, it is that network, of any kind, and ``variant`` is what to call it.
    """

    method: str
    variant: str
    window_size: int
    overrides: tuple[tuple[str, object], ...] = ()
    model: torch.nn.Module | None = None


def network_rows(
    networks: Sequence[TimedNetwork],
    lr_sizes: Iterable[int],
    *,
    modes: Sequence[str] = ("forward",),
    batch: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seconds: float = 5.0,
    min_repeats: int = 3,
    longest: float = 60.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Time whole networks, in turns, on square LR images of ``lr_sizes`` pixels a side.

    Args:
        networks: what to time.
        modes: "forward", or "train": forward, L1 loss and backward, without the optimiser.
        batch: images.
        seconds, min_repeats, longest: as in :func:`taylorir.cost.time_calls`.

    Returns:
        One row a network, size and mode: latency_ms with quantiles, pixels_per_s of LR, status, provenance.

    Raises:
        ValueError: unknown mode, variant or override.
    """
    _check_names("mode", modes, RUNTIME_MODES)
    models = []
    for network in networks:
        torch.manual_seed(seed)
        model = network.model or build_model(
            network.variant, window_size=network.window_size, **dict(network.overrides)
        )
        models.append(model.to(device=device, dtype=dtype))
    rows = []
    for size in lr_sizes:
        for mode in modes:
            calls = [
                _network_call(model, mode, (batch, image_channels(model), size, size), device, dtype, seed)
                for model in models
            ]
            timings = time_calls(
                calls, device=device, seconds=seconds, min_repeats=min_repeats, longest=longest
            )
            for network, timing in zip(networks, timings, strict=True):
                row = dict(
                    what="network",
                    method=network.method,
                    variant=network.variant,
                    window_size=network.window_size,
                    mode=mode,
                    lr_size=size,
                    batch=batch,
                )
                rows.append(row | _timed(timing, batch * size**2))
    return _with_provenance(rows, "pixels_per_s", device, dtype, seed)


def _network_call(
    model: torch.nn.Module, mode: str, shape: tuple[int, ...], device: str, dtype: torch.dtype, seed: int
) -> Callable[[], Callable[[], object]]:
    def build() -> Callable[[], object]:
        generator = torch.Generator(device).manual_seed(seed)
        lr = torch.rand(shape, generator=generator, device=device, dtype=dtype)
        model.train(mode == "train")
        scale = model.config.upscale
        hr = torch.zeros(*shape[:2], shape[2] * scale, shape[3] * scale, device=device, dtype=dtype)

        def forward() -> Tensor:
            with torch.inference_mode():
                return model(lr)

        def train_step() -> None:
            model.zero_grad(set_to_none=True)
            l1_loss(model(lr), hr).backward()

        return train_step if mode == "train" else forward

    return build


# --------------------------------------------------------------------------------------------------- shared


def _timed(timing: Timing | None, items: int) -> dict[str, object]:
    if timing is None:
        return {"status": "out of memory"}
    return {
        "status": "ok",
        "latency_ms": timing.latency_ms,
        "latency_ms_p20": timing.latency_ms_p20,
        "latency_ms_p80": timing.latency_ms_p80,
        "cpu_ms": timing.cpu_ms,
        "repeats": timing.repeats,
        "items_per_s": items / timing.latency_ms * 1e3,
    }


def _with_provenance(
    rows: list[dict[str, object]], throughput: str, device: str, dtype: torch.dtype, seed: int
) -> pd.DataFrame:
    stamp = machine_load() | provenance(device=device, dtype=dtype, seed=seed)
    frame = pd.DataFrame([row | stamp for row in rows])
    return frame.rename(columns={"items_per_s": throughput})


def _check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: got {name!r}, expected one of {', '.join(known)}")
