"""What defines a training run: one frozen dataclass, checked when made, and the rate that follows."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from taylorir.images import check_degradation
from taylorir.networks import ModelConfig, config_from_json
from taylorir.training.settings import check_types

# What a resumed run may set anew, because the weights do not depend on it.
FREE_ON_RESUME = ("eval_every", "log_every", "checkpoint_every", "keep_checkpoints")
# What a branch of a run may set anew besides: how far it goes, and how it ends.
FREE_ON_BRANCH = ("num_iters", "decay_iters", "crop_size")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Wrong values raise ValueError with one line that names the field.

    The defaults are SwinIR's recipe (KAIR, options/swinir) but for its length: L1, Adam with rate 2e-4 and
    betas 0.9, 0.999, halved after 50, 80, 90 and 95 percent of the iterations, EMA 0.999, no clipping.

    Attributes:
        model: the network. ``model.use_checkpoint`` trades time for memory (gradient checkpointing).
        datasets: names of the image sets (see :mod:`taylorir.datasets.sets`); "samples" stands for its
            training part.
        degradation: of the LR images, by a name of :mod:`taylorir.images.degradations`; "none" is bicubic
            alone. A network that enlarges nothing learns to undo it.
        crop_size: side of the LR crop in pixels.
        batch_size: crops a step, over all processes together.
        num_iters: steps of the optimiser.
        learning_rate: the highest rate.
        betas: of Adam.
        schedule: "multistep" (halved at the milestones), "cosine" (to ``final_rate``) or "constant" (until
            the last ``decay_iters`` steps).
        milestones: fractions of ``num_iters``.
        warmup_iters: steps over which the rate rises linearly.
        decay_iters: of "constant": steps at the end over which the rate falls linearly to ``final_rate``. A
            run without them can be gone on with for as long as one likes; one with them, branched off from
            it, tells what it was worth at that point.
        final_rate: of the cosine and of the linear fall, as a fraction of ``learning_rate``.
        ema_decay: of the averaged weights, which are those evaluated and kept; 0 means no averaging. In the
            first steps it is (1 + step) / (10 + step), so that the initial weights are forgotten.
        clip_grad_norm: the largest norm of the gradient; 0 means no clipping.
        dtype: "float32", or "bfloat16" (autocast). float16 overflows in the residual stream of SwinIR and is
            refused.
        tf32: let CUDA multiply float32 matrices in TensorFloat-32.
        compile: ``torch.compile`` the network.
        cuda_graphs: compile in the mode that replays CUDA graphs.
        deterministic: only algorithms whose result does not change from run to run.
        seed: of the initial weights, the crops and the stochastic depth.
        eval_every: steps between two PSNR on the held-out images; 0 means at the end only.
        log_every: steps between two rows of the curve.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: how many of the last ones stay.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    datasets: tuple[str, ...] = ("samples",)
    degradation: str = "none"
    crop_size: int = 48
    batch_size: int = 32
    num_iters: int = 2000
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "multistep"
    milestones: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    warmup_iters: int = 0
    decay_iters: int = 0
    final_rate: float = 0.0
    ema_decay: float = 0.999
    clip_grad_norm: float = 0.0
    dtype: str = "float32"
    tf32: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    deterministic: bool = False
    seed: int = 0
    eval_every: int = 200
    log_every: int = 20
    checkpoint_every: int = 200
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        for name in ("datasets", "betas", "milestones"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_types(self)
        _check(self)


def _check(config: TrainConfig) -> None:
    for name in ("crop_size", "batch_size", "num_iters", "log_every", "checkpoint_every", "keep_checkpoints"):
        _check_whole(name, getattr(config, name), lowest=1)
    for name in ("warmup_iters", "decay_iters", "eval_every", "seed"):
        _check_whole(name, getattr(config, name), lowest=0)
    choices_of = {"schedule": ("multistep", "cosine", "constant"), "dtype": ("float32", "bfloat16")}
    for name, choices in choices_of.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}")
    ranges = {"final_rate": (0.0, 1.0), "ema_decay": (0.0, 0.999999), "clip_grad_norm": (0.0, math.inf)}
    for name, (lowest, highest) in ranges.items():
        if not lowest <= getattr(config, name) <= highest:
            raise ValueError(f"{name} must be in [{lowest}, {highest}], got {getattr(config, name)!r}")
    if config.decay_iters and (config.schedule != "constant" or config.decay_iters > config.num_iters):
        raise ValueError(
            f"decay_iters must be 0, or with schedule 'constant' at most num_iters = {config.num_iters}, "
            f"got {config.decay_iters}"
        )
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive, got {config.learning_rate!r}")
    if not all(0 <= beta < 1 for beta in config.betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {config.betas!r}")
    if not all(0 < fraction <= 1 for fraction in config.milestones):
        raise ValueError(f"milestones must be fractions of num_iters in (0, 1], got {config.milestones!r}")
    if not config.datasets:
        raise ValueError("datasets must name at least one image set, got ()")
    check_degradation(config.degradation)
    if config.model.upscale == 1 and config.degradation == "none":
        raise ValueError(
            "degradation must be given where the network enlarges nothing, such as 'noise25' or 'jpeg10'"
        )


def _check_whole(name: str, value: int, *, lowest: int) -> None:
    if not lowest <= value < 2**63:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, below 2**63, got {value!r}")


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the step with index ``step`` (from 0)."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / config.warmup_iters
    if config.schedule == "multistep":
        passed = sum(step >= round(fraction * config.num_iters) for fraction in config.milestones)
        return config.learning_rate * 0.5**passed
    if config.schedule == "constant":
        fall = min(1.0, (config.num_iters - step) / max(config.decay_iters, 1))
    else:
        progress = (step - config.warmup_iters) / max(config.num_iters - config.warmup_iters, 1)
        fall = (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * fall)


def ema_decay(config: TrainConfig, step: int) -> float:
    """The decay of the averaged weights at the step with index ``step`` (from 0)."""
    return min(config.ema_decay, (1 + step) / (10 + step))


def train_config_to_dict(config: TrainConfig) -> dict:
    """Plain values, as JSON holds them; the network under ``model``."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def train_config_from_dict(values: dict) -> TrainConfig:
    """The inverse of :func:`train_config_to_dict`.

    Raises:
        ValueError: an unknown field, or a value that :class:`TrainConfig` or the network refuses.
    """
    allowed = [entry.name for entry in dataclasses.fields(TrainConfig)]
    unknown = [name for name in values if name not in allowed]
    if unknown:
        raise ValueError(f"unknown training setting {unknown[0]!r}; allowed: {', '.join(allowed)}")
    model = config_from_json(json.dumps(values.get("model")))
    return TrainConfig(**{**values, "model": model})


def check_same_run(
    stored: TrainConfig, asked: TrainConfig, source: object, free: Sequence[str] = FREE_ON_RESUME
) -> None:
    """Raises: ValueError: a setting differs that is not ``free``; the line names the first one."""
    for prefix, old, new in (("model.", stored.model, asked.model), ("", stored, asked)):
        for entry in dataclasses.fields(old):
            if entry.name == "model" or entry.name in free:
                continue
            was, is_now = getattr(old, entry.name), getattr(new, entry.name)
            if was != is_now:
                raise ValueError(
                    f"{source} is of another run: {prefix}{entry.name} was {was!r}, now it is {is_now!r}; "
                    "go on with the same settings, or choose another folder"
                )


def check_branch(stored: TrainConfig, asked: TrainConfig, step: int, source: object) -> None:
    """See that a run may go on from the checkpoint of another at ``step``, as if it had been its own.

    Raises:
        ValueError: a setting differs that a branch must keep, or the rates of the steps done do.
    """
    check_same_run(stored, asked, source, (*FREE_ON_RESUME, *FREE_ON_BRANCH))
    for done in range(min(step, asked.num_iters)):
        if (was := learning_rate(stored, done)) != (is_now := learning_rate(asked, done)):
            raise ValueError(
                f"{source} cannot be branched off at step {step}: the rate of step {done + 1} was {was:g}, "
                f"now it is {is_now:g}; the schedule must be constant that far"
            )
