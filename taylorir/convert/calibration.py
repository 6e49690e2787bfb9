"""``calibrate``: a converted network is brought near to the network that it was made from.

Three stages, each of which may be empty:

1. *attention transfer*: each converted layer learns to give what the softmax layer in its place gives on the
   inputs that it has in the teacher (LoLCATs, arXiv 2410.10254); all other weights stay;
2. *distillation*: the whole network learns to give the teacher's image;
3. *ground truth*: it learns to give the HR image, as in any training.

A network that is no converted one can be trained on in the third stage alone, on the same crops: that is the
control of a comparison.

Shapes: B crops of a batch, ``lr`` [B, 3, c, c] and ``hr`` [B, 3, s c, s c] in 0..1.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from taylorir.datasets import NamedImage, sample_split
from taylorir.evaluation import check_upscale
from taylorir.networks import (
    Checkpoint,
    checkpoint_files,
    latest_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from taylorir.rows import provenance
from taylorir.training import (
    Curve,
    HeldOut,
    PatchPool,
    Watch,
    check_types,
    claimed,
    deferred_signals,
    end_by,
    join_processes,
)

STAGES = ("transfer", "distill", "truth")
FREE_ON_RESUME = ("log_every", "eval_every", "checkpoint_every")  # no weight depends on them


@dataclass(frozen=True)
class Calibration:
    """How a network is calibrated. Wrong values raise ValueError with one line that names the field.

    Attributes:
        steps: of attention transfer, of distillation and of ground truth.
        crop_size: side of the LR crop in pixels.
        batch_size: crops a step.
        transfer_rate: rate of Adam in the first stage.
        learning_rate: rate in the other two.
        warmup_steps: steps over which the rate rises linearly, in each stage.
        decay: the last part of the second and third stage, together, over which the rate falls linearly to
            0. Before that it is constant, so that a run which is stopped early has lost little.
        betas: of Adam, which begins anew with each stage.
        ema_decay: of the averaged weights, which are those measured and returned.
        seed: of the crops.
        log_every: steps between two rows of the curve.
        eval_every: steps between two PSNR on the held-out images; 0 means at the end only.
        checkpoint_every: steps between two checkpoints.
    """

    steps: tuple[int, int, int] = (200, 1000, 0)
    crop_size: int = 48
    batch_size: int = 1
    transfer_rate: float = 1e-3
    learning_rate: float = 2e-4
    warmup_steps: int = 20
    decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 20
    eval_every: int = 200
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.steps) < 0 or not sum(self.steps):
            raise ValueError(f"steps must be three numbers from 0 on, not all of them 0, got {self.steps!r}")
        for name in ("crop_size", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")

    @property
    def num_steps(self) -> int:
        """Of all stages together."""
        return sum(self.steps)

    def stage(self, step: int) -> tuple[str, int]:
        """The stage of the step with index ``step`` (from 0), and the index of the step within the stage."""
        for name, steps in zip(STAGES, self.steps, strict=True):
            if step < steps:
                return name, step
            step -= steps
        raise IndexError(f"there are {self.num_steps} steps")

    def rate(self, step: int) -> float:
        """The rate of the step with index ``step`` (from 0)."""
        stage, index = self.stage(step)
        rise = min(1.0, (index + 1) / (self.warmup_steps + 1))
        if stage == "transfer":
            return self.transfer_rate * rise
        fall = (self.num_steps - step) / max(self.decay * sum(self.steps[1:]), 1.0)
        return self.learning_rate * min(rise, fall)


@dataclass(frozen=True)
class CalibrationResult:
    """What a call of :func:`calibrate` ended with.

    Attributes:
        model: the network with the averaged weights, in evaluation mode.
        curve: one row each ``log_every`` steps, see :mod:`taylorir.training.curve`; the loss is that of the
            row's stage.
        step: steps done, of all stages together.
        cpu_seconds: CPU time of these steps, over all resumed calls.
    """

    model: nn.Module
    curve: pd.DataFrame
    step: int
    cpu_seconds: float


def calibrate(
    converted: nn.Module,
    teacher: nn.Module,
    images: Sequence[NamedImage] | PatchPool,
    settings: Calibration | None = None,
    *,
    upscale: int | None = None,
    held_out: Sequence[NamedImage] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    stop_at: int | None = None,
    max_minutes: float | None = None,
    device: str = "auto",
    progress: bool = True,
) -> CalibrationResult:
    """Bring a converted network near to its teacher. Neither is changed.

    Both run in evaluation mode: statistics of batches and stochastic depth stay as they are, so that what
    learns is what will run. Attention transfer holds one layer's gradients at a time. SIGINT and SIGTERM save
    first and then end as they always do.

    Args:
        converted: what :func:`taylorir.convert.taylorize` made of ``teacher``, or any network of its scale.
        teacher: from [B, 3, H, W] to [B, 3, s H, s W], both 0..1.
        images: training images, or the pool of crops that was made of them.
        settings: steps, rates and crops.
        upscale: s; may be left out where a network knows its own (``model.config.upscale``).
        held_out: images for the PSNR of the curve; None takes the held-out sample images.
        out: folder for checkpoints and ``curve.csv``; None keeps nothing.
        resume: go on from the newest checkpoint in ``out``, from the start where there is none.
        stop_at: stop, with a checkpoint, once this many steps are done.
        max_minutes: stop after about this time, with a checkpoint.
        device: "auto" takes CUDA where there is one.
        progress: show a bar on standard error.

    Raises:
        ValueError: there is no layer to transfer to, the images do not serve, the loss diverged, or the
            checkpoints are of another run.
        OSError: a file cannot be read or written.
        KeyboardInterrupt, SystemExit: on SIGINT and SIGTERM, after saving.
    """
    settings = settings or Calibration()
    folder = Path(out) if out is not None else None
    if folder is None and resume:
        raise ValueError("resume needs the folder of the run: out is None")
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(join_processes(device))
        signals = stack.enter_context(deferred_signals())
        if folder is not None:
            stack.enter_context(claimed(folder, resume=resume))
        held_out = sample_split()[1] if held_out is None else held_out
        run = _Run(converted, teacher, images, held_out, settings, upscale, folder, processes.device)
        if resume and checkpoint_files(folder):
            run.load(latest_checkpoint(folder))
        last = min(settings.num_steps, settings.num_steps if stop_at is None else stop_at)
        run.loop(last, signals, max_minutes, progress)
    if signals and run.step < last:
        end_by(signals[0])
    return CalibrationResult(run.averaged, run.rows, run.step, run.cpu_seconds)


def converted_layers(converted: nn.Module, teacher: nn.Module) -> list[str]:
    """Names of the layers whose attention was converted, in the order of the network.

    A layer is the smallest module that holds a converted attention and the matrices of its projections.
    """
    classes = {name: type(module) for name, module in teacher.named_modules()}
    changed = [name for name, module in converted.named_modules() if type(module) is not classes.get(name)]
    sites = [name for name in changed if not any(other.startswith(f"{name}.") for other in changed if name)]
    return list(dict.fromkeys(_with_projections(converted, site) for site in sites if site))


def _with_projections(model: nn.Module, name: str) -> str:
    module = model.get_submodule(name)
    if any(parameter.ndim > 1 for parameter in module.parameters()) or not name:
        return name
    return _with_projections(model, name.rpartition(".")[0])


class _Run:
    """The state of a calibration, and the loop over it."""

    def __init__(
        self,
        converted: nn.Module,
        teacher: nn.Module,
        images: Sequence[NamedImage] | PatchPool,
        held_out: Sequence[NamedImage],
        settings: Calibration,
        upscale: int | None,
        folder: Path | None,
        device: torch.device,
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        upscale = check_upscale(converted, upscale)
        self.pool = images if isinstance(images, PatchPool) else _pool(images, upscale, settings, device)
        self.held_out = HeldOut(held_out, upscale)
        self.layers = converted_layers(converted, teacher)
        if settings.steps[0] and not self.layers:
            raise ValueError("steps[0] must be 0: no attention of the network differs from the teacher's")
        self.teacher = copy.deepcopy(teacher).to(device).eval().requires_grad_(False)
        self.model = copy.deepcopy(converted).to(device).eval()
        self.averaged = copy.deepcopy(self.model)
        self._begin_stage()
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.saved_step: int | None = None
        self.rows = pd.DataFrame()

    def _begin_stage(self) -> None:
        """A fresh optimiser; weights that get no gradient in this stage have one of zeros and stay."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=self.settings.betas, fused=True)

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint.

        Raises:
            ValueError: it is of another run.
        """
        stored, asked = checkpoint.record["train"], self._record()
        for key, value in asked["train"].items():
            if key not in FREE_ON_RESUME and stored.get(key) != value:
                raise ValueError(
                    f"{checkpoint.path} is of another run: {key} was {stored.get(key)!r}, now it is {value!r}"
                )
        if checkpoint.record["data"] != self.pool.fingerprint:
            raise ValueError(f"{checkpoint.path} was calibrated on other images")
        unpack_state(checkpoint, self.model, self.averaged, self.optimizer, self.device)
        self.step = self.saved_step = checkpoint.record["step"]
        self.seconds = float(checkpoint.record["seconds"])
        self.cpu_seconds = float(checkpoint.record["cpu_seconds"])

    def loop(self, last: int, signals: list[int], max_minutes: float | None, progress: bool) -> None:
        """Go on to the step ``last``, or until a signal came or the time ran out; then save."""
        settings = self.settings
        deadline = float("inf") if max_minutes is None else time.monotonic() + 60 * max_minutes
        curve, watch = Curve(self.folder, self.step), Watch(self.device)
        losses, logged_step, stop = torch.zeros((), device=self.device), self.step, False
        bar = tqdm(total=settings.num_steps, initial=self.step, disable=not progress, unit="it")
        with bar, contextlib.closing(curve):
            while self.step < last and not stop:
                losses += self._update(self.step)
                self.step += 1
                bar.update()
                stop = self.step == last or bool(signals) or time.monotonic() > deadline
                ends_stage = self.step == settings.num_steps or settings.stage(self.step)[1] == 0
                save = stop or ends_stage or self.step % settings.checkpoint_every == 0
                if not save and self.step % settings.log_every:
                    continue
                row = self._row(losses / (self.step - logged_step), self.step - logged_step, watch)
                losses, logged_step = torch.zeros_like(losses), self.step
                if ends_stage or (settings.eval_every and self.step % settings.eval_every == 0):
                    row["psnr_y"] = self.held_out.psnr(self.averaged, self.device)
                    bar.set_description_str(f"held-out PSNR {row['psnr_y']:.2f} dB", refresh=False)
                curve.append(row)
                if save:
                    self._save()
                watch.resume()
        self.rows = curve.frame()

    def _update(self, step: int) -> Tensor:
        """One step of the optimiser; the loss, detached."""
        settings = self.settings
        stage, index = settings.stage(step)
        if index == 0:
            self._begin_stage()
        lr, hr = self.pool.crops(self.pool.draw(step, settings.batch_size, settings.seed))
        self.optimizer.zero_grad(set_to_none=False)
        if stage == "transfer":
            loss = self._transfer(lr)
        else:
            if stage == "distill":
                with torch.no_grad():
                    hr = self.teacher(lr)
            loss = nn.functional.l1_loss(self.model(lr), hr)
            loss.backward()
        self.optimizer.param_groups[0]["lr"] = settings.rate(step)
        self.optimizer.step()
        with torch.no_grad():
            kept = min(settings.ema_decay, (1 + index) / (10 + index))
            pairs = list(self.averaged.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(*pairs, 1 - kept)
        return loss.detach()

    def _transfer(self, lr: Tensor) -> Tensor:
        """Gradients of every layer, taken while the teacher runs; the mean of their relative errors.

        The error of a layer is its mean squared error over the mean square of what it shall give.
        """
        errors: list[Tensor] = []

        def compare(layer: nn.Module, _: nn.Module, inputs: tuple, named: dict, wanted: object) -> None:
            with torch.enable_grad():
                wanted, given = _tensor(wanted), _tensor(layer(*inputs, **named))
                error = (given - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)
                error.backward()
            errors.append(error.detach())

        with contextlib.ExitStack() as stack:
            for name in self.layers:
                hook = functools.partial(compare, self.model.get_submodule(name))
                softmax = self.teacher.get_submodule(name)
                stack.enter_context(softmax.register_forward_hook(hook, with_kwargs=True))
            with torch.no_grad():
                self.teacher(lr)
        return torch.stack(errors).mean()

    def _row(self, loss: Tensor, steps: int, watch: Watch) -> dict[str, float]:
        seconds, cpu_seconds = watch.lap()
        self.seconds, self.cpu_seconds = self.seconds + seconds, self.cpu_seconds + cpu_seconds
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} at step {self.step}: try a lower rate")
        return {
            "step": self.step,
            "loss": loss.item(),
            "learning_rate": self.settings.rate(self.step - 1),
            "psnr_y": float("nan"),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "iterations_per_second": steps / max(seconds, 1e-9),
            "data_share": watch.data_share,
            "utilisation": float("nan"),
        }

    def _save(self) -> None:
        if self.folder is None or self.step == self.saved_step:
            return
        tensors = pack_state(self.model, self.averaged, self.optimizer, self.device)
        save_checkpoint(self.folder, self.step, tensors, self._record(), keep=2)
        self.saved_step = self.step

    def _record(self) -> dict:
        return {
            "step": self.step,
            "model": type(self.model).__name__,
            "train": json.loads(json.dumps(dataclasses.asdict(self.settings))),
            "data": self.pool.fingerprint,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            **provenance(device=self.device, seed=self.settings.seed),
        }


def _pool(
    images: Sequence[NamedImage], upscale: int, settings: Calibration, device: torch.device
) -> PatchPool:
    pixels, names = [image.image for image in images], [image.name for image in images]
    return PatchPool(pixels, names, upscale=upscale, crop_size=settings.crop_size, device=device)


def _tensor(output: object) -> Tensor:
    """What a layer gives, where some give a tuple of it and more."""
    return output[0] if isinstance(output, tuple) else output
