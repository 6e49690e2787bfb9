"""Derivatives of whole networks, second ones and those of torch.func: as of plain operations."""

import pytest
import torch
from torch import func
from torch.autograd import functional

from taylorir.attention.kernels import cpp_operator
from taylorir.networks import window_attention
from taylorir.networks.variants import build_model
from taylorir.networks.windows import merge, partition
from tests.random_networks import stirred

X = torch.rand(1, 3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(X.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(**overrides):
    settings = {"embed_dim": 8, "num_heads": 2, "depths": (2,), "window_size": 4, "drop_path_rate": 0.0}
    return stirred(build_model("swinir_tiny_x2", **settings, **overrides).double())


def energy(model):
    return lambda x: model(x).square().mean()


@pytest.fixture
def plain(monkeypatch):
    """Windows by roll, reshape and transpose: operations whose derivatives are PyTorch's."""

    def to_windows(x, window, shift):
        return partition(x.roll((-shift, -shift), (1, 2)), window, window)

    def from_windows(x, height, width, window, shift):
        return merge(x, height, width, window, window).roll((shift, shift), (1, 2))

    def use():
        monkeypatch.setattr(window_attention, "to_windows", to_windows)
        monkeypatch.setattr(window_attention, "from_windows", from_windows)

    return use


DERIVATIVES = {
    "gradient": lambda f: func.grad(f)(X),
    "jvp": lambda f: func.jvp(f, (X,), (V,))[1],
    "hvp": lambda f: functional.hvp(f, X, V)[1],
    "hvp, forward over reverse": lambda f: func.jvp(func.grad(f), (X,), (V,))[1],
    "hessian": lambda f: functional.hessian(f, X),
    "hessian of torch.func": lambda f: func.hessian(f)(X),
}


# torch.func.jvp itself calls what PyTorch has deprecated
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("form", ["softmax", "auto", "efficient", "published"])
def test_derivatives_of_every_order_and_mode(form, plain):
    """Of shifted windows, with their regions; TaylorShift is compared with its direct form under masks."""
    settings = {} if form == "softmax" else {"attention": "taylor", "attention_form": form}
    f = energy(network(**settings))
    found = {name: derivative(f) for name, derivative in DERIVATIVES.items()}
    plain()
    f = energy(network(**settings | ({} if form == "softmax" else {"attention_form": "direct"})))
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    rows = [torch.autograd.grad(part, x, retain_graph=True)[0] for part in gradient.flatten()]
    hessian = torch.stack(rows).view(*X.shape, *X.shape)
    product = (hessian * V).sum((-4, -3, -2, -1))
    assert product.abs().max() > 1e-3
    expected = {
        "gradient": gradient.detach(),
        "jvp": (gradient.detach() * V).sum(),
        "hvp": product,
        "hvp, forward over reverse": product,
        "hessian": hessian,
        "hessian of torch.func": hessian,
    }
    for name, derivative in found.items():
        worst = (derivative - expected[name]).abs().max()
        assert worst < 1e-9 * expected[name].abs().max(), name


@pytest.mark.parametrize("attention", ["softmax", "taylor"])
def test_vmap_over_images(attention):
    model, images = network(attention=attention), torch.rand(3, 3, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        found = func.vmap(lambda image: model(image[None])[0])(images)
        torch.testing.assert_close(found, model(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", ["bias", "none"])
def test_fused_softmax_has_right_second_derivatives_or_none(position, monkeypatch):
    """PyTorch's kernel has no second backward; where it does not run there are some."""
    model = network(position=position)
    naive = network(softmax_backend="naive", position=position)
    expected = functional.hvp(energy(naive), X, V)[1]
    if cpp_operator.load():
        found = functional.hvp(energy(model), X, V)[1]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    monkeypatch.setenv("TAYLORIR_BACKEND", "torch")
    if position == "none":
        with pytest.raises(RuntimeError, match="flash_attention_for_cpu_backward is not implemented"):
            functional.hvp(energy(model), X, V)
        return
    torch.testing.assert_close(functional.hvp(energy(model), X, V)[1], expected, rtol=1e-9, atol=1e-12)
