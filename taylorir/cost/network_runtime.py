"""Time of whole networks against each other: in one process, in turn, so that a busy moment hits all alike.

``python -m taylorir.cost.network_runtime forward 192`` measures the networks that ``COMPARED`` has there,
puts their rows in the place of older ones of ``data/results/model_speed.csv``, and prints the table.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import l1_loss

from taylorir.cost.timing import machine_load, time_calls
from taylorir.networks import SwinIR, WindowAttention, build_model
from taylorir.rows import provenance, write_rows

NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "SwinIR-S, window 8": ("swinir_s_x2", {}),
    "SwinIR-S, window 8, PyTorch's attention": ("swinir_s_x2", {"softmax_backend": "sdpa"}),
    "SwinIR-S, window 8, weights written out": ("swinir_s_x2", {"softmax_backend": "naive"}),
    "TaylorSwinIR-S, window 48": ("taylorswinir_s_x2", {}),
    "TaylorSwinIR-S, window 48, ragged": ("taylorswinir_s_x2", {"border": "ragged"}),
    "TaylorSwinIR-S, window 8": ("taylorswinir_s_x2", {"window_size": 8}),
    "TaylorSwinIR-S, window 96": ("taylorswinir_s_x2", {"window_size": 96}),
    "SwinIR-S, window 48": ("swinir_s_x2", {"window_size": 48}),
    "SwinIR-S, window 48, no bias": (
        "swinir_s_x2",
        {"window_size": 48, "softmax_backend": "flash", "position": "none"},
    ),
    "SwinIR-S, window 48, weights written out": (
        "swinir_s_x2",
        {"window_size": 48, "softmax_backend": "naive"},
    ),
}
"""A variant and its overrides, by the name that tables show. Softmax is fused, in our own kernels, unless the
name says other."""

LEFT_OUT = ", attention left out"
"""Behind the name of a network: its attention gives v, at no cost. No attention can make it quicker."""

_FAIR = ("SwinIR-S, window 8", "SwinIR-S, window 8, PyTorch's attention", "TaylorSwinIR-S, window 48")
_BOUND = (*_FAIR, "TaylorSwinIR-S, window 48" + LEFT_OUT)
COMPARED: dict[tuple[str, int], tuple[str, ...]] = {
    ("forward", 48): (*_FAIR, *(name for name in NETWORKS if name.startswith("SwinIR-S, window 48"))),
    ("forward", 192): (
        *_BOUND,
        "SwinIR-S, window 8, weights written out",
        "TaylorSwinIR-S, window 8",
        "TaylorSwinIR-S, window 96",
        "SwinIR-S, window 48",
        "SwinIR-S, window 48, no bias",
    ),
    ("forward", 256): (
        *_FAIR,
        "TaylorSwinIR-S, window 48, ragged",
        "TaylorSwinIR-S, window 48, ragged" + LEFT_OUT,
    ),
    ("forward", 480): _BOUND,
    ("train", 48): (
        *_BOUND,
        "SwinIR-S, window 8, weights written out",
        "TaylorSwinIR-S, window 8",
        "SwinIR-S, window 48, no bias",
    ),
    ("train", 96): (*_BOUND, "SwinIR-S, window 8, weights written out", "SwinIR-S, window 48, no bias"),
}
"""Networks that are timed against each other, by mode and LR size; the first is the strongest of windows
of 8."""

BATCH = {("train", 48): 4}
"""Images at once, where it is not one."""


def compare_networks(
    names: Sequence[str],
    mode: str,
    size: int,
    *,
    batch: int = 1,
    repeats: int = 5,
    threads: int = 2,
    networks: Mapping[str, tuple[str, dict[str, object]]] = NETWORKS,
    seed: int = 0,
) -> pd.DataFrame:
    """Time networks on square LR images on the CPU, in turns; a turn that does not count warms up.

    Args:
        names: of ``networks``; with ``LEFT_OUT`` behind it, without its attention.
        mode: "forward", or "train": a step of the training loop, with Adam and the averaged weights.
        size: side of the LR images.
        batch: images at once.
        repeats: turns that count.
        threads: CPU threads.
        networks: name to variant and overrides.
        seed: of weights and images.

    Returns:
        One row a network: network, variant, window_size, border, mode, lr_size, batch, padded (tokens over
        pixels), latency_ms (median) with quantiles, cpu_ms (processor time, median), over_first (median over
        that of the first network), repeats, load, priority, provenance.

    Raises:
        ValueError: an unknown mode.
    """
    calls = {"forward": _forward, "train": _step}
    if mode not in calls:
        raise ValueError(f"mode must be one of {', '.join(calls)}, not {mode!r}")
    torch.manual_seed(seed)
    models = {name: _build(name, networks) for name in names}
    image = torch.rand(batch, 3, size, size)
    before = torch.get_num_threads()
    if threads != before:  # set to what it is already, PyTorch's own attention would take longer backward
        torch.set_num_threads(threads)
    try:
        builds = [lambda model=model: calls[mode](model, image) for model in models.values()]
        timings = time_calls(builds, seconds=0.0, min_repeats=repeats)
        stamp = machine_load() | provenance(dtype=torch.float32, seed=seed)
    finally:
        if threads != before:
            torch.set_num_threads(before)
    rows = []
    for (name, model), timing in zip(models.items(), timings, strict=True):
        config = model.config
        rows.append(
            {
                "network": name,
                "variant": networks[name.removesuffix(LEFT_OUT)][0],
                "window_size": config.window_size,
                "border": config.border,
                "mode": mode,
                "lr_size": size,
                "batch": batch,
                "padded": (-(-size // config.multiple) * config.multiple / size) ** 2,
                "latency_ms": timing.latency_ms,
                "latency_ms_p20": timing.latency_ms_p20,
                "latency_ms_p80": timing.latency_ms_p80,
                "cpu_ms": timing.cpu_ms,
                "over_first": timing.latency_ms / timings[0].latency_ms,
                "repeats": timing.repeats,
                **stamp,
            }
        )
    return pd.DataFrame(rows)


def _build(name: str, networks: Mapping[str, tuple[str, dict[str, object]]]) -> SwinIR:
    variant, overrides = networks[name.removesuffix(LEFT_OUT)]
    model = build_model(variant, **overrides)
    if name.endswith(LEFT_OUT):
        for module in model.modules():
            if isinstance(module, WindowAttention):
                module.of_rolled = module.of_rectangles = lambda q, k, v, _: v
    return model


def _forward(model: SwinIR, image: torch.Tensor) -> Callable[[], object]:
    model.eval()

    def call() -> object:
        with torch.inference_mode():
            return model(image)

    return call


def _step(model: SwinIR, image: torch.Tensor) -> Callable[[], object]:
    model.train()
    batch, channels, height, width = image.shape
    upscale = model.config.upscale
    target = torch.rand(batch, channels, upscale * height, upscale * width)
    averaged = list(copy.deepcopy(model).requires_grad_(False).parameters())
    optimiser = torch.optim.Adam(model.parameters(), fused=True)

    def call() -> None:
        loss = l1_loss(model(image), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, list(model.parameters()), 0.001)

    return call


def with_rows(stored: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """``stored`` with those of the mode and size of ``new`` in the place of older ones."""
    key = ["mode", "lr_size"]
    kept = stored[~pd.MultiIndex.from_frame(stored[key]).isin(pd.MultiIndex.from_frame(new[key]))]
    return pd.concat([kept, new], ignore_index=True).sort_values(key, kind="stable", ignore_index=True)


def main() -> None:
    """Measure, store and print the rows of one mode and size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=sorted({mode for mode, _ in COMPARED}))
    parser.add_argument("size", type=int, help="side of the LR image")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("data/results/model_speed.csv"), help="CSV to write")
    arguments = parser.parse_args()
    case = (arguments.mode, arguments.size)
    if case not in COMPARED:
        sizes = ", ".join(str(size) for mode, size in COMPARED if mode == arguments.mode)
        parser.error(f"size must be one of {sizes}, got {arguments.size}")
    rows = compare_networks(
        COMPARED[case],
        *case,
        batch=BATCH.get(case, 1),
        repeats=arguments.repeats,
        threads=arguments.threads,
    )
    if arguments.out.exists():
        rows = with_rows(pd.read_csv(arguments.out), rows)
    write_rows(arguments.out, rows, "%.4g")
    shown = [
        "network",
        "mode",
        "lr_size",
        "padded",
        "latency_ms",
        "over_first",
        "repeats",
        "load",
        "priority",
    ]
    print(rows[shown].to_string(index=False))


if __name__ == "__main__":
    main()
