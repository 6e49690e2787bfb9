"""Time of whole networks against each other: in one process, in turn, so that a busy moment hits all of them.

python -m taylorir.cost.network_runtime --size 256 --repeats 5 --out data/results/model_speed.csv
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from taylorir.networks import SwinIR, SwinTransformerBlock, build_model
from taylorir.rows import provenance

COMPARED: dict[str, tuple[str, dict[str, object]]] = {
    "SwinIR-S, window 8, softmax": ("swinir_s_x2", {}),
    "TaylorSwinIR-S, window 48": ("taylorswinir_s_x2", {}),
    "SwinIR-S, window 48, softmax": ("swinir_s_x2", {"window_size": 48}),
}
"""Networks that are compared, by the name that tables show: a variant and its overrides."""


LONGEST_HOLD = 60.0
"""Seconds."""


class Clock:
    """Adds up the time that a network computes, block by block, without the time that it waits for others.

    Args:
        lock: held while the network computes, so that several measurements on one machine
            take turns; None: no lock. After ``LONGEST_HOLD`` seconds it is let go between two blocks.
    """

    def __init__(self, lock: FileLock | None = None) -> None:
        self.lock = lock

    def measure(self, model: SwinIR, image: torch.Tensor) -> tuple[float, float]:
        """Seconds of one forward pass: on the clock, and of the processor, all threads together."""
        blocks = [module for module in model.modules() if isinstance(module, SwinTransformerBlock)]
        handles = [block.register_forward_pre_hook(self._let_others) for block in blocks] if self.lock else []
        self.seconds = self.cpu_seconds = 0.0
        self._start()
        with torch.inference_mode():
            model(image)
        self._stop()
        for handle in handles:
            handle.remove()
        return self.seconds, self.cpu_seconds

    def _let_others(self, _module: torch.nn.Module, _inputs: tuple) -> None:
        if time.perf_counter() - self.started > LONGEST_HOLD:
            self._stop()
            self._start()

    def _start(self) -> None:
        if self.lock:
            self.lock.acquire()
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def _stop(self) -> None:
        self.seconds += time.perf_counter() - self.started
        self.cpu_seconds += time.process_time() - self.cpu_started
        if self.lock:
            self.lock.release()
            time.sleep(1.0)


def compare_networks(
    networks: Mapping[str, tuple[str, dict[str, object]]] = COMPARED,
    *,
    size: int = 256,
    repeats: int = 5,
    max_seconds: float = 60.0,
    threads: int = 2,
    blocks: int | None = None,
    lock: FileLock | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Forward time of networks on one square LR image on the CPU, measured in turns.

    Every turn runs each network once; the first turn only warms up. But a network that takes longer than
    ``max_seconds`` is timed in the first turn, and not run again.

    Args:
        networks: name to variant and overrides.
        size: side of the LR image.
        repeats: turns that count.
        max_seconds: see above.
        threads: CPU threads.
        blocks: build every network with one stage of this many blocks, for a quick look; None: as they are.
        lock: see :class:`Clock`.
        seed: of weights and image.

    Returns:
        One row a network: network, variant, window_size, lr_size, blocks, latency_ms (median) with quantiles,
        latency_min_ms, cpu_ms (processor time, median), repeats, over_first and cpu_over_first (medians over
        those of the first network), provenance. Processor time hardly feels other programs on the machine.
    """
    torch.manual_seed(seed)
    short = {} if blocks is None else {"depths": (blocks,)}
    models = {
        name: build_model(variant, **changes, **short).eval() for name, (variant, changes) in networks.items()
    }
    image = torch.rand(1, 3, size, size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        taken = _in_turns(models, image, Clock(lock), repeats, max_seconds)
        measured = provenance(dtype=torch.float32, seed=seed)
    finally:
        torch.set_num_threads(before)
    rows = []
    for name, model in models.items():
        latencies, cpu = np.array(taken[name]).T * 1e3
        median, low, high = np.quantile(latencies, [0.5, 0.2, 0.8])
        rows.append(
            {
                "network": name,
                "variant": networks[name][0],
                "window_size": model.config.window_size,
                "lr_size": size,
                "blocks": sum(model.config.depths),
                "latency_ms": median,
                "latency_ms_p20": low,
                "latency_ms_p80": high,
                "latency_min_ms": latencies.min(),
                "cpu_ms": np.median(cpu),
                "repeats": len(latencies),
                **measured,
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(6, "over_first", frame["latency_ms"] / frame["latency_ms"].iloc[0])
    frame.insert(7, "cpu_over_first", frame["cpu_ms"] / frame["cpu_ms"].iloc[0])
    return frame


def _in_turns(
    models: Mapping[str, SwinIR], image: torch.Tensor, clock: Clock, repeats: int, max_seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the runs that count, on the clock and of the processor, by network."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    slow: set[str] = set()
    for turn in range(repeats + 1):
        for name, model in models.items():
            if name in slow:
                continue
            seconds = clock.measure(model, image)
            if turn == 0 and seconds[0] > max_seconds:
                slow.add(name)
            if turn > 0 or name in slow:
                taken[name].append(seconds)
    return taken


def main() -> None:
    """Measure and write the rows as CSV."""
    parser = argparse.ArgumentParser(description=compare_networks.__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of the LR image")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--blocks", type=int, help="blocks of every network, for a quick look")
    parser.add_argument("--out", type=Path, default=Path("data/results/model_speed.csv"), help="CSV to write")
    parser.add_argument("--lock", type=FileLock, help="file to lock while a block computes")
    arguments = parser.parse_args()
    rows = compare_networks(
        size=arguments.size,
        repeats=arguments.repeats,
        threads=arguments.threads,
        blocks=arguments.blocks,
        lock=arguments.lock,
    )
    rows.to_csv(arguments.out, index=False, float_format="%.4g")
    shown = ["network", "latency_ms", "over_first", "cpu_ms", "cpu_over_first", "repeats"]
    print(rows[shown].to_string(index=False))


if __name__ == "__main__":
    main()
