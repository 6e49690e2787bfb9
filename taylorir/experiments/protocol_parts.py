"""The mid tier's parts as data: what each choice is worth, and what is compared with what.

Every part is trained as the main pair is (:mod:`taylorir.experiments.protocol_mid`), with the rate of its
attention. ``python -m taylorir.experiments run --tier mid --only NAME`` does one; a run's parent comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from taylorir.experiments.plan import Comparison, Run
from taylorir.experiments.protocol_mid import ARMS, BUDGETS, SEEDS, mid_run, seeds_of, trained
from taylorir.networks import ModelConfig

_SWINIR, _OURS = ARMS["swinir"], ARMS["taylorswinir"]
_SHORT, _MIDDLE = BUDGETS[:2]
_FOUR, TWO_SEEDS = (0, 1, 2, 3), (0, 1)
PATCH_SIDES = (2, 4, 8)


@dataclass(frozen=True)
class Part:
    """A network that is trained beside the main pair.

    Attributes:
        arm: beginning of its runs' names.
        experiments: keys of ``EXPERIMENTS``.
        model: the network.
        seeds: fixed before the runs.
        budgets: some of ``BUDGETS``, the smallest first.
        parent: the arm, at x2 and the smallest budget, whose weights of the same seed it begins with; "" for
            random ones.
        kept: whether the weights of its first seed go to ``data/weights``.
    """

    arm: str
    experiments: tuple[str, ...]
    model: ModelConfig
    seeds: tuple[int, ...] = TWO_SEEDS
    budgets: tuple[int, ...] = (_SHORT,)
    parent: str = ""
    kept: bool = False

    def runs(self) -> tuple[Run, ...]:
        """Its trunks and decayed branches, a seed after the other."""
        return tuple(
            run
            for budget in self.budgets
            for seed in self.seeds
            for run in trained(
                self.arm, self.model, seed, budget, self.experiments,
                upcycled_from=mid_run(self.parent, seed, _SHORT) if self.parent else "",
                keep_weights=self.kept and seed == self.seeds[0],
            )
        )  # fmt: skip


def _softmax(window: int, position: str = "none", **changes: object) -> ModelConfig:
    backend = "fused" if position == "bias" else "flash"
    return replace(_SWINIR, window_size=window, position=position, softmax_backend=backend, **changes)


def _patches(model: ModelConfig, side: int) -> ModelConfig:
    """Tokens of ``side`` x ``side`` pixels in windows of 48 x 48 pixels."""
    return replace(model, patch_size=side, window_size=48 // side)


#: In the order of their runs.
PARTS: tuple[Part, ...] = (
    *(
        Part(f"{parent}_as_{arm}", ("swap",), ARMS[arm], _FOUR, parent=parent)
        for parent in ("swinir", "taylorswinir")
        for arm in ("swinir", "taylorswinir")
    ),
    Part("softmax_w8", ("attribution", "windows"), _softmax(8), _FOUR, (_SHORT, _MIDDLE)),
    Part("taylor_w8", ("attribution", "windows"), replace(_OURS, window_size=8), _FOUR, (_SHORT, _MIDDLE)),
    Part("taylor_w24", ("windows",), replace(_OURS, window_size=24)),
    Part("softmax_w24", ("windows",), _softmax(24)),
    Part("softmax_w48", ("windows", "positions"), _softmax(48)),
    *(
        Part(f"taylor_{name}", ("positions",), replace(_OURS, position=name))
        for name in ("rope", "lepe", "rib")
    ),
    Part("taylor_centred", ("positions",), replace(_OURS, centre_keys=True)),
    Part("softmax_w48_rib", ("positions",), _softmax(48, "rib")),
    *(Part(f"swinir_p{side}", ("patches",), _patches(_SWINIR, side)) for side in reversed(PATCH_SIDES)),
    *(Part(f"taylor_p{side}", ("patches",), _patches(_OURS, side)) for side in reversed(PATCH_SIDES)),
    *(
        Part(arm, ("scales",), replace(model, upscale=upscale), parent=arm, kept=True)
        for upscale in (3, 4)
        for arm, model in ARMS.items()
    ),
    Part("swinir_h12", ("heads",), replace(_SWINIR, num_heads=12)),
    Part("taylor_h12", ("heads",), replace(_OURS, num_heads=12)),
)

PART_RUNS: tuple[Run, ...] = tuple(run for part in PARTS for run in part.runs())


_SEEDS = {(part.arm, part.model.upscale): part.seeds for part in PARTS}


def _compare(experiment: str, rows: str, budget: int = _SHORT, upscale: int = 2) -> tuple[Comparison, ...]:
    """Comparisons of two arms, one a line: label | reference | other. Their seeds are those of the fewer."""
    entries = []
    for line in rows.strip().splitlines():
        label, reference, other = (word.strip() for word in line.split("|"))
        seeds = min((_SEEDS.get((arm, upscale), SEEDS) for arm in (reference, other)), key=len)
        runs = (seeds_of(arm, budget, seeds, upscale) for arm in (reference, other, "linear"))
        entries.append(Comparison(experiment, f"{label}, {budget:,} steps", *runs))
    return tuple(entries)


_SWAP = """
    SwinIR trained on as TaylorSwinIR over as it is | swinir_as_swinir             | swinir_as_taylorswinir
    TaylorSwinIR trained on as SwinIR over as it is | taylorswinir_as_taylorswinir | taylorswinir_as_swinir
"""
_ATTRIBUTION = """
    no bias over bias, softmax, window 8        | swinir     | softmax_w8
    TaylorShift over softmax, window 8, no bias | softmax_w8 | taylor_w8
    window 48 over 8, TaylorShift               | taylor_w8  | taylorswinir
"""
_WINDOWS = """
    window 24 over 8, softmax, no bias   | softmax_w8  | softmax_w24
    window 48 over 8, softmax, no bias   | softmax_w8  | softmax_w48
    window 24 over 8, TaylorShift        | taylor_w8   | taylor_w24
    TaylorShift over softmax, window 24  | softmax_w24 | taylor_w24
    TaylorShift over softmax, window 48  | softmax_w48 | taylorswinir
"""
_POSITIONS = """
    rope over none, TaylorShift                     | taylorswinir    | taylor_rope
    lepe over none, TaylorShift                     | taylorswinir    | taylor_lepe
    rib over none, TaylorShift                      | taylorswinir    | taylor_rib
    centred over plain keys, TaylorShift            | taylorswinir    | taylor_centred
    rib over none, softmax, window 48               | softmax_w48     | softmax_w48_rib
    TaylorShift, no position, over softmax with rib | softmax_w48_rib | taylorswinir
    TaylorShift over softmax, window 48, both rib   | softmax_w48_rib | taylor_rib
"""
_PATCHES = """
    2x2 over 1x1 pixels per token, SwinIR          | swinir       | swinir_p2
    4x4 over 1x1 pixels per token, SwinIR          | swinir       | swinir_p4
    8x8 over 1x1 pixels per token, SwinIR          | swinir       | swinir_p8
    2x2 over 1x1 pixels per token, TaylorSwinIR    | taylorswinir | taylor_p2
    4x4 over 1x1 pixels per token, TaylorSwinIR    | taylorswinir | taylor_p4
    8x8 over 1x1 pixels per token, TaylorSwinIR    | taylorswinir | taylor_p8
    TaylorShift over softmax, 8x8 pixels per token | swinir_p8    | taylor_p8
"""
_HEADS = """
    12 over 6 heads, SwinIR       | swinir       | swinir_h12
    12 over 6 heads, TaylorSwinIR | taylorswinir | taylor_h12
"""

#: What each part is compared with.
PART_COMPARISONS: tuple[Comparison, ...] = (
    *_compare("swap", _SWAP),
    *(entry for budget in (_SHORT, _MIDDLE) for entry in _compare("attribution", _ATTRIBUTION, budget)),
    *_compare("windows", _WINDOWS),
    *_compare("positions", _POSITIONS),
    *_compare("patches", _PATCHES),
    *(
        entry
        for upscale in (3, 4)
        for entry in _compare(
            "scales", f"TaylorSwinIR over SwinIR, x{upscale} | swinir | taylorswinir", upscale=upscale
        )
    ),
    *_compare("heads", _HEADS),
)
