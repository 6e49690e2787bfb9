"""Attention: hand-computed values, golden data, both forms against each other, memory, precision, errors."""

import itertools
import math
import weakref
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from taylorir.attention import (
    crossover_flops,
    crossover_memory,
    softmax_attention,
    taylor_attention,
    taylor_direct,
    taylor_efficient,
)
from taylorir.attention.kernels import segments, triton_operator
from taylorir.attention.reference import features, taylor_sums

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "taylorshift.safetensors")
MIB = 2**20

pytestmark = pytest.mark.usefixtures("each_backend")


def blocked_direct(q, k, v, **options):
    """The direct form as ``taylor_attention`` runs it."""
    return taylor_attention(q, k, v, crossover=10**9, **options)


ALL_FORMS = [taylor_direct, taylor_sums, taylor_efficient, blocked_direct]
FAST_FORMS = pytest.mark.parametrize("form", [taylor_efficient, blocked_direct], ids=["efficient", "direct"])


def random_inputs(*shape, v_width=None, dtype=torch.float64, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(*shape[:-1], width, generator=generator, dtype=torch.float64).to(dtype)
        for width in (shape[-1], shape[-1], v_width or shape[-1])
    )
    return [x.requires_grad_(requires_grad) for x in (q, k, v)]


def outputs_and_gradients(form, q, k, v, temperature, probe_dtype=None, **options):
    leaves = [x.detach().requires_grad_() for x in (q, k, v, temperature) if isinstance(x, torch.Tensor)]
    y = form(*leaves[:3], temperature=leaves[3] if leaves[3:] else temperature, **options)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(y, leaves, probe.to(probe_dtype or y.dtype).to(y.dtype))
    return y.detach(), gradients


# --- references -----------------------------------------------------------------------------------


def test_direct_by_hand():
    q = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]], dtype=torch.float64)
    k = torch.tensor([[[5.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    v = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    # scores at temperature 2: 2 * [[0.6, 0.8], [0, 1]]
    weights = [[1 + 1.2 + 0.72, 1 + 1.6 + 1.28], [1.0, 1 + 2 + 2]]
    expected = torch.tensor([[[(a + 2 * b) / (a + b)] for a, b in weights]], dtype=torch.float64)
    torch.testing.assert_close(taylor_direct(q, k, v, temperature=2.0), expected, rtol=0, atol=1e-15)
    scaled = taylor_direct(q, k, v, temperature=2.0, scale_output=True)  # sqrt(N / d) = 1
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_orders_by_hand(order):
    q = torch.tensor([[[2.0]]], dtype=torch.float64).expand(1, 2, 1)
    k = torch.tensor([[[5.0], [-3.0]]], dtype=torch.float64)
    v = torch.tensor([[[1.0], [0.0]]], dtype=torch.float64)
    plus, minus = (sum((sign * 1.5) ** n / math.factorial(n) for n in range(order + 1)) for sign in (1, -1))
    y = taylor_direct(q, k, v, temperature=1.5, order=order)
    torch.testing.assert_close(y, torch.full_like(y, plus / (plus + minus)), rtol=0, atol=1e-15)


def test_softmax_is_that_of_pytorch():
    q, k, v = random_inputs(2, 3, 17, 5, v_width=4)
    bias = torch.randn(3, 17, 17, dtype=torch.float64)
    mask = torch.rand(2, 1, 17, 17) < 0.5
    mask.diagonal(dim1=-2, dim2=-1).fill_(True)
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(~mask, -math.inf))
    torch.testing.assert_close(softmax_attention(q, k, v, bias=bias, mask=mask), expected, rtol=0, atol=1e-14)


def test_features_by_hand():
    x = torch.tensor([2.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([1, 2, 3, 4 / 2**0.5, 6, 9 / 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(features(x), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("attention", [softmax_attention, taylor_direct])
def test_a_token_that_may_attend_to_none_gets_zero(attention):
    q, k, v = random_inputs(1, 2, 4, 3, requires_grad=True)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    y = attention(q, k, v, mask=mask)
    y.sum().backward()
    assert (y[..., 2, :] == 0).all() and (y[..., 1, :] != 0).all()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


# --- equality -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ALL_FORMS)
@pytest.mark.parametrize("case", range(4))
def test_golden_outputs(attention, case):
    q, k, v, temperature = (GOLDEN[f"case{case}.{name}"] for name in ("q", "k", "v", "temperature"))
    for scale_output, name in ((False, "output"), (True, "output_scaled")):
        y = attention(q, k, v, temperature=temperature, scale_output=scale_output)
        torch.testing.assert_close(y, GOLDEN[f"case{case}.{name}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ALL_FORMS[1:])
@pytest.mark.parametrize("with_regions", [False, True], ids=["whole", "regions"])
@pytest.mark.parametrize(("d", "v_width"), [(1, 1), (2, 5), (3, 3), (10, 10), (15, 15), (30, 7)])
@pytest.mark.parametrize("tokens", [1, 7, 63, 111, 300])
def test_forms_are_the_direct_one(form, with_regions, d, v_width, tokens):
    q, k, v = random_inputs(2, 2, 3, tokens, d, v_width=v_width, seed=tokens)
    temperature = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    regions = mask = None
    if with_regions:
        regions = torch.randint(0, 4, (2, 2, tokens), generator=torch.Generator().manual_seed(d)) * 7 - 5
        regions[0, 1] = 3
        regions[1] = regions[0]
        mask = regions[..., None, :, None] == regions[..., None, None, :]
    y, gradients = outputs_and_gradients(form, q, k, v, temperature, regions=regions, scale_output=True)
    expected, expected_gradients = outputs_and_gradients(
        taylor_direct, q, k, v, temperature, mask=mask, scale_output=True
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


@FAST_FORMS
def test_many_tiles_and_chunks_are_one(form, monkeypatch):
    q, k, v = random_inputs(5, 3, 400, 6)
    temperature = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    regions = (torch.arange(400) // 150).expand(5, 400).clone()
    regions[1::2] = 0
    expected = outputs_and_gradients(form, q, k, v, temperature, regions=regions)
    monkeypatch.setattr(segments, "CACHED_NUMBERS", 2 * 28 * 130)
    y, gradients = outputs_and_gradients(form, q, k, v, temperature, regions=regions)
    torch.testing.assert_close(y, expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected[1], rtol=1e-10, atol=1e-10)


@FAST_FORMS
def test_heads_of_a_permuted_projection(form):
    qkv = torch.randn(2, 50, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = form(q, k, v)
    expected = taylor_direct(q, k, v)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    gradient, expected_gradient = (torch.autograd.grad(x.square().sum(), qkv)[0] for x in (y, expected))
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-11)
    torch.testing.assert_close(form(q[0], k[0], v[0]), expected[0], rtol=0, atol=1e-12)
    assert form(q[:0], k[:0], v[:0]).shape == (0, 4, 50, 6)


@FAST_FORMS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_regions_broadcast_over_the_batch(form, dtype):
    q, k, v = random_inputs(3, 2, 2, 20, 4)
    regions = torch.randint(0, 3, (2, 20)).to(dtype)
    mask = (regions[:, None, :, None] == regions[:, None, None, :]).expand(2, 2, 20, 20)
    expected = taylor_direct(q, k, v, mask=mask)
    torch.testing.assert_close(form(q, k, v, regions=regions), expected, rtol=0, atol=1e-12)


@FAST_FORMS
@pytest.mark.parametrize("scale_output", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("with_regions", [False, True], ids=["whole", "regions"])
@pytest.mark.parametrize("d", [1, 3, 10])
@pytest.mark.parametrize("tokens", [1, 7, 63])
def test_gradcheck(form, scale_output, with_regions, d, tokens):
    q, k, v = random_inputs(1, 2, tokens, d, seed=7)
    # Where |q| is small its gradient is steep, beyond finite differences; so keep away from zero.
    q, k = (x + 0.5 * x.sign() for x in (q, k))
    temperature = torch.tensor([0.7, 1.6], dtype=torch.float64)
    regions = (torch.arange(tokens) % 3)[None] if with_regions else None

    def attend(q, k, v, temperature):
        options = {"temperature": temperature, "regions": regions, "scale_output": scale_output}
        return form(q, k, v, **options)

    leaves = [x.requires_grad_() for x in (q, k, v, temperature)]
    assert torch.autograd.gradcheck(attend, leaves, fast_mode=tokens * d > 7)


# --- zeros, extremes, low precision ---------------------------------------------------------------


@pytest.mark.parametrize("form", ALL_FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_zero_vectors_weigh_all_alike(form, dtype):
    q, k, v = random_inputs(1, 2, 9, 4, dtype=dtype)
    q[:, :, 3] = 0
    k[:, :, 5] = 0
    y, gradients = outputs_and_gradients(form, q, k, v, torch.ones(2, dtype=dtype))
    torch.testing.assert_close(y[:, :, 3], v.double().mean(2).to(dtype), rtol=0, atol=0.01)
    assert (gradients[0][:, :, 3] == 0).all() and (gradients[1][:, :, 5] == 0).all()
    assert all(x.isfinite().all() and x.abs().max() < 10 for x in gradients)


@FAST_FORMS
def test_temperature_zero_is_the_mean(form):
    q, k, v = random_inputs(1, 2, 9, 4)
    y, gradients = outputs_and_gradients(form, q, k, v, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(y, v.mean(2, keepdim=True).expand_as(y), rtol=0, atol=1e-14)
    _, expected = outputs_and_gradients(taylor_direct, q, k, v, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-14)


@FAST_FORMS
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("scale_output", [False, True])
def test_temperature_as_a_float_is_the_same_for_each_head(form, batch, scale_output):
    q, k, v = random_inputs(*batch, 3, 9, 4)
    y, gradients = outputs_and_gradients(form, q, k, v, 2.5, scale_output=scale_output)
    tau = torch.full((3,), 2.5, dtype=torch.float64)
    expected, with_tau = outputs_and_gradients(taylor_direct, q, k, v, tau, scale_output=scale_output)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, with_tau[:3], rtol=0, atol=1e-12)
    y, gradients = outputs_and_gradients(form, q, k, v, tau, scale_output=scale_output)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, with_tau, rtol=0, atol=1e-12)


@FAST_FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
@pytest.mark.parametrize(("tokens", "d"), [(64, 30), (300, 10)], ids=["small", "blocked"])
def test_low_precision_errs_no_more_than_the_direct_form(form, dtype, temperature, tokens, d):
    q, k, v = random_inputs(1, 6, tokens, d, dtype=dtype)
    tau = temperature * torch.linspace(0.8, 1.2, 6)  # float32: the direct form rounds its gradient least
    exact, exact_gradients = outputs_and_gradients(
        taylor_direct, *(x.double() for x in (q, k, v, tau)), probe_dtype=dtype
    )
    y, gradients = outputs_and_gradients(form, q, k, v, tau)
    direct, direct_gradients = outputs_and_gradients(taylor_direct, q, k, v, tau)
    assert y.dtype == dtype
    for ours, theirs, truth in zip(
        (y, *gradients[:3]), (direct, *direct_gradients[:3]), (exact, *exact_gradients[:3]), strict=True
    ):
        assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max()
        assert (ours - truth).norm() <= 1.1 * (theirs - truth).norm()
    assert (gradients[3] - exact_gradients[3]).norm() <= 1e-5 * exact_gradients[3].norm()  # not the dtype's


@FAST_FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_low_precision_survives_any_scale(form, dtype, scale):
    q, k, v = (scale * x for x in random_inputs(1, 1, 300, 10, dtype=dtype))
    q[..., 0, :] = 0
    k[..., 1, :] = 0
    temperature = torch.ones(1, dtype=dtype)
    exact, exact_gradients = outputs_and_gradients(
        taylor_direct, q.double(), k.double(), v.double(), temperature.double()
    )
    y, gradients = outputs_and_gradients(form, q, k, v, temperature)
    torch.testing.assert_close(y.double(), exact, rtol=0.01, atol=0.01 * float(exact.abs().max()))
    for gradient, truth in zip(gradients[:3], exact_gradients[:3], strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient.double(), truth, rtol=0.02, atol=0.02 * float(truth.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_survives_many_tokens(dtype):
    q, k, v = random_inputs(1, 1, 262144, 3, dtype=dtype)
    v = 1e4 * v.abs()
    y, gradients = outputs_and_gradients(taylor_efficient, q, k, v, torch.ones(1, dtype=dtype))
    mean = v.double().mean(2, keepdim=True)
    assert (y.double() / mean - 1).abs().max() < 0.02  # of positive v the mean hardly depends on the weights
    assert all(x.isfinite().all() for x in gradients)


# --- memory and operations ------------------------------------------------------------------------


@contextmanager
def saved_bytes():
    """A dict: the storages saved for backward, and their bytes."""
    found = {}

    def pack(x):
        found[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield found


class PeakMemory(TorchDispatchMode):
    """The most bytes that the tensors made inside held at a time."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self._follow(x.untyped_storage())
        return result

    def _follow(self, storage):
        if storage._cdata in self.live:
            return
        self.live.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key, size):
        self.live.discard(key)
        self.now -= size


def test_efficient_saves_at_most_8_mib():
    q, k, v = random_inputs(1, 6, 2304, 30, dtype=torch.float32, requires_grad=True)
    with saved_bytes() as found:
        taylor_efficient(q, k, v)
    assert 4.7 * MIB < sum(found.values()) <= 8 * MIB  # q, k, v themselves are 4.7 MiB


def test_efficient_holds_at_most_48_mib_beside_its_results():
    q, k, v = random_inputs(1, 6, 2304, 30, dtype=torch.float32, requires_grad=True)
    probe = torch.randn(1, 6, 2304, 30)
    with PeakMemory() as forward:
        y = taylor_efficient(q, k, v)
    with PeakMemory() as backward:
        torch.autograd.grad(y, (q, k, v), probe)
    assert 1.5 * MIB < forward.peak - y.nbytes <= 48 * MIB
    assert 1.5 * MIB < backward.peak - 3 * y.nbytes <= 48 * MIB


def test_saved_bytes_grow_with_the_tokens():
    sizes = []
    for tokens in (2304, 36864):
        q, k, v = (torch.zeros(1, 6, tokens, 30, requires_grad=True) for _ in range(3))
        with saved_bytes() as found:
            taylor_efficient(q, k, v)
        sizes.append(sum(found.values()))
    assert 12 * sizes[0] < sizes[1] <= 16 * 1.05 * sizes[0]


@pytest.mark.parametrize("tokens", [64, 256])
def test_blocked_direct_saves_no_weights(tokens):
    q, k, v = random_inputs(2, 6, tokens, 30, dtype=torch.float32, requires_grad=True)
    with saved_bytes() as found:
        y = taylor_attention(q, k, v)
    three_a_token = 3 * 2 * 6 * tokens * 4  # a normaliser and two norms
    assert sum(found.values()) <= q.nbytes + k.nbytes + v.nbytes + y.nbytes + three_a_token + 1024


def test_a_small_window_holds_its_weights_once_forward_and_twice_backward():
    q, k, v = random_inputs(1, 6, 256, 30, dtype=torch.float32, requires_grad=True)
    probe, weights = torch.randn_like(v), 6 * 256 * 256 * 4
    with PeakMemory() as forward:
        y = taylor_attention(q, k, v, backend="torch")
    with PeakMemory() as backward:
        torch.autograd.grad(y, (q, k, v), probe)
    assert weights < forward.peak < 2 * weights
    assert 2 * weights < backward.peak < 3.5 * weights  # with a dozen tensors like q, 0.12 weights each


@pytest.mark.parametrize("with_regions", [False, True], ids=["whole", "regions"])
def test_operations_are_those_of_symmetric_features(with_regions):
    tokens, d = 200, 10
    q, k, v = random_inputs(1, 2, tokens, d, requires_grad=True)
    regions = (torch.arange(tokens) % 4)[None] if with_regions else None
    product = 2 * 2 * tokens * (1 + d + d * (d + 1) // 2) * (d + 1)  # 2 heads; a multiply-add counts 2
    with FlopCounterMode(display=False) as forward:
        y = taylor_efficient(q, k, v, regions=regions)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert forward.get_total_flops() == 2 * product
    assert backward.get_total_flops() == 4 * product - product // (d + 1)


# --- crossovers and dispatch ----------------------------------------------------------------------


class Counted:
    """A number that counts the operations on numbers like it."""

    operations = 0

    def __init__(self, value=1.0):
        self.value = value

    def _operation(self, other):
        Counted.operations += 1
        return Counted()

    __add__ = __mul__ = __truediv__ = _operation


def total(numbers):
    """Sum as the published count takes it: n additions for n numbers, the first to zero."""
    result = Counted()
    for number in numbers:
        result = result + number
    return result


def count_operations(form, tokens, d):
    q, k, v = ([[Counted() for _ in range(d)] for _ in range(tokens)] for _ in range(3))
    Counted.operations = 0
    form(q, k, v, Counted())
    return Counted.operations


def count_direct(q, k, v, one):
    for query in q:
        scores = [total(a * b for a, b in zip(query, key, strict=True)) for key in k]
        weights = [x * x * one + x + one for x in scores]
        normaliser = total(weights)
        weights = [weight / normaliser for weight in weights]
        for column in zip(*v, strict=True):
            total(weight * x for weight, x in zip(weights, column, strict=True))


def count_efficient(q, k, v, one):
    columns = [*zip(*v, strict=True), [one] * len(v)]
    squares = [[a * b for a in key for b in key] for key in k]
    state2 = [
        [total(f * x for f, x in zip(row, c, strict=True)) for c in columns]
        for row in zip(*squares, strict=True)
    ]
    state1 = [
        [total(f * x for f, x in zip(row, c, strict=True)) for c in columns] for row in zip(*k, strict=True)
    ]
    state0 = [total(column) for column in columns]
    for query in q:
        pairs = [a * b for a in query for b in query]
        out = []
        for c in range(len(columns)):
            second = total(f * row[c] for f, row in zip(pairs, state2, strict=True))
            first = total(f * row[c] for f, row in zip(query, state1, strict=True))
            out.append(second * one + first + state0[c])
        [x / out[-1] for x in out[:-1]]


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_crossover_of_operations_is_where_counting_finds_it(d):
    direct, efficient = (count_operations(form, 5, d) for form in (count_direct, count_efficient))
    assert direct == 5**2 * (4 * d + 6)
    assert efficient == 5 * (4 * d**3 + 10 * d**2 + 9 * d + 4)
    first = next(
        tokens
        for tokens in itertools.count(1)
        if count_operations(count_efficient, tokens, d) <= count_operations(count_direct, tokens, d)
    )
    assert crossover_flops(d) == first


@pytest.mark.parametrize("d", [*range(1, 33), 64, 128])
def test_crossover_of_memory_is_where_counting_finds_it(d):
    def entries_direct(tokens):
        scores = weights = [tokens, tokens]
        return math.prod([tokens, d]) + math.prod(scores) + math.prod(weights)

    def entries_efficient(tokens):
        held = {"state": [d, d, d + 1], "q": [tokens, d], "k": [tokens, d], "v": [tokens, d + 1]}
        return sum(map(math.prod, held.values())) + math.prod([tokens, d, d])

    first = next(n for n in itertools.count(1) if entries_efficient(n) <= entries_direct(n))
    assert crossover_memory(d) == first


def test_crossovers_of_the_papers():
    heads = (8, 10, 15, 16, 30, 32, 64, 128)
    assert [crossover_flops(d) for d in heads] == [73, 111, 241, 273, 931, 1057, 4161, 16513]
    assert [crossover_memory(d) for d in heads] == [47, 69, 141, 159, 508, 574, 2174, 8446]


@pytest.mark.parametrize(
    ("tokens", "crossover", "efficient"),
    [(12, None, False), (13, None, True), (13, 14, False), (12, 12, True)],
)
def test_dispatch(tokens, crossover, efficient):
    q, k, v = random_inputs(1, 1, tokens, 3)
    with FlopCounterMode(display=False) as counter:
        y = taylor_attention(q, k, v, crossover=crossover)
    torch.testing.assert_close(y, taylor_direct(q, k, v), rtol=0, atol=1e-13)
    products = 2 * (10 * 4) if efficient else tokens * (3 + 3)
    assert counter.get_total_flops() == 2 * tokens * products


# --- modes of PyTorch -----------------------------------------------------------------------------


@FAST_FORMS
def test_fake_tensors(form):
    with FakeTensorMode():
        q, k, v = (torch.zeros(2, 3, 70, 10, requires_grad=True) for _ in range(3))
        y = form(q, k, v, regions=torch.zeros(2, 70, dtype=torch.long))
        y.sum().backward()
    assert y.shape == q.grad.shape == v.grad.shape == (2, 3, 70, 10)


@FAST_FORMS
def test_autocast_rounds_inputs_and_output_only(form):
    q, k, v = random_inputs(1, 2, 40, 5, dtype=torch.float32)
    temperature = torch.ones(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, gradients = outputs_and_gradients(form, q, k, v, temperature)
        reference = taylor_direct(q, k, v, temperature=temperature)
    rounded = (x.bfloat16() for x in (q, k, v))
    expected, expected_gradients = outputs_and_gradients(form, *rounded, temperature)
    assert y.dtype == reference.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(y, reference)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected_gradient.float(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by PyTorch's tracer
@FAST_FORMS
def test_compiles_in_one_graph(form):
    q, k, v = random_inputs(1, 2, 40, 5)
    temperature = torch.ones(2, dtype=torch.float64)
    compiled = torch.compile(form, backend="aot_eager", fullgraph=True)
    y, gradients = outputs_and_gradients(compiled, q, k, v, temperature)
    expected, expected_gradients = outputs_and_gradients(form, q, k, v, temperature)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-13)


# --- errors ---------------------------------------------------------------------------------------

Q = torch.zeros(2, 3, 8, 4)
WRONG_QKV = [
    ("q", Q.tolist(), TypeError, r"q must be a tensor .* got list"),
    ("k", Q.long(), TypeError, r"k must be floating point, got torch.int64 of shape \[2, 3, 8, 4\]"),
    ("v", Q.double(), TypeError, r"v must have the dtype of q, expected torch.float32, got torch.float64"),
    ("q", Q[0, 0], ValueError, r"q must be \[..., H, N, d\] with at least 3 axes, got shape \[8, 4\]"),
    (
        "k",
        Q[..., :3],
        ValueError,
        r"k must have all axes of q but N, expected \[2, 3, .M., 4\], got \[2, 3, 8, 3\]",
    ),
    (
        "v",
        Q[:, :, 1:],
        ValueError,
        r"v must have the tokens of k, expected \[2, 3, 8, 'd_v'\], got \[2, 3, 7",
    ),
    ("k", Q.to("meta"), ValueError, r"k is on meta, expected cpu"),
]


@pytest.mark.parametrize(
    "attention",
    [softmax_attention, taylor_direct, taylor_efficient, taylor_attention],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize(("name", "value", "error", "message"), WRONG_QKV)
def test_wrong_q_k_v(attention, name, value, error, message):
    with pytest.raises(error, match=message):
        attention(**{"q": Q, "k": Q, "v": Q, name: value})


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (Q.long(), TypeError, r"q must be floating point, got torch.int64 of shape \[2, 3, 8, 4\]"),
        (Q[0, 0], ValueError, r"q must be \[..., H, N, d\] with at least 3 axes, got shape \[8, 4\]"),
        (
            Q[:, :, :0],
            ValueError,
            r"q must have H >= 1 heads of N >= 1 tokens of d >= 1, got q \[2, 3, 0, 4\]",
        ),
    ],
    ids=["integers", "two axes", "no tokens"],
)
def test_q_k_v_that_are_wrong_alike(value, error, message):
    with pytest.raises(error, match=message):
        taylor_attention(value, value, value)


@pytest.mark.parametrize("attention", [taylor_direct, taylor_efficient, taylor_attention])
@pytest.mark.parametrize(
    ("temperature", "error", "message"),
    [
        (torch.ones(4), ValueError, r"temperature must be .* \[H\] = \[3\], got shape \[4\]"),
        (torch.ones(3, 1, 1), ValueError, r"temperature must be .* \[H\] = \[3\], got shape \[3, 1, 1\]"),
        (torch.ones(3, dtype=torch.long), TypeError, r"temperature must be floating point, got torch.int64"),
        ("hot", TypeError, r"temperature must be a float or a tensor \[H\], got str"),
        (torch.ones(3, device="meta"), ValueError, r"temperature is on meta, expected cpu"),
    ],
)
def test_wrong_temperature(attention, temperature, error, message):
    with pytest.raises(error, match=message):
        attention(Q, Q, Q, temperature=temperature)


@pytest.mark.parametrize("attention", [taylor_efficient, taylor_attention])
@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        (torch.zeros(2, 7, dtype=torch.long), ValueError, r"regions must be .* \[2, 8\], got shape \[2, 7\]"),
        (
            torch.zeros(3, 8, dtype=torch.long),
            ValueError,
            r"regions must .*broadcast to \[2, 8\], got .*\[3, 8\]",
        ),
        (
            torch.zeros(2, 3, 8, dtype=torch.long),
            ValueError,
            r"regions must .* \[2, 8\], got shape \[2, 3, 8\]",
        ),
        (torch.zeros(2, 8), TypeError, r"regions must be an integer tensor .* got torch.float32"),
        (torch.zeros(2, 8, dtype=torch.bool), TypeError, r"regions must be an integer .* got torch.bool"),
        ([0] * 8, TypeError, r"regions must be an integer tensor .* got list"),
    ],
)
def test_wrong_regions(attention, regions, error, message):
    with pytest.raises(error, match=message):
        attention(Q, Q, Q, regions=regions)


@pytest.mark.parametrize("attention", [softmax_attention, taylor_direct])
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (
            torch.ones(8, 7, dtype=torch.bool),
            ValueError,
            r"mask must broadcast to \[2, 3, 8, 8\], got .*\[8, 7\]",
        ),
        (torch.zeros(8, 8), TypeError, r"mask must be a boolean tensor .* got torch.float32"),
        (-100, TypeError, r"mask must be a boolean tensor .* got int"),
    ],
)
def test_wrong_mask(attention, mask, error, message):
    with pytest.raises(error, match=message):
        attention(Q, Q, Q, mask=mask)


def test_wrong_bias():
    with pytest.raises(ValueError, match=r"bias must broadcast to \[2, 3, 8, 8\], got shape \[4, 8, 8\]"):
        softmax_attention(Q, Q, Q, bias=torch.zeros(4, 8, 8))
    with pytest.raises(TypeError, match=r"bias must be a floating point tensor, got torch.bool"):
        softmax_attention(Q, Q, Q, bias=torch.ones(8, 8, dtype=torch.bool))


@pytest.mark.parametrize("order", [1, 3, 5])
def test_odd_orders_are_refused_with_the_reason(order):
    assert min(sum(x**n / math.factorial(n) for n in range(order + 1)) for x in (-1.5, -3, -4)) < 0
    with pytest.raises(ValueError, match=rf"order must be even \(2, 4 or 6\), got {order}.*negative"):
        taylor_direct(Q, Q, Q, order=order)


@pytest.mark.parametrize("order", [0, 8, 2.5, "2"])
def test_other_orders_are_refused(order):
    with pytest.raises(ValueError, match=r"order must be 2, 4 or 6, got"):
        taylor_direct(Q, Q, Q, order=order)


@pytest.mark.parametrize("attention", [taylor_efficient, taylor_attention])
def test_wrong_backend(attention, monkeypatch):
    with pytest.raises(
        ValueError, match=r"backend must be one of 'auto', 'torch', 'cpp', 'triton', got 'cuda'"
    ):
        attention(Q, Q, Q, backend="cuda")
    monkeypatch.setattr(triton_operator, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"backend 'triton' needs .* got q on cpu; use 'auto' or 'torch'"):
        attention(Q, Q, Q, backend="triton")


@pytest.mark.parametrize("crossover", [crossover_flops, crossover_memory])
@pytest.mark.parametrize("head_dim", [0, -3, 2.5])
def test_wrong_head_dim(crossover, head_dim):
    with pytest.raises(ValueError, match=rf"head_dim must be an integer of at least 1, got {head_dim}"):
        crossover(head_dim)
