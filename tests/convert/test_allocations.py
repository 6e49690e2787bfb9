"""A converted network forms nothing of N x N: counted on copies without contents, at windows of 48 x 48."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from taylorir.convert import taylorize
from taylorir.cost import memory_of, windows_as_wholes
from tests.convert.families import Family

WINDOW, SIDE = 48, 96
MIB = 2**20


SETTINGS = {"img_size": SIDE, "depths": [2], "window_size": WINDOW, "mlp_ratio": 2, "upscale": 2}


def swinir(width, heads):
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(embed_dim=width, num_heads=[heads], upsampler="pixelshuffledirect", **SETTINGS)


def hat(width, heads):
    from spandrel.architectures.HAT import HAT

    return HAT(embed_dim=width, num_heads=[heads], squeeze_factor=4, **SETTINGS)


def dat(width, heads):
    from spandrel.architectures.DAT import DAT

    return DAT(
        img_size=SIDE, embed_dim=width, num_heads=[heads], depth=[4], split_size=[WINDOW, WINDOW], upscale=2,
        expansion_factor=2, upsampler="pixelshuffledirect",
    )  # fmt: skip


NETWORKS = {"SwinIR": swinir, "HAT": hat, "DAT": dat}


@pytest.mark.parametrize(
    "name, batch, softmax, most",
    [
        pytest.param("SwinIR", 1, 1900, 80, id="SwinIR"),
        pytest.param("HAT", 1, 4300, 300, id="HAT"),
        pytest.param("DAT", 2, 3400, 430, id="DAT"),  # its norms of batches take no single image
    ],
)
def test_peak_of_a_training_step(name, batch, softmax, most):
    model = Family("spandrel", lambda: NETWORKS[name](60, 6), {}).network().float()
    assert memory_of(model, SIDE, batch=batch).total > softmax * MIB
    assert memory_of(taylorize(model), SIDE, batch=batch).total < most * MIB


class Largest(TorchDispatchMode):
    """The most elements of a tensor that came out of an operation."""

    numel = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return result


@pytest.mark.parametrize("name", NETWORKS)
def test_no_tensor_has_as_many_elements_as_a_window_has_pairs(name):
    """Neither in a pass nor in its backward."""
    model = Family("spandrel", lambda: NETWORKS[name](16, 4), {}).network().float()
    model = taylorize(model, centre_keys=True)
    assert max(x.numel() for x in [*model.parameters(), *model.buffers()]) < WINDOW**4
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fake):
        model = copy.deepcopy(model)
    with fake, windows_as_wholes(), Largest() as largest:
        model(torch.empty(1, 3, SIDE, SIDE)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert 0 < largest.numel < WINDOW**4
