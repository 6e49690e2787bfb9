"""One training loop: on a laptop, on a GPU, or on many under torchrun; killed at any moment, it goes on bit
by bit.

Shapes: B crops of a batch, C channels, ``lr`` [B, C, c, c] and ``hr`` [B, C, s c, s c] in 0..1.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from taylorir.datasets import NamedImage, sample_split
from taylorir.images import to_grey
from taylorir.networks import (
    Checkpoint,
    build_from_config,
    checkpoint_files,
    fit_weights,
    latest_checkpoint,
    pack_state,
    remove_old_checkpoints,
    save_checkpoint,
    save_weights,
    unpack_state,
)
from taylorir.rows import one_line, provenance
from taylorir.training.config import (
    TrainConfig,
    check_branch,
    check_same_run,
    ema_decay,
    learning_rate,
    train_config_from_dict,
    train_config_to_dict,
)
from taylorir.training.crops import HeldOut, PatchPool, load_training_images
from taylorir.training.curve import Curve
from taylorir.training.run_control import (
    Processes,
    Watch,
    deferred_signals,
    end_by,
    exactness,
    gpu_utilisation,
    join_processes,
)
from taylorir.training.run_folder import WEIGHTS, claimed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a call of :func:`train` ended with.

    Attributes:
        model: the network with the averaged weights, in evaluation mode.
        curve: one row each ``log_every`` steps, see :mod:`taylorir.training.curve`.
        step: steps done; below ``config.num_iters`` where the time ran out.
        seconds: of training, over all resumed calls; wall clock.
        cpu_seconds: the same in CPU time of this process, which other programs disturb less.
        weights: the file with the final weights, None without ``out`` or before the last step.
    """

    model: nn.Module
    curve: pd.DataFrame
    step: int
    seconds: float
    cpu_seconds: float
    weights: Path | None


def train(
    config: TrainConfig,
    *,
    images: Sequence[NamedImage] | None = None,
    held_out: Sequence[NamedImage] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    init: nn.Module | None = None,
    branch_from: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> TrainResult:
    """Train a network.

    Under torchrun each process takes an equal part of every batch, so that the result is that of one process.
    SIGINT (Ctrl-C) and SIGTERM save first and then end as they always do.

    Args:
        config: the run.
        images: training images; None loads ``config.datasets``.
        held_out: images for the PSNR of the curve; None takes the held-out sample images.
        data_root: folder of the image sets, see :func:`taylorir.datasets.data_root`.
        out: folder for checkpoints, ``curve.csv`` and at last ``weights.safetensors``; None keeps nothing.
        resume: go on from the newest checkpoint in ``out``, from the start where there is none.
        max_minutes: stop after about this time, with a checkpoint.
        init: a network of the same architecture whose weights to start from, instead of random ones.
        branch_from: folder of another run, to begin with its newest checkpoint as if it were this run's:
            step, weights, averages and the optimiser's state. Only length, decay and crop size may differ.
        device: "auto" takes CUDA where there is one.
        progress: show a bar on standard error.

    Returns:
        A :class:`TrainResult`.

    Raises:
        ValueError: the images do not serve, the loss diverged, the checkpoints are of another run or all
            damaged.
        OSError: a file cannot be read or written; what was saved before is intact.
        KeyboardInterrupt, SystemExit: on SIGINT and SIGTERM, after saving.
    """
    folder = Path(out) if out is not None else None
    if folder is None and resume:
        raise ValueError("resume needs the folder of the run: out is None")
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(join_processes(device))
        signals = stack.enter_context(deferred_signals())
        if folder is not None and processes.is_first:
            stack.enter_context(claimed(folder, resume=resume))
        with exactness(config.deterministic, config.tf32, processes.device):
            images = load_training_images(config.datasets, data_root) if images is None else images
            held_out = sample_split()[1] if held_out is None else held_out
            run = _Run(config, processes, images, held_out, folder, init)
            if resume and checkpoint_files(folder):
                run.load(latest_checkpoint(folder))
            elif branch_from is not None:
                run.load(latest_checkpoint(Path(branch_from)), branch=True)
            run.loop(signals, max_minutes, progress and processes.is_first)
            run.finish()
    if signals and run.step < config.num_iters:
        end_by(signals[0])
    return run.result()


class _Run:
    """The state of a run, and the loop over it."""

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        images: Sequence[NamedImage],
        held_out: Sequence[NamedImage],
        folder: Path | None,
        init: nn.Module | None,
    ) -> None:
        self.config, self.processes, self.folder = config, processes, folder
        if config.batch_size % processes.count:
            raise ValueError(
                f"batch_size must be a multiple of the {processes.count} processes, got {config.batch_size}"
            )
        if config.cuda_graphs and processes.device.type != "cuda":
            raise ValueError("cuda_graphs needs a CUDA device")
        grey = config.model.in_chans == 1
        self.pool = PatchPool(
            [to_grey(image.image) if grey else image.image for image in images],
            [image.name for image in images],
            upscale=config.model.upscale,
            crop_size=config.crop_size,
            degradation=config.degradation,
            device=processes.device,
        )
        self.held_out = HeldOut(held_out, config.model.upscale, degradation=config.degradation, grey=grey)
        self._build(init)
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.saved: dict | None = None  # the record of the last checkpoint
        self.rows = pd.DataFrame()

    def _build(self, init: nn.Module | None) -> None:
        config, device = self.config, self.processes.device
        torch.manual_seed(config.seed)
        model = build_from_config(config.model)
        if init is not None:
            fit_weights(model, dict(init.named_parameters()), "init")
        self.model = model.to(device).train()
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        torch.manual_seed(config.seed + self.processes.rank)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, betas=config.betas, fused=True
        )
        network = self.model
        if self.processes.count > 1:
            network = DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)
        if config.compile or config.cuda_graphs:
            network = torch.compile(network, mode="reduce-overhead" if config.cuda_graphs else None)
        self.network = network

    def load(self, checkpoint: Checkpoint, *, branch: bool = False) -> None:
        """Take over the state of a checkpoint: of this run, or for a branch of another.

        Raises:
            ValueError: it is of another run: other settings, other images.
        """
        record = checkpoint.record
        try:
            stored = train_config_from_dict(record["train"])
            seconds, cpu_seconds = float(record["seconds"]), float(record["cpu_seconds"])
            images = record["data"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{checkpoint.path} holds no record of a training: {one_line(error)}") from None
        if branch:
            check_branch(stored, self.config, record["step"], checkpoint.path)
        else:
            check_same_run(stored, self.config, checkpoint.path)
        # a pool leaves out what is smaller than its crop, so another crop size may mean other images
        if stored.crop_size == self.config.crop_size and images != self.pool.fingerprint:
            raise ValueError(
                f"{checkpoint.path} was trained on other images: fingerprint {images}, "
                f"now {self.pool.fingerprint}"
            )
        if record["step"] > self.config.num_iters:
            raise ValueError(f"{checkpoint.path} is of step {record['step']} of {self.config.num_iters}")
        if self.config.deterministic:
            self._compare_machines(record)
        unpack_state(checkpoint, self.model, self.averaged, self.optimizer, self.processes.device)
        self.saved, self.step = record, record["step"]
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        if self.processes.rank:  # the stored state is the first process's
            entropy = np.random.SeedSequence((self.config.seed, self.step, self.processes.rank))
            torch.manual_seed(int(entropy.generate_state(1)[0]))

    def _compare_machines(self, record: dict) -> None:
        """Say what has changed that bits depend on: the device (of a CPU, its threads too), or PyTorch."""
        for name, now in self._provenance().items():
            if name in ("device", "torch") and record.get(name) != now:
                logger.warning(
                    "the bits of a deterministic run may differ from here on: %s was %s, now it is %s",
                    name, record.get(name), now,
                )  # fmt: skip

    def loop(self, signals: list[int], max_minutes: float | None, progress: bool) -> None:
        """Train to the last step, or until a signal came or the time ran out; then save."""
        config, processes = self.config, self.processes
        deadline = float("inf") if max_minutes is None else time.monotonic() + 60 * max_minutes
        loss_sum, logged_step = torch.zeros((), device=processes.device), self.step
        curve = Curve(self.folder if processes.is_first else None, self.step)
        bar = tqdm(
            total=config.num_iters, initial=self.step, disable=not progress, unit="it", mininterval=1.0
        )
        watch = Watch(processes.device)
        stop = False
        with bar, contextlib.closing(curve):
            while self.step < config.num_iters and not stop:
                step = self.step + 1
                last, save = step == config.num_iters, step % config.checkpoint_every == 0
                row_is_due = last or save or step % config.log_every == 0
                loss_sum += self._update(watch if row_is_due else None)
                self.step = step
                bar.update()
                if row_is_due or processes.count == 1:
                    stop = processes.any(bool(signals) or time.monotonic() > deadline)
                if not (row_is_due or stop):
                    continue
                row = self._row(loss_sum, step - logged_step, watch)
                loss_sum, logged_step = torch.zeros_like(loss_sum), step
                if last or (config.eval_every and step % config.eval_every == 0):
                    row["psnr_y"] = self.held_out.psnr(self.averaged, processes.device)
                    bar.set_description_str(f"held-out PSNR {row['psnr_y']:.2f} dB", refresh=False)
                bar.set_postfix_str(f"loss {row['loss']:.4f}", refresh=False)
                curve.append(row)
                if last or save or stop:
                    self._save()
                watch.resume()
        self.rows = curve.frame()

    def _row(self, loss_sum: Tensor, steps: int, watch: Watch) -> dict[str, float]:
        loss = (loss_sum / steps).item()
        seconds, cpu_seconds = watch.lap()
        self.seconds, self.cpu_seconds = self.seconds + seconds, self.cpu_seconds + cpu_seconds
        if not np.isfinite(loss):
            raise ValueError(self._divergence(f"the loss is {loss}"))
        return {
            "step": self.step,
            "loss": loss,
            "learning_rate": learning_rate(self.config, self.step - 1),
            "psnr_y": float("nan"),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "iterations_per_second": steps / max(seconds, 1e-9),
            "data_share": watch.data_share,
            "utilisation": gpu_utilisation(self.processes.device),
        }

    def _update(self, watch: Watch | None) -> Tensor:
        """One step of the optimiser; the loss, detached and still on the device."""
        config, processes = self.config, self.processes
        if watch:
            watch.mark("begin")
        places = self.pool.draw(self.step, config.batch_size, config.seed)
        lr, hr = self.pool.crops(np.array_split(places, processes.count)[processes.rank])
        if watch:
            watch.mark("data")
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            sr = self.network(lr)
        loss = nn.functional.l1_loss(sr.float(), hr)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad_norm)
        self.optimizer.param_groups[0]["lr"] = learning_rate(config, self.step)
        self.optimizer.step()
        with torch.no_grad():
            pairs = list(self.averaged.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(*pairs, 1 - ema_decay(config, self.step))
        if watch:
            watch.mark("end")
        return loss.detach()

    def _save(self) -> None:
        if not all(torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            raise ValueError(self._divergence("a weight is no longer finite"))
        if self.folder is None or not self.processes.is_first or self.step == self._saved_step:
            return
        tensors = pack_state(self.model, self.averaged, self.optimizer, self.processes.device)
        record = self._record()
        with self._naming_last_good():
            save_checkpoint(self.folder, self.step, tensors, record, keep=self.config.keep_checkpoints)
        self.saved = record

    def finish(self) -> None:
        """Do what follows the last checkpoint of a run; a resumed one does what a killed one left undone."""
        if self.step == self.config.num_iters and self.folder is not None and self.processes.is_first:
            with self._naming_last_good():
                remove_old_checkpoints(self.folder, self.step, keep=self.config.keep_checkpoints)
                save_weights(self.folder / WEIGHTS, self.averaged, self.saved)

    @property
    def _saved_step(self) -> int | None:
        return self.saved["step"] if self.saved else None

    @contextlib.contextmanager
    def _naming_last_good(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise type(error)(f"{error}; {self._last_good()}") from None

    def _record(self) -> dict:
        values = train_config_to_dict(self.config)
        return {
            "step": self.step,
            "model": values["model"],
            "train": values,
            "data": self.pool.fingerprint,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            **self._provenance(),
        }

    def _provenance(self) -> dict:
        return provenance(device=self.processes.device, dtype=self.config.dtype, seed=self.config.seed)

    def _divergence(self, what: str) -> str:
        return (
            f"{what} at step {self.step}: try a lower learning_rate or clip_grad_norm 1; {self._last_good()}"
        )

    def _last_good(self) -> str:
        return (
            "nothing was saved"
            if self._saved_step is None
            else f"the checkpoint of step {self._saved_step} is good"
        )

    def result(self) -> TrainResult:
        """What the run came to."""
        weights = self.folder / WEIGHTS if self.folder else None
        done = self.step == self.config.num_iters
        return TrainResult(
            self.averaged,
            self.rows,
            self.step,
            self.seconds,
            self.cpu_seconds,
            weights if done else None,
        )
