"""The restoration runs as data: does what TaylorShift does to super-resolution carry over to other tasks?

The recipe is that of the mini tier, a third as long, with networks that enlarge nothing and learn to undo a
degradation. Arms of a task differ in the network alone. Windows are those of the two papers: 8 and 48, and
for JPEG, whose blocks of 8 pixels a window should not line up with, 7 and 49.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from taylorir.experiments.plan import Comparison, Run
from taylorir.networks import ModelConfig
from taylorir.training import TrainConfig


@dataclass(frozen=True)
class Task:
    """A restoration task.

    Attributes:
        degradation: a name of :func:`taylorir.images.degrade`.
        window_size: of SwinIR.
        large_window: of TaylorSwinIR, and the side of a training crop.
        sets: that its networks are measured on: two of super-resolution, and the task's own.
        channels: of an image: 3 (RGB) or 1 (grey).
    """

    degradation: str
    window_size: int
    large_window: int
    sets: tuple[str, ...]
    channels: int = 3


#: Experiment -> its task.
TASKS: dict[str, Task] = {
    "denoise": Task("noise25", 8, 48, ("Set5", "Set14", "McMaster")),
    "jpeg": Task("jpeg10", 7, 49, ("Set5", "Set14", "classic5")),
    "denoise_gray": Task("noise25", 8, 48, ("Set12",), channels=1),
}

#: Seeds of each arm, fixed before the runs.
SEEDS = (0, 1, 2)

ARMS = ("linear", "swinir", "taylorswinir")

_SWINIR = ModelConfig(
    upscale=1, upsampler="", embed_dim=24, depths=(2, 2), num_heads=6, drop_path_rate=0.0,
    softmax_backend="fused",
)  # fmt: skip
_RECIPE = TrainConfig(
    model=_SWINIR, datasets=("BSDS400", "T91"), degradation=TASKS["denoise"].degradation, batch_size=1,
    num_iters=1000, learning_rate=4e-3, betas=(0.9, 0.99), schedule="cosine", warmup_iters=50, ema_decay=0.99,
    eval_every=200, log_every=20, checkpoint_every=100, keep_checkpoints=2,
)  # fmt: skip


def restoration_run(arm: str, task: str, seed: int) -> str:
    """The name of a run."""
    return f"{arm}_{task}_mini_s{seed}"


def _run(arm: str, task: str, seed: int) -> Run:
    settings, side = TASKS[task], TASKS[task].large_window
    model = replace(_SWINIR, window_size=settings.window_size, img_size=side, in_chans=settings.channels)
    if arm == "linear":
        model = replace(model, depths=(), num_heads=())
    elif arm == "taylorswinir":
        model = replace(model, attention="taylor", position="none", window_size=side)
    config = replace(_RECIPE, model=model, degradation=settings.degradation, crop_size=side, seed=seed)
    keep = seed == SEEDS[0] and settings.channels == 3  # which a person's pictures have
    return Run(restoration_run(arm, task, seed), (task,), config, sets=settings.sets, keep_weights=keep)


# Seed by seed: what an early stop leaves can be read.
RESTORATION_RUNS: tuple[Run, ...] = tuple(
    _run(arm, task, seed) for seed in SEEDS for task in TASKS for arm in ARMS
)


def _compare(task: str, label: str, reference: str, other: str) -> Comparison:
    pairs = ((restoration_run(reference, task, seed), restoration_run(other, task, seed)) for seed in SEEDS)
    return Comparison(task, label, *(tuple(names) for names in zip(*pairs, strict=True)))


def _comparisons(task: str) -> tuple[Comparison, ...]:
    swinir = f"SwinIR, window {TASKS[task].window_size}"
    ours = f"TaylorSwinIR, window {TASKS[task].large_window}"
    return (
        _compare(task, f"{ours}, over {swinir}", "swinir", "taylorswinir"),
        _compare(task, f"{swinir}, over no transformer", "linear", "swinir"),
        _compare(task, f"{ours}, over no transformer", "linear", "taylorswinir"),
    )


#: What is compared with what, in the order of the tables.
RESTORATION_COMPARISONS: tuple[Comparison, ...] = tuple(
    comparison for task in TASKS for comparison in _comparisons(task)
)
