"""Attention in graphs: one operator for every tracer, any size, any labels, the same numbers as at once."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from taylorir.attention import taylor_attention, taylor_direct, taylor_efficient
from taylorir.attention.kernels import torch_operator

# by PyTorch's tracer
pytestmark = [
    pytest.mark.usefixtures("each_backend"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

FORMS = pytest.mark.parametrize("crossover", [0.0, 1e9, None], ids=["efficient", "direct", "cheaper"])
REGIONS = pytest.mark.parametrize("in_regions", [False, True], ids=["whole", "regions"])


def inputs(batch, tokens, *, width=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 2, tokens, width)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
    return q, k, v, torch.tensor([0.7, 1.6], dtype=dtype)


def labels_of(batch, tokens, seed=0):
    return torch.randint(0, 3, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def attention(q, k, v, tau, regions, crossover):
    options = {"temperature": tau, "regions": regions, "crossover": crossover}
    return taylor_attention(q, k, v, **options, scale_output=True)


def definition(q, k, v, tau, regions):
    mask = None if regions is None else regions[:, None, :, None] == regions[:, None, None, :]
    return taylor_direct(q, k, v, temperature=tau, mask=mask, scale_output=True)


class Network(torch.nn.Module):
    def __init__(self, crossover):
        super().__init__()
        self.crossover = crossover

    def forward(self, q, k, v, tau, regions):
        return attention(q, k, v, tau, regions, self.crossover)


def nodes(graph):
    return [node.target for node in graph.nodes if node.op == "call_function"]


@FORMS
@REGIONS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_operators_are_registered_soundly(crossover, in_regions, dtype):
    q, k, v, tau = inputs(2, 9, dtype=dtype)
    tau = tau.to(torch.promote_types(dtype, torch.float32))
    rest = (labels_of(2, 9) if in_regions else None, None, True, crossover, "auto")
    leaves = [x.clone().requires_grad_() for x in (q, k, v, tau)]
    torch.library.opcheck(torch_operator.taylor_attention_op, (*leaves, *rest))
    y, exact, inverse = torch_operator.taylor_attention_op(q, k, v, tau, *rest)
    saved = (y if dtype == torch.float64 else exact, inverse)
    backward = (torch.ones_like(y), q, k, v, tau, *saved, *rest)
    torch.library.opcheck(torch_operator.taylor_attention_backward_op, backward)


@FORMS
@REGIONS
@pytest.mark.parametrize("strict", [False, True], ids=["export", "strict export"])
def test_an_exported_graph_serves_any_size_and_any_labels(crossover, in_regions, strict):
    def arguments(batch, tokens, labels):
        return *inputs(batch, tokens), labels if in_regions else None

    example = arguments(3, 11, torch.zeros(3, 11, dtype=torch.long))  # labels of another kind than below
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    free = {"q": free, "k": free, "v": free, "tau": None, "regions": None}
    if in_regions:
        free["regions"] = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    program = torch.export.export(Network(crossover), example, dynamic_shapes=free, strict=strict)
    assert nodes(program.graph).count(torch.ops.taylorir.taylor_attention.default) == 1
    for batch, tokens in ((2, 9), (5, 40)):
        given = arguments(batch, tokens, labels_of(batch, tokens))
        expected = definition(*given)
        torch.testing.assert_close(program.module()(*given), expected, rtol=0, atol=1e-12)


@FORMS
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_sees_one_operator_that_knows_its_regions(crossover, mode):
    def run(*arguments):
        return attention(*arguments, crossover)

    graph = make_fx(run, tracing_mode=mode)(*inputs(2, 9), torch.zeros(2, 9, dtype=torch.long))
    assert nodes(graph.graph).count(torch.ops.taylorir.taylor_attention.default) == 1
    given = (*inputs(2, 9, seed=1), labels_of(2, 9))
    torch.testing.assert_close(graph(*given), definition(*given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("times", [1, 2], ids=["gradient", "gradient penalty"])
def test_make_fx_of_gradients(times):
    def gradient(attend, q, k, v, tau, regions):
        leaves = [x.detach().requires_grad_() for x in (q, k, v, tau)]
        found = torch.autograd.grad(attend(*leaves, regions).pow(3).sum(), leaves, create_graph=times > 1)
        return torch.autograd.grad(found[0].square().sum(), leaves) if times > 1 else found

    def run(*arguments):
        return gradient(lambda *x: attention(*x, None), *arguments)

    graph = make_fx(run)(*inputs(2, 9), torch.zeros(2, 9, dtype=torch.long))
    given = (*inputs(2, 9, seed=1), labels_of(2, 9))
    torch.testing.assert_close(graph(*given), gradient(definition, *given), rtol=1e-9, atol=1e-9)


@REGIONS
def test_one_compilation_serves_small_and_large_windows(in_regions):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(attention, backend=backend, fullgraph=True, dynamic=True)
    for tokens in (64, 100, 2304):  # N0 of d = 10 is 111
        leaves = [x.requires_grad_() for x in inputs(1, tokens, width=10)]
        regions = labels_of(1, tokens) if in_regions else None
        results = []
        for attend in (compiled, attention):
            y = attend(*leaves, regions, None)
            results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
        torch.testing.assert_close(*results, rtol=0, atol=1e-11)
    assert len(graphs) == 1


@FORMS
@REGIONS
def test_compiles_with_its_gradients(crossover, in_regions):
    torch._dynamo.reset()
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    leaves = [x.requires_grad_() for x in inputs(2, 40)]
    regions = labels_of(2, 40) if in_regions else None
    results = []
    for attend in (lambda *x: compiled(*x, crossover), definition):
        y = attend(*leaves, regions)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_compiles_under_autocast():
    torch._dynamo.reset()
    q, k, v, tau = inputs(1, 40, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(taylor_efficient, backend="aot_eager", fullgraph=True)
        y = compiled(q, k, v, temperature=tau)
        expected = taylor_efficient(q, k, v, temperature=tau)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


@pytest.mark.parametrize("device", ["fake", "meta"])
@FORMS
@REGIONS
def test_tensors_without_contents(device, crossover, in_regions):
    with FakeTensorMode() if device == "fake" else torch.device("meta"):
        q, k, v = (torch.empty(2, 3, 70, 10, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        regions = torch.zeros(2, 70, dtype=torch.long) if in_regions else None
        y = taylor_attention(q, k, v, regions=regions, crossover=crossover)
        y.sum().backward()
    assert y.dtype == q.grad.dtype == torch.bfloat16
    assert y.shape == q.grad.shape == k.grad.shape == v.grad.shape == (2, 3, 70, 10)


def test_the_operator_under_vmap():
    q, k, v, tau = inputs(2, 9)
    labels = torch.stack((labels_of(2, 9), labels_of(2, 9, seed=1)))

    def attend(q, tau, labels):
        return torch_operator.taylor_attention_op(q, k, v, tau, labels, None, False, None, "auto")[0]

    several, taus = torch.stack((q, k), 1), torch.stack((tau, 2 * tau))
    actual = torch.func.vmap(attend, (1, 0, 0))(several, taus, labels)
    expected = torch.stack([attend(x, t, r) for x, t, r in zip((q, k), taus, labels, strict=True)])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


def test_few_operators_are_issued_on_a_gpu_without_triton():
    """Counted on fake tensors of a device that stands for a GPU: in a process of its own, as it stays."""
    code = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from taylorir.attention import taylor_attention
from taylorir.attention.kernels.segments import Execution, executing

class Operators(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not function.is_view and "empty" not in str(function):
            self.count += 1
        return result

_setup_privateuseone_for_python_backend("gpu")
for d in (10, 30):
    for tokens in (64, 256, 576):
        with FakeTensorMode(), executing(Execution()):
            q, k, v = (torch.empty(64, 6, tokens, d, device="gpu", requires_grad=True) for _ in range(3))
            tau = torch.ones(6, device="gpu", requires_grad=True)
            with Operators() as forward:
                y = taylor_attention(q, k, v, temperature=tau)
            with Operators() as backward:
                torch.autograd.grad(y, (q, k, v, tau), y)
        assert 10 < forward.count <= 60, (d, tokens, forward.count)
        assert 20 < backward.count <= 120, (d, tokens, backward.count)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
