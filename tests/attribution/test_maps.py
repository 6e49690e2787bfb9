"""Attribution maps on networks whose answer is known: linear ones, convolutions, one that sees nothing."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import nn

from taylorir.attribution import maps as attribution
from taylorir.attribution.maps import Patch, local_attribution
from taylorir.networks.variants import build_model

SIGMAS = torch.tensor([1.2, 0.0], dtype=torch.float64)


def photo(height: int = 17, width: int = 20, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Smooth and textured at once, ``[1, 3, H, W]`` in 0..1."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([0.5 + 0.2 * torch.sin(0.6 * y + c) * torch.cos(0.8 * x) for c in range(3)])
    noise = 0.1 * torch.rand(3, height, width, generator=generator, dtype=torch.float64)
    return (waves + noise)[None].to(dtype)


def convolution(kernel: int, upscale: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 3 * upscale**2, kernel, padding=kernel // 2)
    return nn.Sequential(conv, nn.PixelShuffle(upscale)).double()


def curved(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 12, 5, padding=2), nn.GELU(), nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)
    return nn.Sequential(*layers).double()


# --- the path -------------------------------------------------------------------------------------


def test_kernels():
    kernels = attribution.gaussian_kernels(SIGMAS, 9)
    y, x = np.mgrid[-4:5, -4:5]
    expected = np.exp(-(x**2 + y**2) / (2 * (1.2 + 1e-5) ** 2))
    np.testing.assert_allclose(kernels[0], expected / expected.sum(), atol=1e-15)
    identity = np.zeros((9, 9))
    identity[4, 4] = 1
    np.testing.assert_array_equal(kernels[1], identity)


def test_blur_mirrors_as_opencv_does():
    image = photo()
    kernels = attribution.gaussian_kernels(SIGMAS, 9)
    found = attribution.blur(image, kernels)
    for m in range(2):
        for channel in range(3):
            expected = correlate(image[0, channel].numpy(), kernels[m].numpy(), mode="mirror")
            np.testing.assert_allclose(found[m, channel], expected, atol=1e-14)


@pytest.mark.parametrize("rule", attribution.RULES)
def test_steps_lead_from_blurred_to_sharp(rule):
    image = photo()
    points, steps = attribution.blurring_path(image, fold=7, rule=rule)
    blurred = attribution.blur(image, attribution.gaussian_kernels(SIGMAS[:1]))
    torch.testing.assert_close(blurred + attribution.blur(image, steps).sum(0), image, rtol=0, atol=1e-14)
    sharpest = torch.zeros(9, 9, dtype=torch.float64)
    sharpest[4, 4] = 1
    assert torch.equal(points[-1], sharpest) == (rule == "right")


# --- the objective --------------------------------------------------------------------------------


def test_gradient_detector_by_hand():
    sr = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    sr[0, 0, 1, 1] = 3.0
    sr[0, 0, 2, 0] = 4.0  # at (1, 0): dx = 3, dy = 4, so 5; at (1, 1): dx = dy = -3, so 3 sqrt(2)
    sr[1] = 7.0
    found = attribution.gradient_detector(Patch(1, 0, 1))(sr)
    assert found.tolist() == [5.0, 0.0]
    found = attribution.gradient_detector(Patch(1, 0, 2))(sr)  # (2, 0): dx = dy = -4; (2, 1): nothing
    assert found.tolist() == pytest.approx([5 + 3 * math.sqrt(2) + 4 * math.sqrt(2), 0.0])


def test_the_kink_of_the_square_root_has_gradient_zero():
    sr = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    sr[0, 0, 3, 3] = 0.9
    sr.requires_grad_()
    attribution.gradient_detector(Patch(0, 0, 3))(sr).sum().backward()
    expected = torch.zeros_like(sr)
    # (3, 3) is read by no difference of the patch: all differences are zero, and so is the gradient
    assert torch.equal(sr.grad, expected)
    sr = sr.detach().clone()
    sr[0, 0, 2, 3] = 0.9  # now dx = 0.4 at (2, 2), and d sqrt(dx^2) = sign(dx)
    sr.requires_grad_()
    attribution.gradient_detector(Patch(0, 0, 3))(sr).sum().backward()
    expected[0, 0, 2, 3], expected[0, 0, 2, 2] = 1.0, -1.0
    torch.testing.assert_close(sr.grad, expected)


@pytest.mark.parametrize("patch", [Patch(-1, 0, 4), Patch(0, 5, 4), Patch(4, 0, 4), Patch(0, 0, 0)])
def test_patches_outside_are_refused(patch):
    with pytest.raises(ValueError, match="patch: got rows"):
        attribution.gradient_detector(patch)(torch.zeros(1, 3, 8, 9))


def test_centre_patch():
    assert attribution.centre_patch(64, 48, 4) == Patch(120, 88, 16)


# --- integrated gradients -------------------------------------------------------------------------


def test_linear_case_is_exact():
    """The gradient of a linear network and objective is constant: one step suffices, each share is known."""
    image, model = photo(), convolution(3)
    found = local_attribution(model, image, lambda sr: sr.flatten(1).sum(1), fold=1)
    x = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    blurred = attribution.blur(image, attribution.gaussian_kernels(SIGMAS[:1]))
    torch.testing.assert_close(found.attributions, (gradient * (image - blurred))[0], rtol=0, atol=1e-13)
    assert found.completeness_error < 1e-12
    assert found.end - found.start == pytest.approx(
        (model(image).sum() - model(blurred).sum()).item(), rel=1e-12
    )


@pytest.mark.parametrize("rule", ["right", "midpoint"])
def test_completeness_falls_with_fold(rule):
    model, image, patch = curved(), photo(), Patch(10, 12, 16)
    coarse, fine = (
        local_attribution(model, image, patch, fold=n, rule=rule, batch_size=25) for n in (50, 200)
    )
    assert fine.completeness_error < 0.01
    assert fine.completeness_error < coarse.completeness_error / 3
    assert coarse.completeness_error > 1e-9  # there is something to fall


def test_completeness_of_a_transformer():
    torch.manual_seed(0)
    model = build_model("taylorswinir_tiny_x2", depths=(2,), window_size=8).double()
    image, patch = photo(16, 16), Patch(8, 8, 16)
    errors = [
        local_attribution(model, image, patch, fold=n, batch_size=8).completeness_error for n in (10, 40)
    ]
    assert errors[1] < errors[0] / 3 and errors[1] < 0.05


def test_batch_size_changes_nothing():
    model, image = curved(), photo()
    one, many = (local_attribution(model, image, Patch(4, 4, 8), fold=7, batch_size=n) for n in (1, 4))
    torch.testing.assert_close(one.attributions, many.attributions, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_zero_outside_the_receptive_field(kernel):
    found = local_attribution(convolution(kernel), photo(), Patch(16, 12, 4), fold=5)
    # the patch reads SR rows 16..20 and columns 12..16: LR rows 8..10, columns 6..8, and half a kernel more
    reach = kernel // 2
    inside = np.zeros((17, 20), dtype=bool)
    inside[8 - reach : 11 + reach, 6 - reach : 9 + reach] = True
    assert (found.map[~inside] == 0).all()
    # no forward difference reads the far corner, so it is not read; all the rest is
    assert (found.map[inside] > 0).sum() == inside.sum() - 1
    assert found.map.max() == 1


def test_model_is_left_as_found():
    model = curved().train()
    model[0].bias.requires_grad_(False)
    model[1].eval()
    local_attribution(model, photo(), Patch(4, 4, 8), fold=2)
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())


def test_nothing_is_silenced():
    class Root(nn.Module):
        def forward(self, x):
            return (x - x).sqrt() + x  # 0 in value, infinite times zero in gradient

    with pytest.raises(FloatingPointError, match="point 0 to 1 of the path is not finite"):
        local_attribution(Root(), photo(), Patch(4, 4, 8), fold=2)


def test_no_dependence_has_no_map():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.linspace(0, 1, 12, dtype=x.dtype).expand(len(x), 3, 12, 12) + 0 * x.sum()

    with pytest.raises(ValueError, match="depends on no pixel"):
        _ = local_attribution(Constant(), photo(), Patch(2, 2, 4), fold=2).map


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": 0}, "fold: got 0"),
        ({"rule": "up"}, "rule: got 'up'"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"kernel_size": 4}, "kernel_size: got 4"),
        ({"sigma": -1.0}, "sigmas: got -1"),
        ({"image": torch.zeros(3, 8, 8)}, r"image: got \[3, 8, 8\]"),
        ({"image": torch.zeros(1, 3, 4, 8)}, "sides of at least 5"),
    ],
)
def test_bad_arguments(changes, message):
    image = changes.pop("image", photo())
    with pytest.raises(ValueError, match=message):
        local_attribution(curved(), image, Patch(4, 4, 8), **changes)


# --- indices --------------------------------------------------------------------------------------


def test_gini_by_hand():
    assert attribution.gini([1, 3]) == pytest.approx(0.25)  # ((2 - 3) 1 + (4 - 3) 3) / (2 x 4)
    assert attribution.gini([[3, 1], [0, 0]]) == pytest.approx((-3 * 0 - 1 * 0 + 1 * 1 + 3 * 3) / (4 * 4))
    assert attribution.gini([5, 5, 5]) == 0
    for bad in ([], [0, 0], [1, -1], [1, math.nan]):
        with pytest.raises(ValueError, match="gini: expected finite values"):
            attribution.gini(bad)


def test_diffusion_index_of_extremes():
    one = np.zeros((64, 64))
    one[3, 5] = 0.7
    assert attribution.diffusion_index(one) == pytest.approx(100 / 64**2)
    assert attribution.diffusion_index(np.full((64, 64), 0.2)) == pytest.approx(100)


# --- effective receptive field --------------------------------------------------------------------


def test_effective_receptive_field_of_a_convolution():
    images = photo().expand(2, -1, -1, -1)[..., :16, :16]
    field = attribution.effective_receptive_field(convolution(3), images)
    assert field.sum() == pytest.approx(1)
    assert (field[6:10, 6:10] > 0).sum() >= 9
    field[6:10, 6:10] = 0
    assert (field == 0).all()


def test_field_width_by_hand():
    field = np.zeros((9, 9))
    field[4, 4] = 0.5
    field[3, 3] = field[5, 5] = 0.2
    field[0, 8] = 0.1
    assert [attribution.field_width(field, share) for share in (0.5, 0.9, 0.95, 1.0)] == [1, 3, 9, 9]
    with pytest.raises(ValueError, match="share: got 0"):
        attribution.field_width(field, 0)


def test_map_by_hand():
    values = torch.tensor([[[1.0, 2.0]], [[-1.0, 1.0]], [[0.5, 1.0]]], dtype=torch.float64)
    found = attribution.Attribution(values, start=1.0, end=6.0)  # channels may cancel: 0.5 and 4
    np.testing.assert_allclose(found.map, [[0.125, 1.0]])
    assert found.completeness_error == pytest.approx(abs(4.5 - 5) / 5)
