"""Training crops, made on the device from images that were decoded once; and the images held out.

Shapes: B crops of a batch, C channels (1 of grey images), c the side of an LR crop, s the scale, P the number
of pixels of all images together.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from taylorir.datasets import NamedImage, iterate_images, make_pair, sample_split
from taylorir.images import centre_crop, degrade, imresize, mod_crop, psnr, shaved_border, to_image, to_tensor

HELD_OUT_SIDE = 96  # LR pixels of the centre crop of each held-out image


class PatchPool:
    """All training images as two flat uint8 buffers on the device, LR beside HR, and the crops that they
    give.

    The LR images are made once, on the device, from the whole HR image and by the rule of the evaluation
    (MATLAB bicubic, rounded to 8 bits), so that a crop has no border that an evaluated image would not have.
    A degradation changes them; its noise is drawn once an image, from seeds below zero, which no evaluation
    uses.
    A batch is one gather per buffer: the flips are part of the index, there is no worker and no copy per
    image.

    Args:
        images: uint8 ``[H, W, C]``, all of the same C; those with a side below ``crop_size * upscale`` are
            left out and counted in ``num_left_out``.
        names: one name an image, for messages.
        upscale: scale s, 1 or more.
        crop_size: side c of the LR crop in pixels.
        degradation: of the LR images, by a name that :func:`taylorir.images.degrade` knows.
        device: where the buffers live.

    Raises:
        ValueError: there is no image, none is as large as the crop, or an unknown degradation.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        names: Sequence[str],
        *,
        upscale: int,
        crop_size: int,
        degradation: str = "none",
        device: str | torch.device = "cpu",
    ) -> None:
        side = crop_size * upscale
        kept = [mod_crop(image, upscale) for image in images if min(image.shape[:2]) >= side]
        if not images:
            raise ValueError("there is no training image: expected at least one")
        if not kept:
            largest = max(range(len(images)), key=lambda i: min(images[i].shape[:2]))
            height, width = images[largest].shape[:2]
            raise ValueError(
                f"every training image is smaller than the crop: crop_size {crop_size} at upscale {upscale} "
                f"needs {side}x{side} pixels, the largest image ({names[largest]}) has {width}x{height}"
            )
        self.upscale, self.crop_size, self.device = upscale, crop_size, torch.device(device)
        self.num_images, self.num_left_out = len(kept), len(images) - len(kept)
        self.fingerprint = fingerprint(kept)
        hr_rows, lr_rows = [], []
        for number, image in enumerate(kept, start=1):
            hr = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
            if degradation == "none":
                lr = imresize(hr.permute(2, 0, 1), 1 / upscale).permute(1, 2, 0)
            else:
                lr = torch.from_numpy(degrade(image, upscale, degradation, seed=-number)).to(self.device)
            hr_rows.append(hr.flatten(0, 1))
            lr_rows.append(lr.flatten(0, 1))
        self._hr, self._lr = torch.cat(hr_rows), torch.cat(lr_rows)  # [P, C], [P / s^2, C]
        self._sizes = np.array([(image.shape[0] // upscale, image.shape[1] // upscale) for image in kept])
        self._starts = np.concatenate([[0], np.cumsum(self._sizes.prod(axis=1))])[:-1]  # in LR pixels

    def draw(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """Where the crops of one step lie: a pure function of (seed, step), so a resumed run sees the same
        ones.

        Images are drawn with equal chance and with replacement, positions uniformly, one of the eight
        symmetries of the square each.

        Returns:
            int64 ``[B, 4]``: image, top, left (LR pixels), symmetry 0..7 as in ``dihedral`` of
            :mod:`taylorir.evaluation.super_resolution`.
        """
        random = np.random.default_rng((seed, step))
        image = random.integers(len(self._sizes), size=batch_size)
        room = self._sizes[image] - self.crop_size + 1
        corner = random.integers(room)
        symmetry = random.integers(8, size=batch_size)
        return np.column_stack([image, corner, symmetry])

    def crops(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The LR and HR crops at ``places`` (from :meth:`draw`).

        Returns:
            float32 ``[B, C, c, c]`` and ``[B, C, s c, s c]`` in 0..1.
        """
        image = places[:, 0]
        rows = np.column_stack([self._starts[image], self._sizes[image, 1], places[:, 1:]])
        table = torch.from_numpy(rows)
        if self.device.type == "cuda":
            table = table.pin_memory().to(self.device, non_blocking=True)
        return self._gather(self._lr, table, 1), self._gather(self._hr, table, self.upscale)

    def _gather(self, pixels: torch.Tensor, table: torch.Tensor, scale: int) -> torch.Tensor:
        start, width, top, left, symmetry = table[:, :, None, None].unbind(1)  # each [B, 1, 1]
        side = self.crop_size * scale
        along = torch.arange(side, device=self.device)
        row, column = along[:, None], along[None, :]
        row = torch.where(symmetry & 2 != 0, side - 1 - row, row)  # [B, side, 1]
        column = torch.where(symmetry & 1 != 0, side - 1 - column, column)  # [B, 1, side]
        transposed = symmetry & 4 != 0
        source_row = torch.where(transposed, column, row)
        source_column = torch.where(transposed, row, column)
        index = start * scale**2 + (top * scale + source_row) * (width * scale) + left * scale + source_column
        return pixels[index].permute(0, 3, 1, 2).float().div_(255.0).contiguous()


def fingerprint(images: Sequence[np.ndarray]) -> str:
    """SHA-256 over the shapes and pixels of the images in their order, first 16 hex digits."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


class HeldOut:
    """Centre crops of images that are not trained on, and the PSNR-Y of a network on them (dB, mean over
    images).

    Args:
        images: at least one.
        upscale: scale s. A crop has up to ``HELD_OUT_SIDE`` LR pixels a side.
        degradation: of the LR images, as in training, with noise of its own.
        grey: measure on grey images, for a network of one channel.

    Raises:
        ValueError: there is no image, or an unknown degradation.
    """

    def __init__(
        self, images: Sequence[NamedImage], upscale: int, *, degradation: str = "none", grey: bool = False
    ) -> None:
        if not images:
            raise ValueError("there is no held-out image: expected at least one")
        side = HELD_OUT_SIDE * upscale
        self._pairs = [
            make_pair(centre_crop(image.image, side), upscale, degradation=degradation, grey=grey)
            for image in images
        ]
        self._upscale = upscale

    def bicubic(self) -> float:
        """Mean PSNR-Y of bicubic upscaling, what a network must beat, in dB; where s is 1, of the input."""
        border = shaved_border(self._upscale)
        values = [psnr(imresize(lr, self._upscale), hr, crop_border=border) for lr, hr in self._pairs]
        return float(np.mean(values))

    @torch.no_grad()
    def psnr(self, model: nn.Module, device: str | torch.device = "cpu") -> float:
        """Mean PSNR-Y in dB; the border is shaved as in the evaluation."""
        border = shaved_border(self._upscale)
        values = [
            psnr(to_image(model(to_tensor(lr, device=device)).cpu()), hr, crop_border=border)
            for lr, hr in self._pairs
        ]
        return float(np.mean(values))


def load_training_images(
    names: Sequence[str], data_root: str | os.PathLike[str] | None = None
) -> list[NamedImage]:
    """The images of some sets; of "samples" only the training part.

    Raises:
        ValueError, FileNotFoundError: as :func:`taylorir.datasets.load_images`.
    """
    images: list[NamedImage] = []
    for name in names:
        images += sample_split()[0] if name == "samples" else iterate_images(name, data_root)
    return images
