"""Derivatives beyond a first gradient: the fast forms against the definition, which PyTorch derives."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, hvp

from taylorir.attention import taylor_attention, taylor_direct, taylor_efficient

# by PyTorch itself, when forward mode asks it for decompositions
pytestmark = [
    pytest.mark.usefixtures("each_backend"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning"),
]

BATCH, HEADS, TOKENS, WIDTH = 2, 2, 5, 3
LABELS = torch.tensor([[0, 1, 1, 0, 2], [3, 3, 3, 3, 3]])


def small_direct(q, k, v, **options):
    return taylor_attention(q, k, v, crossover=10**9, **options)


def blocked_direct(q, k, v, *, regions=None, **options):
    regions = torch.zeros(TOKENS, dtype=torch.long) if regions is None else regions
    return taylor_attention(q, k, v, crossover=10**9, regions=regions, **options)


@pytest.fixture(params=[taylor_efficient, small_direct, blocked_direct], ids=lambda form: form.__name__)
def form(request):
    return request.param


@pytest.fixture(params=[None, LABELS], ids=["whole", "regions"])
def regions(request):
    return request.param


def inputs():
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, HEADS, TOKENS, WIDTH)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return q, k, v, torch.tensor([0.7, 1.6], dtype=torch.float64)


def like(x, seed):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def loss_of(form, regions):
    """A loss of q, k, v and the temperature that is no polynomial of low degree."""
    return lambda q, k, v, tau: (
        form(q, k, v, temperature=tau, regions=regions, scale_output=True).pow(3).sum().sin()
    )


def definition(q, k, v, *, temperature, regions, scale_output):
    mask = None if regions is None else (regions[:, None, :, None] == regions[:, None, None, :])
    return taylor_direct(q, k, v, temperature=temperature, mask=mask, scale_output=scale_output)


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("vectorize", [False, True], ids=["one by one", "vectorised"])
def test_hessian(form, regions, vectorize):
    actual = hessian(loss_of(form, regions), inputs(), vectorize=vectorize)
    expected = hessian(loss_of(definition, regions), inputs())
    assert_close(actual, expected)
    assert min(block.abs().max() for row in expected for block in row) > 1e-3  # nothing is zero by itself


def test_hessian_vector_product(form, regions):
    vectors = tuple(like(x, seed) for seed, x in enumerate(inputs()))
    actual = hvp(loss_of(form, regions), inputs(), vectors)
    assert_close(actual, hvp(loss_of(definition, regions), inputs(), vectors))


def test_hessian_where_keys_are_made_of_queries(form, regions):
    q, *_, tau = inputs()

    def product(loss):
        return hvp(lambda x: loss(x, 2 * x.sin(), x.flip(2), tau), q, like(q, 1))[1]

    assert_close(product(loss_of(form, regions)), product(loss_of(definition, regions)))


def test_gradient_penalty(form, regions):
    gradients = []
    for attention in (form, definition):
        leaves = [x.requires_grad_() for x in inputs()]
        (slope,) = torch.autograd.grad(loss_of(attention, regions)(*leaves), leaves[0], create_graph=True)
        slope.square().sum().backward()
        gradients.append([x.grad for x in leaves])
    assert_close(*gradients)


def test_third_derivative(form):
    results = []
    for attention in (form, definition):
        q, *rest = (x.requires_grad_() for x in inputs())
        value = loss_of(attention, None)(q, *rest)
        for _ in range(3):
            value = torch.autograd.grad(value, q, create_graph=True)[0].sin().sum()
        results.append(value)
    assert_close(*results)


def test_a_gradient_to_be_differentiated_needs_not_every_input(form):
    q, k, v, tau = inputs()
    k.requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(form, None)(q, k, v, tau), k, create_graph=True)
    (actual,) = torch.autograd.grad(slope.square().sum(), k)
    (slope,) = torch.autograd.grad(loss_of(definition, None)(q, k, v, tau), k, create_graph=True)
    assert_close(actual, torch.autograd.grad(slope.square().sum(), k)[0])


def test_transforms_of_torch_func(form, regions):
    loss, expected = loss_of(form, regions), loss_of(definition, regions)
    every = (0, 1, 2, 3)
    assert_close(torch.func.grad(loss, every)(*inputs()), torch.func.grad(expected, every)(*inputs()))
    assert_close(torch.func.hessian(loss)(*inputs()), torch.func.hessian(expected)(*inputs()))


def test_forward_mode(form, regions):
    tangents = tuple(like(x, seed) for seed, x in enumerate(inputs()))
    expected = torch.func.jvp(loss_of(definition, regions), inputs(), tangents)
    assert_close(torch.func.jvp(loss_of(form, regions), inputs(), tangents), expected)
    assert expected[1].abs() > 0.1
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(*pair) for pair in zip(inputs(), tangents, strict=True)]
        assert_close(forward_ad.unpack_dual(loss_of(form, regions)(*dual)).tangent, expected[1])


def test_vmap(form, regions):
    """Over networks, each with a temperature, and over images, each with labels of its own."""
    q, k, v, tau = inputs()
    temperatures = torch.stack((tau, 2 * tau, tau.flip(0)))
    several = torch.stack((q, -q, k))
    loss, expected = loss_of(form, regions), loss_of(definition, regions)
    actual = torch.func.vmap(loss, (0, None, None, 0))(several, k, v, temperatures)
    assert_close(
        actual, torch.stack([expected(x, k, v, t) for x, t in zip(several, temperatures, strict=True)])
    )
    labels = torch.stack((LABELS, LABELS.flip(1)))
    actual = torch.func.vmap(lambda r: form(q, k, v, regions=r))(labels)
    one_by_one = [definition(q, k, v, temperature=1.0, regions=r, scale_output=False) for r in labels]
    assert_close(actual, torch.stack(one_by_one))
