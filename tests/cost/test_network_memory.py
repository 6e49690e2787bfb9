"""Memory of any network: by hand for a small one, and as the tables account for the networks of the paper."""

import pytest
from torch import nn

from taylorir.cost.memory import MemoryPoint, account, build
from taylorir.cost.network_memory import memory_of


def test_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.PixelShuffle(2))
    infer = memory_of(model, 8, "infer", batch=2)
    lr, features, weights = 4 * 2 * 3 * 8 * 8, 4 * 2 * 12 * 8 * 8, 4 * 3 * 12
    expected = {"parameters": weights, "data": lr, "transient": 2 * features}  # features and the SR image
    assert {name: size for name, size in infer.parts.items() if size} == expected
    assert infer.total == weights + lr + 2 * features

    train = memory_of(model, 8, "train", batch=2)
    assert train.parts["data"] == lr + features  # an HR image has as many numbers as the features
    assert train.parts["optimiser"] == 2 * weights
    assert model.training and all(p.grad is None and p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize(
    ("method", "mode"),
    [("taylor_efficient", "train"), ("softmax_fused", "infer")],
)
def test_equals_the_accounting_of_the_tables(method, mode):
    point = MemoryPoint("S", method, window_size=8, lr_size=16, mode=mode)
    assert memory_of(build(point), 16, mode) == account(point)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="train, infer"):
        memory_of(nn.Upsample(scale_factor=2), 8, "test")


def test_weights_in_half_precision_count_half():
    model = nn.Conv2d(3, 3, 3, padding=1)
    full = memory_of(model, 8, "infer").total
    assert memory_of(model.half(), 8, "infer").total * 2 == full
