"""The budgeted protocol as data: every run of every tier, in one visible table.

Runs that are compared differ in what their experiment names and in nothing else: same images, crops (the
draw of a step depends on the seed alone), batch, iterations and schedule. ``python -m taylorir.experiments
list`` prints the table; ``... run --tier mini`` does the runs (see :mod:`taylorir.experiments.run`).
"""

from __future__ import annotations

from dataclasses import replace

from taylorir.experiments.plan import Comparison, Run
from taylorir.experiments.protocol_mid import MID_RUNS
from taylorir.experiments.protocol_parts import PART_RUNS
from taylorir.experiments.protocol_restoration import RESTORATION_RUNS
from taylorir.networks import VARIANTS, ModelConfig
from taylorir.training import TrainConfig

#: Name of an experiment -> the question that it answers.
EXPERIMENTS: dict[str, str] = {
    "main": "SwinIR with windows of 8 against TaylorSwinIR with windows of 48",
    "a": "the attention alone: softmax against TaylorShift, both in windows of 8",
    "b": "the pixels alone: tokens of 1x1, 2x2, 4x4 and 8x8 pixels in windows of 48 x 48 pixels",
    "c": "the window of TaylorShift: 8, 16, 24, 48",
    "d": "the window of softmax: 8, 24, 48, and TaylorShift in the same",
    "e": "position: none, rope, lepe",
    "f": "6 against 12 heads",
    "g": "shifted windows or not",
    "h": "a trained SwinIR turned by taylorize and trained on, against the same SwinIR simply trained on",
    "rates": "the learning rate of each kind, before anything else",
    "swap": "trained networks of each kind, trained on as they are and as the other kind",
    "attribution": "the difference of the main pair taken apart: bias, attention, window",
    "windows": "windows of 8, 24 and 48 under softmax and under TaylorShift",
    "positions": "none, rope, lepe, rib and centred keys under TaylorShift; rib under softmax, window 48",
    "patches": "tokens of 1x1, 2x2, 4x4 and 8x8 pixels under both attentions",
    "scales": "x3 and x4, begun from x2",
    "heads": "6 against 12 heads under both attentions",
    "floor": "the transformer, against the same network without one: three convolutions, a linear filter",
    "denoise": "another task: colour images with noise, SwinIR against TaylorSwinIR",
    "jpeg": "another task: artefacts of JPEG, SwinIR against TaylorSwinIR",
    "denoise_gray": "another task: grey images with noise, SwinIR against TaylorSwinIR",
}


_TAYLOR = {"attention": "taylor", "position": "none", "window_size": 48}

# ----------------------------------------------------------------------------- mini: two cores
_MINI_SWINIR = ModelConfig(
    upscale=2, embed_dim=24, depths=(2, 2), num_heads=6, window_size=8, img_size=48, drop_path_rate=0.0,
    softmax_backend="fused",
)  # fmt: skip
_MINI_TAYLOR = replace(_MINI_SWINIR, **_TAYLOR)
_MINI_LINEAR = replace(_MINI_SWINIR, depths=(), num_heads=())
_MINI = TrainConfig(
    model=_MINI_SWINIR, datasets=("BSDS400", "T91"), crop_size=48, batch_size=1, num_iters=3000,
    learning_rate=4e-3, betas=(0.9, 0.99), schedule="cosine", warmup_iters=50, ema_decay=0.99,
    eval_every=200, log_every=20, checkpoint_every=200, keep_checkpoints=2,
)  # fmt: skip


_LOOKED_INTO = {"main", "floor", "a", "d", "g"}  # notebook 10 tells window, softmax and shift apart


def _mini(
    name: str, experiments: str, base: ModelConfig = _MINI_TAYLOR, seed: int = 0, **changes: object
) -> Run:
    config = replace(_MINI, model=replace(base, **changes), seed=seed)
    keys = experiments.split()
    return Run(name, tuple(keys), config, keep_weights=not _LOOKED_INTO.isdisjoint(keys))


_MINI_RUNS = (
    _mini("swinir_mini_x2_s0", "main floor a h", _MINI_SWINIR),
    _mini("taylorswinir_mini_x2_s0", "main floor b c d e f g h"),
    # softmax in windows of 48: a step takes several times as long as any other
    _mini("softmax_w48", "d", _MINI_SWINIR, window_size=48, position="none", softmax_backend="flash"),
    _mini("softmax_w24", "d", _MINI_SWINIR, window_size=24, position="none", softmax_backend="flash"),
    _mini("swinir_mini_x2_s1", "main floor", _MINI_SWINIR, seed=1),
    _mini("taylorswinir_mini_x2_s1", "main floor", seed=1),
    _mini("swinir_mini_x2_s2", "main floor", _MINI_SWINIR, seed=2),
    _mini("taylorswinir_mini_x2_s2", "main floor", seed=2),
    _mini("swinir_mini_x4_s0", "main floor", _MINI_SWINIR, upscale=4),
    _mini("taylorswinir_mini_x4_s0", "main floor", upscale=4),
    _mini("swinir_mini_x3_s0", "main floor", _MINI_SWINIR, upscale=3),
    _mini("taylorswinir_mini_x3_s0", "main floor", upscale=3),
    *(_mini(f"linear_mini_x2_s{seed}", "floor", _MINI_LINEAR, seed=seed) for seed in range(3)),
    _mini("linear_mini_x3_s0", "floor", _MINI_LINEAR, upscale=3),
    _mini("linear_mini_x4_s0", "floor", _MINI_LINEAR, upscale=4),
    _mini("softmax_w8", "a d", _MINI_SWINIR, position="none"),
    _mini("taylor_w8", "a c", window_size=8),
    _mini("taylor_w48_p2", "b", patch_size=2, window_size=24),
    _mini("taylor_w48_p4", "b", patch_size=4, window_size=12),
    _mini("taylor_w48_p8", "b", patch_size=8, window_size=6),
    replace(_mini("taylor_w48_upcycled", "h"), upcycled_from="swinir_mini_x2_s0"),
    replace(_mini("swinir_mini_x2_trained_on", "h", _MINI_SWINIR), upcycled_from="swinir_mini_x2_s0"),
    _mini("taylor_w48_no_shift", "g", shift=False),
    _mini("taylor_w48_h12", "f", num_heads=12),
    _mini("taylor_w48_rope", "e", position="rope"),
    _mini("taylor_w48_lepe", "e", position="lepe"),
    _mini("taylor_w16", "c", window_size=16),
    _mini("taylor_w24", "c d", window_size=24),
)

# --------------------------------------------------------------------------- S: one GPU, 3 to 9 minutes a run
_S = TrainConfig(
    datasets=("BSDS400", "T91"), crop_size=48, batch_size=32, num_iters=10_000, learning_rate=5e-4,
    schedule="cosine", warmup_iters=200, ema_decay=0.999, dtype="bfloat16", compile=True,
    eval_every=1000, log_every=100, checkpoint_every=1000,
)  # fmt: skip


def _s(family: str, upscale: int) -> Run:
    model = replace(VARIANTS[f"{family}_s_x{upscale}"], drop_path_rate=0.0)
    if model.attention == "softmax":
        model = replace(model, softmax_backend="fused")
    config = replace(_S, model=model)
    return Run(f"{family}_s_x{upscale}", ("main",), config, keep_weights=True, max_minutes=9.0)


_S_RUNS = tuple(_s(family, upscale) for upscale in (2, 4, 3) for family in ("swinir", "taylorswinir"))

# ------------------------------- paper: the published recipe (KAIR, options/swinir), for torchrun
_PAPER = TrainConfig(
    datasets=("DIV2K",), crop_size=48, batch_size=32, num_iters=500_000, learning_rate=2e-4,
    schedule="multistep", milestones=(0.5, 0.8, 0.9, 0.95), ema_decay=0.999,
    eval_every=5000, log_every=200, checkpoint_every=5000,
)  # fmt: skip


def _paper(family: str, upscale: int) -> Run:
    name = f"{family}_m_x{upscale}"
    return Run(name, ("main",), replace(_PAPER, model=VARIANTS[name]), max_minutes=None)


_PAPER_RUNS = tuple(_paper(family, upscale) for upscale in (2, 3, 4) for family in ("swinir", "taylorswinir"))


#: What verdicts are about, fixed before the runs: its mean over all images of ``plan.SETS``, when trained.
END_POINT = "psnr_y"


def _compare(experiment: str, label: str, reference: str, other: str) -> Comparison:
    return Comparison(experiment, label, (reference,), (other,))


_SWINIR, _OURS = (
    tuple(f"{family}_mini_x2_s{seed}" for seed in range(3)) for family in ("swinir", "taylorswinir")
)

_SWINIR_0, _OURS_0 = _SWINIR[0], _OURS[0]

_LINEAR = tuple(f"linear_mini_x2_s{seed}" for seed in range(3))

#: The runs without a transformer: no network is judged that is not above them at its scale.
FLOOR = (*_LINEAR, "linear_mini_x3_s0", "linear_mini_x4_s0")

#: What is compared with what, in the order of the tables.
COMPARISONS: tuple[Comparison, ...] = (
    Comparison("main", "TaylorSwinIR, window 48, over SwinIR, window 8", _SWINIR, _OURS),
    _compare("main", "the same at x3", "swinir_mini_x3_s0", "taylorswinir_mini_x3_s0"),
    _compare("main", "the same at x4", "swinir_mini_x4_s0", "taylorswinir_mini_x4_s0"),
    Comparison("floor", "SwinIR, window 8, over no transformer", _LINEAR, _SWINIR),
    Comparison("floor", "TaylorSwinIR, window 48, over no transformer", _LINEAR, _OURS),
    _compare("a", "TaylorShift over softmax, window 8, no bias", "softmax_w8", "taylor_w8"),
    _compare("a", "TaylorShift, no bias, over softmax with bias, window 8", _SWINIR_0, "taylor_w8"),
    _compare("a", "no bias over bias, softmax, window 8", _SWINIR_0, "softmax_w8"),
    _compare("b", "2x2 over 1x1 pixels per token", _OURS_0, "taylor_w48_p2"),
    _compare("b", "4x4 over 1x1 pixels per token", _OURS_0, "taylor_w48_p4"),
    _compare("b", "8x8 over 1x1 pixels per token", _OURS_0, "taylor_w48_p8"),
    _compare("c", "window 16 over 8, TaylorShift", "taylor_w8", "taylor_w16"),
    _compare("c", "window 24 over 8, TaylorShift", "taylor_w8", "taylor_w24"),
    _compare("c", "window 48 over 8, TaylorShift", "taylor_w8", _OURS_0),
    _compare("d", "window 24 over 8, softmax, no bias", "softmax_w8", "softmax_w24"),
    _compare("d", "window 48 over 8, softmax, no bias", "softmax_w8", "softmax_w48"),
    _compare("d", "TaylorShift over softmax, window 24", "softmax_w24", "taylor_w24"),
    _compare("d", "TaylorShift over softmax, window 48", "softmax_w48", _OURS_0),
    _compare("e", "rope over none", _OURS_0, "taylor_w48_rope"),
    _compare("e", "lepe over none", _OURS_0, "taylor_w48_lepe"),
    _compare("f", "12 over 6 heads", _OURS_0, "taylor_w48_h12"),
    _compare("g", "no shift over shifted windows", _OURS_0, "taylor_w48_no_shift"),
    _compare("h", "upcycled over from scratch", _OURS_0, "taylor_w48_upcycled"),
    _compare(
        "h", "upcycled over its SwinIR, simply trained on", "swinir_mini_x2_trained_on", "taylor_w48_upcycled"
    ),
)

TIERS: dict[str, tuple[Run, ...]] = {
    "mini": _MINI_RUNS,
    "mid": (*MID_RUNS, *PART_RUNS),
    "restoration": RESTORATION_RUNS,
    "s": _S_RUNS,
    "paper": _PAPER_RUNS,
}


def find_run(tier: str, name: str) -> Run:
    """The run of that name.

    Raises:
        ValueError: an unknown tier or run; the line lists the known ones.
    """
    known = {run.name: run for run in runs_of(tier)}
    if name not in known:
        raise ValueError(f"unknown run {name!r} of tier {tier!r}; known: {', '.join(known)}")
    return known[name]


def runs_of(tier: str) -> tuple[Run, ...]:
    """The runs of a tier, main rows first.

    Raises:
        ValueError: an unknown tier.
    """
    if tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}; known: {', '.join(TIERS)}")
    return TIERS[tier]
