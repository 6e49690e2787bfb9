"""Traced networks give what the network gives: compiled as one graph, and exported by who knows no better."""

import os

import pytest
import torch

from taylorir.networks.variants import build_model
from tests.random_networks import stirred

VARIANTS = {
    "softmax": {"window_size": 4},
    "softmax fused": {"window_size": 4, "softmax_backend": "fused", "position": "none"},
    "taylor direct": {"attention": "taylor", "window_size": 4, "position": "lepe"},
    "taylor efficient": {"attention": "taylor", "window_size": 6, "scale_output": True},
}


def network(name):
    settings = {"embed_dim": 8, "num_heads": 2, "depths": (2,), "drop_path_rate": 0.0}
    return stirred(build_model("swinir_tiny_x2", **settings, **VARIANTS[name]))


def image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def assert_equal(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_in_one_graph_with_gradients(name):
    model, x = network(name), image(2, 3, 5, 9)
    results = []
    for run in (model, torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")):
        model.zero_grad()
        y = run(x)
        y.square().mean().backward()
        results.append([y.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for expected, found in zip(*results, strict=True):
        assert_equal(found, expected)


def test_compiled_for_any_size():
    model = network("taylor efficient").eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for shape in ((2, 3, 5, 9), (3, 3, 20, 33), (1, 3, 1, 1)):
            assert_equal(compiled(image(*shape)), model(image(*shape)))


@pytest.mark.skipif("TAYLORIR_ALL_SIZES" not in os.environ, reason="takes minutes: TAYLORIR_ALL_SIZES=1")
@pytest.mark.filterwarnings("default")  # inductor's own
@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_by_inductor_from_one_pixel_to_a_photograph(name):
    model = network(name).eval()
    for shape in ((1, 3, 1, 1), (3, 3, 7, 5), (1, 3, 64, 48), (3, 3, 200, 333)):
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        with torch.no_grad():
            assert_equal(compiled(image(*shape)), model(image(*shape)))


@pytest.mark.parametrize("name", ["softmax", "taylor direct", "taylor efficient"])
def test_exported_as_it_is(name):
    """Not by the export of this package: for one size, with the operators of this package in the graph."""
    model, x = network(name).eval(), image(3, 3, 5, 9)
    with torch.no_grad():
        assert_equal(torch.export.export(model, (x,)).module()(x), model(x))
