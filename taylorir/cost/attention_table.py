"""TaylorShift attention against fused softmax attention and its published form: speed and memory on a CPU.

``python -m taylorir.cost.attention_table`` prints it. All calls of a shape take turns on the same inputs, so
that what else the machine does falls on each alike; a turn is as many calls as fill a hundredth of a second,
and a time is the median over the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from taylorir.attention import softmax_fused, taylor_attention, tile_unit, uses_tiles
from taylorir.cost.allocations import AllocationTrace, record
from taylorir.cost.timing import machine_load
from taylorir.networks import taylor_efficient_published
from taylorir.rows import provenance, write_rows

MIB = 2**20
PEAK_SIDE = 1024
"""Side of the matrices whose product measures the most operations a second."""

COPIED_NUMBERS = 2**25
"""Numbers whose copy, 128 MiB to elsewhere, measures the most bytes a second."""

TURN_SECONDS = 0.01
"""Least time of a turn. A short call alone would be timed with the caches that another, long one left."""


@dataclass(frozen=True)
class Shape:
    """Shape of q, k and v, and what the project asks of the ratio SDPA's time / ours; None: no bar.

    ``share_bar`` is asked of the share of the measured product peak that counted operations take forward.
    """

    num_tokens: int
    num_heads: int
    head_dim: int
    windows: int = 1
    forward_bar: float | None = None
    backward_bar: float | None = None
    share_bar: float | None = None


SHAPES = (
    Shape(2304, 6, 10, forward_bar=35, backward_bar=40, share_bar=0.3),
    Shape(2304, 12, 15, forward_bar=20, backward_bar=22),
    Shape(2304, 6, 30, forward_bar=6.5, backward_bar=7, share_bar=0.65),
    Shape(2304, 6, 30, windows=4),
    Shape(9216, 6, 10, forward_bar=200, backward_bar=200),
    Shape(9216, 6, 30, forward_bar=28, backward_bar=28),
    Shape(64, 6, 10, windows=64, backward_bar=1),
    Shape(64, 6, 30, windows=64, backward_bar=1),
    Shape(256, 6, 10, windows=16, backward_bar=1),
    Shape(256, 6, 30, windows=16, backward_bar=1),
    Shape(64, 6, 30, backward_bar=0.5),
    Shape(256, 6, 30, backward_bar=0.5),
)
SOFTMAX_SHAPES = tuple(
    dataclasses.replace(shape, forward_bar=None, backward_bar=None, share_bar=None) for shape in SHAPES
)
PLAIN_SHAPES = tuple(shape for shape in SOFTMAX_SHAPES if shape.num_tokens < 9216)
REGISTER_SHAPES = tuple(
    shape for shape in PLAIN_SHAPES if shape.head_dim > 10 and shape.num_tokens * shape.windows >= 2304
)
"""Where the kernels are timed with the processor's tile unit and without, where it has one."""

PUBLISHED_SHAPES = tuple(
    Shape(tokens, heads, width, forward_bar=15)
    for tokens in (2304, 16384)
    for heads, width in ((6, 10), (12, 15), (6, 30))
)
"""Where the form as its authors published it is timed too, forward; the bar is of its time / ours."""

GROWTH_SHAPES = (Shape(2304, 6, 30), Shape(36864, 6, 30))


def speed_rows(
    shapes: Sequence[Shape] = SHAPES,
    *,
    against: str = "sdpa",
    rounds: int = 9,
    seconds: float = 0.5,
    seed: int = 0,
) -> pd.DataFrame:
    """Time TaylorShift and another attention by turns.

    Args:
        shapes: what to time, in float32.
        against: "sdpa", PyTorch's fused softmax attention; "softmax", the same in kernels of our own
            (:func:`taylorir.attention.softmax_fused`); "plain", our own form in plain PyTorch;
            "registers", our own kernels without the tile unit; or "published", TaylorShift as its authors
            published it, forward only.
        rounds: turns of each call at least, after two calls that do not count.
        seconds: time to go on for, so that calls of less than a millisecond get more rounds.
        seed: of the inputs.

    Returns:
        One row a shape and pass ("forward", "forward + backward"): median milliseconds with 20 % and 80 %
        quantiles of both, ``ratio`` = the other's median / ours, its ``bar``, ``share``: the operations that
        the definition counts (:func:`counted_operations`) over those that a product of large matrices makes
        in our time, ``operations`` and ``other_operations`` that are counted, ``peak_gflops`` and
        ``memory_gbs``: what such a product and a copy of memory reach, ``load`` and ``priority``
        (:func:`taylorir.cost.timing.machine_load`), and the columns of provenance.
    """
    other = {
        "sdpa": scaled_dot_product_attention,
        "softmax": softmax_fused,
        "plain": partial(taylor_attention, backend="torch"),
        "registers": taylor_attention,
        "published": taylor_efficient_published,
    }[against]
    rows = []
    for shape in tqdm(shapes, desc=against, leave=False):
        q, k, v, gradient = _inputs(shape, seed)
        passes = [("forward", shape.forward_bar)]
        if against != "published":
            passes.append(("forward + backward", shape.backward_bar))
        calls = {
            (name, direction): _call(attention, direction, q, k, v, gradient)
            for direction, _ in passes
            for name, attention in ((against, other), ("taylor", taylor_attention))
        }
        if against == "registers":
            calls |= {key: _on_registers(call) for key, call in calls.items() if key[0] == against}
        peak = _by_turns(
            {"product": _large_product(), "copy": _large_copy()}, rounds
        )  # they empty the caches
        operations_a_second = 2 * PEAK_SIDE**3 / float(np.median(peak["product"]))
        bytes_a_second = 2 * 4 * COPIED_NUMBERS / float(np.median(peak["copy"]))
        times = _by_turns(calls, rounds, seconds)
        for direction, bar in passes:
            theirs, ours = times[against, direction], times["taylor", direction]
            row = {**_columns(shape), "pass": direction, "against": against}
            for name, values in (("other", theirs), ("taylor", ours)):
                low, median, high = np.quantile(values, (0.2, 0.5, 0.8)) * 1e3
                row |= {f"{name}_ms": median, f"{name}_ms_q20": low, f"{name}_ms_q80": high}
            ratio = float(np.median(theirs) / np.median(ours))
            backward = direction != "forward"
            possible = operations_a_second * float(np.median(ours))
            operations = counted_operations(shape, backward)
            row |= {"ratio": ratio, "bar": bar, "share": operations / possible}
            row["share_bar"] = None if backward else shape.share_bar
            row |= {
                "operations": operations,
                "other_operations": counted_operations(shape, backward, against),
            }
            row |= {"peak_gflops": operations_a_second / 1e9, "memory_gbs": bytes_a_second / 1e9}
            rows.append(row | {"rounds": len(ours)} | machine_load() | provenance(seed=seed))
    return pd.DataFrame(rows)


def counted_operations(shape: Shape, backward: bool, method: str = "taylor") -> int:
    """Multiplications and additions in products of matrices. The backward pass counts twice the forward.

    TaylorShift in the cheaper form: efficient F (d + 1) products of the state and as many of the read-out,
    F = (d + 1) (d + 2) / 2; direct 2 d + 1 a pair of tokens. The published form has d^2 + d features, and
    softmax ("sdpa", "softmax") 2 d products a pair.
    """
    d, n, tokens = shape.head_dim, shape.head_dim + 1, shape.num_tokens
    products = {
        "sdpa": 2 * d * tokens,
        "softmax": 2 * d * tokens,
        "published": 2 * (d * d + d) * n,
    }.get(method, min(n * (n + 1) * n, tokens * (2 * n - 1)))
    return 2 * products * shape.windows * shape.num_heads * tokens * (3 if backward else 1)


def _large_product() -> Callable[[], object]:
    a, b = torch.rand(2, PEAK_SIDE, PEAK_SIDE)
    return lambda: a @ b


def _large_copy() -> Callable[[], object]:
    a, b = torch.rand(2, COPIED_NUMBERS)
    return lambda: a.copy_(b)


def memory_rows(shapes: Sequence[Shape] = GROWTH_SHAPES, *, seed: int = 0) -> pd.DataFrame:
    """Bytes saved for backward, and the most held in each pass beside inputs, outputs and gradients.

    Returns:
        One row a shape: ``saved_mib``, ``forward_transient_mib``, ``backward_transient_mib``, and provenance.
    """
    rows = []
    for shape in tqdm(shapes, desc="memory", leave=False):
        q, k, v, gradient = _inputs(shape, seed)
        saved: dict[int, Tensor] = {}

        def pack(x: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            saved[x.untyped_storage().data_ptr()] = x.detach()
            return x

        with record((q, k, v)) as forward, torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
            y = taylor_attention(q, k, v)
        with record((q, k, v, y, gradient, *saved.values())) as backward:
            gradients = torch.autograd.grad(y, (q, k, v), gradient)
        memory = {
            "saved_mib": sum(x.untyped_storage().nbytes() for x in saved.values()) / MIB,
            "forward_transient_mib": (_peak(forward) - y.nbytes) / MIB,
            "backward_transient_mib": (_peak(backward) - sum(x.nbytes for x in gradients)) / MIB,
        }
        rows.append(_columns(shape) | memory | provenance(seed=seed))
    return pd.DataFrame(rows)


def growth_rows(*, rounds: int = 7, seed: int = 0) -> pd.DataFrame:
    """Time of forward + backward from N = 2304 to 36864, sixteen times the tokens, by turns.

    Returns:
        One row: both medians in milliseconds, their ``ratio``, its ``bar`` (at most), and provenance.
    """
    calls = {}
    for shape in GROWTH_SHAPES:
        q, k, v, gradient = _inputs(shape, seed)
        calls[shape.num_tokens] = _call(taylor_attention, "forward + backward", q, k, v, gradient)
    small, large = (float(np.median(times)) * 1e3 for times in _by_turns(calls, rounds).values())
    row = {"ms_2304": small, "ms_36864": large, "ratio": large / small, "bar": 16 * 1.3}
    return pd.DataFrame([row | provenance(seed=seed)])


def _columns(shape: Shape) -> dict[str, int]:
    columns = dataclasses.asdict(shape)
    return {name: columns[name] for name in ("windows", "num_heads", "num_tokens", "head_dim")}


def _inputs(shape: Shape, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = (shape.windows, shape.num_heads, shape.num_tokens, shape.head_dim)
    inputs = [torch.randn(size, generator=generator) for _ in range(4)]
    return [x.requires_grad_() for x in inputs[:3]] + inputs[3:]


def _call(
    attention: Callable[..., Tensor], direction: str, q: Tensor, k: Tensor, v: Tensor, gradient: Tensor
) -> Callable[[], object]:
    if direction == "forward":
        return lambda: attention(q.detach(), k.detach(), v.detach())
    return lambda: torch.autograd.grad(attention(q, k, v), (q, k, v), gradient)


def _on_registers(call: Callable[[], object]) -> Callable[[], object]:
    def without_tiles() -> object:
        with tile_unit(False):
            return call()

    return without_tiles


def _by_turns(
    calls: dict[object, Callable[[], object]], rounds: int, seconds: float = 0.0
) -> dict[object, list[float]]:
    """Seconds of each call in each round, for at least that many, after two calls that do not count.

    A turn is as many calls as fill :data:`TURN_SECONDS`, and their mean counts.
    """
    times: dict[object, list[float]] = {name: [] for name in calls}
    turns = {name: math.ceil(TURN_SECONDS / _after_one(call)) for name, call in calls.items()}
    end = time.perf_counter() + seconds
    while rounds > 0 or time.perf_counter() < end:
        for name, call in calls.items():
            times[name].append(_seconds(call, turns[name]))
        rounds -= 1
    return times


def _after_one(call: Callable[[], object]) -> float:
    """Time of a call, the second one: the first may build and load what all others find."""
    call()
    return _seconds(call, 1)


def _seconds(call: Callable[[], object], number: int) -> float:
    """Mean time of a number of calls."""
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def _peak(trace: AllocationTrace) -> int:
    """The most bytes that what was made under ``record`` held at a time."""
    return int(trace.events().delta.cumsum().max())


def _unpack(x: Tensor) -> Tensor:
    return x


def main() -> None:
    """Print the table; with ``--out`` write its rows as CSV too."""
    compared = {
        "sdpa": SHAPES,
        "softmax": SOFTMAX_SHAPES,
        "plain": PLAIN_SHAPES,
        "published": PUBLISHED_SHAPES,
    }
    if uses_tiles():
        compared["registers"] = REGISTER_SHAPES
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="times that each call is timed")
    parser.add_argument(
        "--threads", type=int, default=None, help="threads of PyTorch; default: its own choice"
    )
    parser.add_argument(
        "--against", choices=compared, help="one comparison only, in the place of its old rows"
    )
    parser.add_argument("--out", type=Path, default=None, help="CSV to write the speed rows to")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    chosen = [arguments.against] if arguments.against else list(compared)
    frames = [speed_rows(compared[name], against=name, rounds=arguments.rounds) for name in chosen]
    speed = pd.concat(frames, ignore_index=True).astype({"bar": float, "share_bar": float})
    if arguments.out is not None:
        stored = pd.read_csv(arguments.out) if arguments.against and arguments.out.exists() else speed[:0]
        kept = stored[~stored["against"].isin(chosen)]
        rows = pd.concat([kept, speed], ignore_index=True) if len(kept) else speed
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_rows(arguments.out, rows, "%.4g")
    shown = ["windows", "num_heads", "num_tokens", "head_dim", "pass", "against", "other_ms", "taylor_ms"]
    shown += ["ratio", "bar", "share", "share_bar"]
    print(speed[shown].to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    if arguments.against:
        return
    print(growth_rows()[["ms_2304", "ms_36864", "ratio", "bar"]].to_string(index=False, float_format="%.2f"))
    memory = memory_rows()
    shown = ["num_tokens", *(name for name in memory.columns if name.endswith("_mib"))]
    print(memory[shown].to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
