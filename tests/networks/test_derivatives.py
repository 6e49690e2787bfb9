"""Derivatives of whole networks, second ones and those of torch.func: as of plain operations."""

import pytest
import torch
from torch import func
from torch.autograd import functional

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
def test_derivatives_of_softmax(plain):
    f = energy(network(shift=True))
    found = {name: derivative(f) for name, derivative in DERIVATIVES.items()}
    plain()
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
