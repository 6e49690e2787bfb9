"""Local attribution maps (Gu and Dong, CVPR 2021): on which LR pixels does a patch of the SR image depend?

The image is followed along a path from blurred to sharp; the gradient of how much detail the patch shows,
integrated along the path (integrated gradients), says what each LR pixel contributed. The Gini index of that
map says how unevenly, the diffusion index how evenly the network draws on its surroundings.

Works for any network from ``[B, 3, H, W]`` to ``[B, 3, sH, sW]``. Rows over many patches and networks:
``python -m taylorir.attribution.rows --help``.

Shape legend
    H, W  height and width of the LR image; h, w of the SR image
    M     points of the path (``fold``)
    B     of them at once (``batch_size``)
    K     side of the blur kernel (``kernel_size``)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

SIGMA = 1.2
FOLD = 50
KERNEL_SIZE = 9
RULES = ("right", "midpoint", "left")

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Patch:
    """A square of the SR image: rows from ``top``, columns from ``left``, ``size`` SR pixels a side."""

    top: int
    left: int
    size: int = 16


@dataclass(frozen=True, eq=False)
class Attribution:
    """What :func:`local_attribution` finds.

    Attributes:
        attributions: what each LR value contributed, ``[3, H, W]``, float64.
        start, end: the objective at the blurred and at the sharp end of the path.
    """

    attributions: Tensor
    start: float
    end: float

    @property
    def completeness_error(self) -> float:
        """How far the attributions are from summing to ``end - start``, relative to that difference."""
        difference = self.end - self.start
        return abs(float(self.attributions.sum()) - difference) / abs(difference)

    @property
    def map(self) -> np.ndarray:
        """The local attribution map ``[H, W]``, 0..1: channels summed, absolute, over its largest value.

        Raises:
            ValueError: every attribution is zero.
        """
        values = self.attributions.sum(0).abs()
        if not values.any():
            raise ValueError("map: every attribution is zero; the patch depends on no pixel of the image")
        return (values / values.max()).cpu().numpy()

    @property
    def diffusion_index(self) -> float:
        """:func:`diffusion_index` of the map, 0..100."""
        return diffusion_index(self.map)


# ------------------------------------------------------------------------------------------------ the path


def gaussian_kernels(sigmas: Tensor, kernel_size: int = KERNEL_SIZE) -> Tensor:
    """Isotropic Gaussian kernels ``[M, K, K]`` that sum to 1, float64; a sigma of 0 is the identity.

    Raises:
        ValueError: an even or non-positive kernel size, or a negative sigma.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: got {kernel_size}, expected a positive odd number")
    if (sigmas < 0).any():
        raise ValueError(f"sigmas: got {float(sigmas.min())}, expected no negative value")
    axis = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    square = axis[:, None] ** 2 + axis**2
    kernels = torch.exp(-square / (2 * (sigmas.double() + 1e-5)[:, None, None] ** 2))
    return kernels / kernels.sum((-2, -1), keepdim=True)


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Filter one image with each of M kernels, its border mirrored without repeating the edge (OpenCV's
    default).

    Args:
        image: ``[1, 3, H, W]``, both sides larger than half a kernel.
        kernels: ``[M, K, K]``.

    Returns:
        ``[M, 3, H, W]`` of the dtype and on the device of ``image``.
    """
    pad = kernels.shape[-1] // 2
    planes = functional.pad(image, (pad,) * 4, mode="reflect").transpose(0, 1)  # [3, 1, H + 2 pad, W + 2 pad]
    return functional.conv2d(planes, kernels[:, None].to(image)).transpose(0, 1)


def blurring_path(
    image: Tensor,
    *,
    fold: int = FOLD,
    sigma: float = SIGMA,
    kernel_size: int = KERNEL_SIZE,
    rule: str = "right",
) -> tuple[Tensor, Tensor]:
    """Kernels of the points at which the gradient is taken, and of the steps between them, ``[M, K, K]``
    each.

    The path goes from ``sigma`` to 0 in ``fold`` steps of equal width. Filtering the image with the i-th
    step's kernel gives what is added to it there; all steps add up to the sharp image less the blurred one.

    Args:
        image: ``[1, 3, H, W]``; only checked, so that an unfit one is refused before any work.
        rule: where in a step the gradient is taken. "right" is the sharper end, as in the authors' code;
            "midpoint" errs with the square of the step instead of the step.

    Raises:
        ValueError: a fold below 1, an unknown rule, or an image that is no ``[1, 3, H, W]`` or too small.
    """
    if fold < 1:
        raise ValueError(f"fold: got {fold}, expected at least 1")
    if rule not in RULES:
        raise ValueError(f"rule: got {rule!r}, expected one of {', '.join(RULES)}")
    if image.ndim != 4 or image.shape[:2] != (1, 3) or min(image.shape[2:]) <= kernel_size // 2:
        least = kernel_size // 2 + 1
        raise ValueError(
            f"image: got {list(image.shape)}, expected [1, 3, H, W] with sides of at least {least}"
        )
    sigmas = torch.linspace(sigma, 0, fold + 1, dtype=torch.float64)
    ends = gaussian_kernels(sigmas, kernel_size)
    at = {"left": sigmas[:-1], "midpoint": (sigmas[:-1] + sigmas[1:]) / 2, "right": sigmas[1:]}[rule]
    return gaussian_kernels(at, kernel_size), ends[1:] - ends[:-1]


# ------------------------------------------------------------------------------------------- the objective


def gradient_detector(patch: Patch) -> Objective:
    """The detail that a patch shows: the sum over it, and over channels, of ``sqrt(dy^2 + dx^2)``.

    dy and dx are forward differences of the SR image. Where both are zero the square root has a kink and no
    derivative; automatic differentiation would give NaN. There the subgradient 0 is taken, the one of least
    norm.

    Returns:
        A function from ``[B, 3, h, w]`` to ``[B]``; it raises ValueError for a patch outside.
    """

    def detail(sr: Tensor) -> Tensor:
        height, width = sr.shape[-2:]
        bottom, right = patch.top + patch.size, patch.left + patch.size
        if min(patch.top, patch.left) < 0 or patch.size < 1 or bottom >= height or right >= width:
            raise ValueError(
                f"patch: got rows {patch.top}..{bottom} and columns {patch.left}..{right}, expected a square "
                f"inside {height - 1}x{width - 1} SR pixels (the last have no forward difference)"
            )
        crop = sr[..., patch.top : bottom + 1, patch.left : right + 1]
        dy = crop[..., 1:, :-1] - crop[..., :-1, :-1]
        dx = crop[..., :-1, 1:] - crop[..., :-1, :-1]
        square = dy**2 + dx**2
        flat = square == 0
        return torch.where(flat, 0, torch.where(flat, 1, square).sqrt()).flatten(1).sum(1)

    return detail


def centre_patch(lr_height: int, lr_width: int, upscale: int, size: int = 16) -> Patch:
    """The patch in the middle of the SR image."""
    return Patch((lr_height * upscale - size) // 2, (lr_width * upscale - size) // 2, size)


# ------------------------------------------------------------------------------------ integrated gradients


def local_attribution(
    model: nn.Module,
    image: Tensor,
    objective: Patch | Objective,
    *,
    fold: int = FOLD,
    sigma: float = SIGMA,
    kernel_size: int = KERNEL_SIZE,
    rule: str = "right",
    batch_size: int = 2,
    progress: bool = False,
) -> Attribution:
    """Integrate the gradient of an objective along the blurring path of an LR image.

    Memory does not grow with ``fold``: ``batch_size`` points are run at a time, and their sum is kept. The
    network is run in evaluation mode, without gradients of its parameters, and left as it was found.

    Args:
        model: from ``[B, 3, H, W]`` to ``[B, 3, sH, sW]``, differentiable.
        image: ``[1, 3, H, W]``, 0..1, on the device of the model.
        objective: a patch, for :func:`gradient_detector`; or a function from ``[B, 3, h, w]`` to ``[B]``.
        fold, sigma, kernel_size, rule: see :func:`blurring_path`.
        batch_size: points of the path that are run at once; more is faster until the caches are full.
        progress: show a progress bar.

    Raises:
        ValueError: an image, patch, fold, rule or batch size that does not fit.
        FloatingPointError: a gradient that is not finite; none is silenced.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    measure = gradient_detector(objective) if isinstance(objective, Patch) else objective
    points, steps = blurring_path(image, fold=fold, sigma=sigma, kernel_size=kernel_size, rule=rule)
    total = torch.zeros(image.shape[1:], dtype=torch.float64, device=image.device)
    with _frozen(model):
        with torch.no_grad():
            ends = blur(image, gaussian_kernels(torch.tensor([sigma, 0], dtype=torch.float64), kernel_size))
            start, end = (float(measure(model(x[None]))) for x in ends)
        bar = tqdm(total=fold, desc="attribution", unit="point", disable=not progress)
        for first in range(0, fold, batch_size):
            part = slice(first, first + batch_size)
            x = blur(image, points[part]).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(measure(model(x)).sum(), x)
            if not gradient.isfinite().all():
                raise FloatingPointError(
                    f"the gradient at point {first} to {first + len(x) - 1} of the path is not finite"
                )
            total += (gradient.double() * blur(image.double(), steps[part])).sum(0)
            bar.update(len(x))
        bar.close()
    return Attribution(total, start, end)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradients of parameters: half of the backward pass is saved."""
    training = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, was in training.items():
            module.training = was


# ------------------------------------------------------------------------------------------------- indices


def gini(values: np.ndarray | Tensor) -> float:
    """Gini index of non-negative values, ``sum_i (2 i - n - 1) a_i / (n sum a)`` over the sorted
    ``a_1..a_n``.

    0 where all are equal, ``(n - 1) / n`` where all but one are zero. (The authors' code adds 1e-7 to each
    value.)

    Raises:
        ValueError: no values, a negative one, one that is not finite, or only zeros, which have no
            distribution.
    """
    sorted_values = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if (
        not len(sorted_values)
        or not np.isfinite(sorted_values).all()
        or sorted_values[0] < 0
        or not sorted_values[-1]
    ):
        raise ValueError("gini: expected finite values that are not negative and not all zero")
    n = len(sorted_values)
    rank = np.arange(1, n + 1)
    return float(((2 * rank - n - 1) * sorted_values).sum() / (n * sorted_values.sum()))


def diffusion_index(values: np.ndarray | Tensor) -> float:
    """``(1 - Gini) * 100``: 100 where every pixel counts alike, ``100 / n`` where one of n does.

    Raises:
        ValueError: as :func:`gini`.
    """
    return (1 - gini(values)) * 100


# -------------------------------------------------------------------------------- effective receptive field


def effective_receptive_field(model: nn.Module, images: Tensor, *, size: int = 2) -> np.ndarray:
    """Mean absolute gradient of the middle of the SR image with respect to each LR pixel (Luo et al., 2016).

    Args:
        model: from ``[B, 3, H, W]`` to ``[B, 3, sH, sW]``.
        images: ``[M, 3, H, W]``, run one at a time.
        size: side of the square in the middle of the SR image, whose values are summed.

    Returns:
        ``[H, W]``, sums to 1.

    Raises:
        ValueError: the middle depends on no pixel.
        FloatingPointError: a gradient that is not finite.
    """
    field = torch.zeros(images.shape[2:], dtype=torch.float64, device=images.device)
    with _frozen(model):
        for image in images.split(1):
            x = image.detach().clone().requires_grad_()
            sr = model(x)
            top, left = ((side - size) // 2 for side in sr.shape[-2:])
            (gradient,) = torch.autograd.grad(sr[..., top : top + size, left : left + size].sum(), x)
            if not gradient.isfinite().all():
                raise FloatingPointError("the gradient of the middle of the image is not finite")
            field += gradient[0].double().abs().sum(0)
    if not field.any():
        raise ValueError("effective_receptive_field: the middle of the image depends on no pixel")
    return (field / field.sum()).cpu().numpy()


def field_width(field: np.ndarray, share: float = 0.95) -> int:
    """Side of the smallest square around the middle that holds ``share`` of the field, in LR pixels.

    Raises:
        ValueError: a share outside 0..1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share}, expected a number above 0 and at most 1")
    rows, columns = np.indices(field.shape)
    away = [np.abs(axis - (side - 1) / 2) for axis, side in zip((rows, columns), field.shape, strict=True)]
    distance = np.maximum(*away)
    held = [field[distance <= reach].sum() for reach in np.unique(distance)]
    enough = np.searchsorted(held, share * field.sum() * (1 - 1e-12))
    return int(2 * np.unique(distance)[min(enough, len(held) - 1)]) + 1
