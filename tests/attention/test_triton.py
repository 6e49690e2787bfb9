"""The Triton kernels against the direct form in float64: interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from taylorir.attention import taylor_direct, taylor_efficient

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from taylorir.attention.kernels import triton_launch, triton_operator
from taylorir.attention.kernels.triton_launch import KernelConfig, region_tables
from taylorir.attention.kernels.triton_operator import taylor_efficient_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-5  # relative, float32
LOW_PRECISION = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def random_inputs(shape, d, d_v=None, *, dtype=torch.float32, seed=0, temperature=None):
    """q, k, v [..., H, N, width], the temperature [H], and dy; all but dy need gradients."""
    generator = torch.Generator().manual_seed(seed)
    widths = (d, d, d_v or d)
    q, k, v = (torch.randn(*shape, width, generator=generator).to(DEVICE, dtype) for width in widths)
    tau = torch.rand(shape[-2], generator=generator) * 2 + 0.5
    if temperature is not None:
        tau = torch.full_like(tau, temperature)
    dy = torch.randn(*v.shape, generator=generator).to(DEVICE, dtype)
    return *(x.requires_grad_() for x in (q, k, v, tau.to(DEVICE))), dy


def random_regions(shape, count, seed=0) -> Tensor:
    """Labels with gaps, some negative, in no order."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, count, shape, generator=generator) * 7 - 10).to(DEVICE)


def with_gradients(attend, q, k, v, tau, dy) -> dict[str, Tensor]:
    y = attend(q, k, v, tau)
    gradients = torch.autograd.grad(y, (q, k, v, tau), dy)
    return dict(zip(("y", "dq", "dk", "dv", "dtau"), (y.detach(), *gradients), strict=True))


def reference(q, k, v, tau, dy, regions=None) -> dict[str, Tensor]:
    """The direct form in float64."""
    mask = None if regions is None else regions[..., None, :, None] == regions[..., None, None, :]
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v, tau)]
    return with_gradients(
        lambda q, k, v, tau: taylor_direct(q, k, v, temperature=tau, mask=mask), *leaves, dy.double()
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (actual.double() - expected).norm().item() / (size if size > 1e-12 else 1.0)


def assert_equals_reference(inputs, regions=None, reference_regions=None, tolerance=TOLERANCE) -> None:
    actual = with_gradients(lambda *qkvt: taylor_efficient_triton(*qkvt, regions), *inputs)
    expected = reference(*inputs, regions if reference_regions is None else reference_regions)
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert all(error < tolerance for error in errors.values()), errors  # so that NaN fails
    assert all(actual[name].dtype == x.dtype for name, x in zip(("dq", "dk", "dv"), inputs, strict=False))


def assert_errs_like_plain_pytorch(inputs, regions=None) -> None:
    """At most twice the error of the direct form, which computes in float32 and rounds its results.

    The temperature is float32; its gradient may err by an epsilon of the dtype, twice its rounding.
    """
    mask = None if regions is None else regions[..., None, :, None] == regions[..., None, None, :]
    expected = reference(*inputs, regions)
    kernel = with_gradients(lambda *qkvt: taylor_efficient_triton(*qkvt, regions), *inputs)
    plain = with_gradients(lambda q, k, v, t: taylor_direct(q, k, v, temperature=t, mask=mask), *inputs)
    for name in ("y", "dq", "dk", "dv"):
        error, allowed = (relative_error(result[name], expected[name]) for result in (kernel, plain))
        assert error <= 2 * allowed, (name, error / allowed)
    assert relative_error(kernel["dtau"], expected["dtau"]) <= torch.finfo(inputs[0].dtype).eps


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fresh memory holds NaN, so that what a kernel forgets to write shows."""
    new_empty = torch.Tensor.new_empty

    def poisoned(self, *args, **kwargs):
        x = new_empty(self, *args, **kwargs)
        return x.fill_(torch.nan) if x.is_floating_point() else x

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


@pytest.fixture(autouse=True, scope="module")
def light_interpreter():
    """Half of the interpreter's time goes into what these tests can do without.

    At each call of a helper it turns the modules that the helper sees to interpretation, though the launch
    did so with ours, and a first call with Triton's own; and it checks 32-bit sums for overflow, which
    tensors of this size are far from.
    """
    if DEVICE == "cuda":
        yield
        return
    from triton.runtime import interpreter

    turned = set()

    def call(self, *args, **kwargs):
        module = self.fn.__module__
        if module.startswith("triton.") and module not in turned:
            interpreter._patch_lang(self.fn)
            turned.add(module)
        return self.rewrite()(*args, **kwargs)

    builder = interpreter.interpreter_builder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield


@pytest.fixture
def wide_tiles(monkeypatch):
    """Interpreting costs by the tile, so tests of many tokens take fewer."""
    if DEVICE == "cpu":
        configs = dict.fromkeys(("moments", "readout", "pullback"), KernelConfig(512))
        by_width = dict.fromkeys((16, 32, 64), configs)
        monkeypatch.setattr(triton_launch, "CONFIGS", {"sm_90": dict.fromkeys((True, False), by_width)})
        monkeypatch.setattr(triton_launch, "_ENOUGH_PROGRAMS", 4)


@pytest.mark.parametrize(
    ("d", "num_tokens"), [(10, 1), (30, 1), (10, 63), (15, 64), (32, 64), (30, 111), (1, 63), (3, 7)]
)
def test_equals_direct(d, num_tokens):
    assert_equals_reference(random_inputs((1, 2, num_tokens), d))


@pytest.mark.usefixtures("wide_tiles")
@pytest.mark.parametrize("d", [10, 30])
def test_equals_direct_in_a_window_of_48(d):
    assert_equals_reference(random_inputs((1, 2304), d))


@pytest.mark.parametrize(("d", "d_v"), [(15, 32), (32, 7), (40, 20), (64, 64)])
def test_widths_of_their_own(d, d_v):
    assert_equals_reference(random_inputs((1, 2, 70), d, d_v))


@pytest.mark.parametrize(("d", "num_tokens", "count"), [(10, 111, 4), (32, 64, 2), (3, 63, 14), (15, 1, 1)])
def test_regions_equal_direct_with_mask(d, num_tokens, count):
    assert_equals_reference(random_inputs((2, 1, num_tokens), d), random_regions((2, num_tokens), count))


@pytest.mark.usefixtures("wide_tiles")
def test_regions_of_a_shifted_window_of_48():
    rows = torch.arange(48, device=DEVICE) >= 24
    regions = (2 * rows[:, None] + rows[None, :]).flatten()
    assert_equals_reference(random_inputs((1, 2304), 10), regions)


def test_regions_broadcast_over_the_batch():
    regions = random_regions((2, 40), 2)
    inputs = random_inputs((2, 2, 2, 40), 10)
    assert_equals_reference(inputs, regions, regions.expand(2, 2, 40))
    assert len(region_tables(regions.expand(2, 2, 40), 64).segments) == 4  # the repetition costs no states


def test_changed_regions_are_seen():
    inputs = random_inputs((1, 64), 10)
    regions = random_regions((64,), 3)
    assert_equals_reference(inputs, regions)
    regions[:20] = 99
    assert_equals_reference(inputs, regions)


def test_segments_by_hand():
    labels = torch.tensor([[5, -1, 5, 5, -1], [2, 2, 2, 2, 2]])
    segments = region_tables(labels, tile_size=2)
    assert segments.order.tolist() == [[1, 4, 0, 2, 3], [0, 1, 2, 3, 4]]
    assert segments.segments.tolist() == [[0, 0, 0, 2, 2], [1, 0, 2, 5, 3], [2, 1, 0, 5, 5]]
    assert segments.tiles.tolist() == [
        [0, 0, 0, 2, 2],
        [1, 0, 2, 5, 3],
        [1, 0, 4, 5, 3],
        [2, 1, 0, 5, 5],
        [2, 1, 2, 5, 5],
        [2, 1, 4, 5, 5],
    ]


def test_views_of_a_projection():
    """q, k, v as a model makes them: views of [B, N, 3, H, d]; y comes as [B, N, H, d] in memory."""
    qkv = torch.randn(2, 63, 3, 2, 10, device=DEVICE).requires_grad_()
    dy = torch.randn(2, 2, 63, 10, device=DEVICE)
    results = []
    for attend, dtype in ((taylor_efficient_triton, torch.float32), (taylor_direct, torch.float64)):
        leaf = qkv.detach().to(dtype).requires_grad_()
        y = attend(*leaf.permute(2, 0, 3, 1, 4))
        results.append((y, *torch.autograd.grad(y, leaf, dy.to(dtype))))
    (y, gradient), (expected, expected_gradient) = results
    assert relative_error(y, expected) < TOLERANCE
    assert relative_error(gradient, expected_gradient) < TOLERANCE
    assert y.transpose(1, 2).is_contiguous()


def test_strides_of_every_kind():
    q, k, v, tau, dy = random_inputs((2, 64), 10)
    q = q.detach().mT.contiguous().mT.requires_grad_()  # columns far apart
    dy = torch.ones((), device=DEVICE).expand_as(dy)  # as from y.sum()
    assert_equals_reference((q, k, v, tau, dy))


def test_splits_of_tokens_add_up(monkeypatch):
    inputs = random_inputs((1, 600), 10)
    results = []
    for enough in (1, 10_000):
        monkeypatch.setattr(triton_launch, "_ENOUGH_PROGRAMS", enough)
        results.append(with_gradients(taylor_efficient_triton, *inputs))
    expected = reference(*inputs)
    for result in results:
        assert all(relative_error(result[name], expected[name]) < TOLERANCE for name in expected)
    assert not torch.equal(results[0]["y"], results[1]["y"])  # both ways were taken


def test_runs_are_the_same_bits():
    inputs = random_inputs((1, 2, 111), 15)
    regions = random_regions((1, 111), 2)
    first, second = (
        with_gradients(lambda *qkvt: taylor_efficient_triton(*qkvt, regions), *inputs) for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_zero_rows_and_scales():
    q, k, v, tau, dy = random_inputs((2, 64), 10)
    with torch.no_grad():
        q[:, :5] = 0
        k[:, 3:9] = 0
        q[0, 10:] *= 1e4
        k[1] *= 1e-4
    assert_equals_reference((q, k, v, tau, dy))
    gradients = with_gradients(taylor_efficient_triton, q, k, v, tau, dy)
    assert gradients["dq"][:, :5].abs().max() == 0
    assert gradients["dk"][:, 3:9].abs().max() == 0


def test_float16_survives_large_values_and_gradients():
    q, k, v, tau, dy = random_inputs((1, 64), 10, dtype=torch.float16)
    with torch.no_grad():
        for x in (q, k, v):
            x *= 1e4
    actual = with_gradients(taylor_efficient_triton, q, k, v, tau, dy)
    expected = reference(q, k, v, tau, dy)
    assert all(relative_error(actual[name], expected[name]) < 3e-3 for name in expected)


@pytest.mark.usefixtures("wide_tiles")
@LOW_PRECISION
@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("d", [10, 30])
def test_low_precision_errs_like_plain_pytorch(dtype, temperature, d):
    """The interpreter rounds what the tensor cores of a GPU round."""
    assert_errs_like_plain_pytorch(random_inputs((3, 64), d, dtype=dtype, temperature=temperature))


@pytest.mark.parametrize("regions", [None, 3], ids=["whole", "regions"])
def test_operators_are_registered_soundly(regions):
    q, k, v, tau, dy = random_inputs((2, 1, 20), 3)
    labels = None if regions is None else random_regions((2, 20), regions)
    arguments = (q, k, v, tau, labels, True)
    torch.library.opcheck(triton_operator.taylor_forward, arguments)
    saved = triton_operator.taylor_forward(*arguments)[1:]
    torch.library.opcheck(triton_operator.taylor_backward, (dy, *arguments, *(x.detach() for x in saved)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch.func.jvp itself
@pytest.mark.parametrize("count", [None, 2], ids=["whole", "regions"])
def test_derivatives_of_every_kind(count):
    """Against the direct form: second ones in all four inputs, forward mode, and those of torch.func."""
    q, k, v, tau, _ = random_inputs((1, 2, 4), 3)
    regions = None if count is None else random_regions((1, 4), count)
    mask = None if regions is None else regions[:, None, :, None] == regions[:, None, None, :]
    direction = torch.randn_like(q, generator=torch.Generator(DEVICE).manual_seed(1))

    def derivatives(attend, q, k, v, tau):
        def energy(q, tau=tau):
            return attend(q, k, v, tau).pow(3).sum()

        first = torch.autograd.grad(energy(q), (q, k, v, tau), create_graph=True)
        yield from torch.autograd.grad(sum(x.square().sum() for x in first), (q, k, v, tau))
        yield torch.autograd.functional.hessian(energy, q)
        q, k, v, tau = (x.detach() for x in (q, k, v, tau))
        along = direction.to(q.dtype)
        yield torch.func.jvp(energy, (q,), (along,))[1]
        with torch.autograd.forward_ad.dual_level():
            dual = energy(torch.autograd.forward_ad.make_dual(q, along))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        yield tangent
        yield torch.func.jvp(torch.func.grad(energy), (q,), (along,))[1]
        yield torch.vmap(torch.func.jacfwd(torch.func.grad(energy)))(torch.stack((q, 2 * q)))
        yield from torch.vmap(torch.func.grad(energy, (0, 1)), (None, 1))(q, torch.stack((tau, 2 * tau), 1))

    inputs = (q, k, v, tau)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    actual = derivatives(lambda *qkvt: taylor_efficient_triton(*qkvt, regions), *inputs)
    expected = derivatives(lambda q, k, v, t: taylor_direct(q, k, v, temperature=t, mask=mask), *exact)
    errors = [relative_error(a, b) for a, b in zip(actual, expected, strict=True)]
    assert len(errors) == 11
    assert all(error < 1e-4 for error in errors), errors


def test_vmap_over_regions_is_refused():
    q, k, v, _, _ = (x.detach() for x in random_inputs((1, 4), 3))
    with pytest.raises(NotImplementedError, match=r"vmap over regions .* use the backend 'torch'"):
        torch.vmap(lambda r: taylor_efficient_triton(q, k, v, 1.0, r))(random_regions((2, 4), 2))


def test_compiles_without_graph_breaks():
    inputs = random_inputs((2, 2, 33), 10)
    regions = random_regions((2, 33), 2)

    def attend(q, k, v, tau):
        return 2 * taylor_efficient(q, k, v, temperature=tau, regions=regions, backend="triton")

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    actual, expected = (with_gradients(f, *inputs) for f in (compiled, attend))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_autocast():
    q, k, v, tau, _ = random_inputs((1, 33), 10)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = taylor_efficient_triton(q, k, v, tau)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert q.grad.dtype == torch.float32
    assert relative_error(y, reference(q, k, v, tau, torch.ones_like(v))["y"]) < 2e-2


def test_saved_for_backward_has_no_features():
    """1 window of 2304, 6 heads, d = 30, float32: at most 8 MiB."""
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        q, k, v = (torch.empty(6, 2304, 30, device=DEVICE, requires_grad=True) for _ in range(3))
        taylor_efficient_triton(q, k, v)
    assert 5 << 20 < sum(saved.values()) <= 8 << 20


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.zeros(1, 4, 65), "k": torch.zeros(1, 4, 65)}, ValueError, r"q must be at most 64 wide"),
        ({"v": torch.zeros(1, 4, 70)}, ValueError, r"v must be at most 64 wide .* \[1, 4, 70\]"),
        (
            {n: torch.zeros(1, 4, 3).double() for n in "qkv"},
            TypeError,
            "q must be bfloat16, float16 or float32",
        ),
        ({"temperature": torch.ones(2)}, ValueError, r"temperature must be .* \[H\] = \[1\]"),
        ({"regions": torch.ones(4)}, TypeError, "regions must be an integer tensor"),
        ({"regions": torch.ones(5, dtype=torch.long)}, ValueError, "regions must be labels"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {name: torch.zeros(1, 4, 3) for name in "qkv"} | change
    with pytest.raises(error, match=message):
        taylor_efficient_triton(**arguments)


def test_empty_batch():
    """The gradients are linked: zero for the temperature, empty for the others."""
    for regions in (None, torch.zeros(0, 5, dtype=torch.long, device=DEVICE)):
        x = torch.zeros(0, 2, 5, 10, device=DEVICE, requires_grad=True)
        tau = torch.ones(2, device=DEVICE, requires_grad=True)
        y = taylor_efficient_triton(x, x, x, tau, regions)
        assert y.shape == (0, 2, 5, 10)
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert tau.grad.tolist() == [0, 0]


def test_other_numbers_of_keys():
    """7 queries of 3 or 70 keys, against the sum written out."""
    for keys in (3, 70):
        q, _, _, tau, dy = random_inputs((2, 1, 7), 10)
        _, k, v, _, _ = random_inputs((2, 1, keys), 10, seed=1)

        def written_out(q, k, v, tau):
            x = tau * torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT
            weights = 1 + x + x * x / 2
            return weights @ v / weights.sum(-1, keepdim=True)

        def kernels(q, k, v, tau):
            return triton_operator.taylor_forward(q, k, v, tau, None, True)[0]

        exact = [x.detach().double().requires_grad_() for x in (q, k, v, tau)]
        actual = with_gradients(kernels, q, k, v, tau, dy)
        expected = with_gradients(written_out, *exact, dy.double())
        errors = {name: relative_error(actual[name], expected[name]) for name in expected}
        assert all(error < TOLERANCE for error in errors.values()), errors


@pytest.mark.parametrize("far_axis", [0, 1, 2], ids=["windows", "heads", "tokens"])
def test_offsets_beyond_32_bits(far_axis):
    """A stride of 2^30 numbers, three steps: an offset of 32 bits would wrap to memory that holds zeros.

    Of the 8 GiB that the view spans only the touched pages exist.
    """
    step, center = 1 << 30, 1 << 31
    inputs = random_inputs((3, 3, 3), 4, dtype=torch.float16)
    strides = [36, 12, 4]
    strides[far_axis] = step
    far = []
    for x in (inputs[0], inputs[2], inputs[4]):  # q, v and dy; k stays dense
        memory = torch.empty(center + 2 * step + 128, dtype=torch.float16)
        view = memory.as_strided((3, 3, 3, 4), (*strides, 1), center)
        wrapped = memory.as_strided((3, 3, 4), (36, 12, 1), 0)
        wrapped.zero_()
        view.copy_(x.detach())
        far.append(view)
    q, v, dy = far
    k, tau = inputs[1].detach(), inputs[3].detach()
    near = [x.contiguous() for x in (q, k, v)]
    y, *saved = triton_operator.taylor_forward(q, k, v, tau, None, True)
    expected, *expected_saved = triton_operator.taylor_forward(*near, tau, None, True)
    assert torch.equal(y, expected)
    gradients = triton_operator.taylor_backward(dy, q, k, v, tau, None, True, *saved)
    near = triton_operator.taylor_backward(dy.contiguous(), *near, tau, None, True, *expected_saved)
    assert all(torch.equal(a, b) for a, b in zip(gradients, near, strict=True))


def test_tables_follow_the_labels():
    """Labels without a version, or edited where none is counted, and memory that is given to others."""
    with torch.inference_mode():
        labels = torch.tensor([0, 0, 1, 1], device=DEVICE)
        assert region_tables(labels, 4).order.tolist() == [[0, 1, 2, 3]]
        labels[0] = 2
        assert region_tables(labels, 4).order.tolist() == [[1, 2, 3, 0]]
    with FakeTensorMode():
        counted = torch.zeros(4, dtype=torch.long, device="cuda")
        counted += 1
        assert triton_launch._version(counted) == 1
        with torch.inference_mode():
            assert triton_launch._version(torch.zeros(4, dtype=torch.long, device="cuda")) is None
    labels = torch.tensor([0, 0, 1, 1])
    assert region_tables(labels, 4).segments.shape == (2, 5)
    labels.numpy()[:] = [3, 2, 1, 0]
    assert region_tables(labels, 4).order.tolist() == [[3, 2, 1, 0]]
    for i in range(100):
        fresh = torch.full((4,), 5, device=DEVICE)
        fresh[i % 4] = 0
        assert region_tables(fresh, 4).order[0, 0].item() == i % 4
        del fresh


def test_tables_are_safe_between_threads():
    """More labels than are kept, from 8 threads: each gets its own."""

    def first_row(i: int) -> int:
        labels = torch.ones(30, dtype=torch.long, device=DEVICE)
        labels[i % 30] = 0
        return region_tables(labels, 8).order[0, 0].item()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(first_row, range(400))) == [i % 30 for i in range(400)]


def test_unknown_gpus_are_served_by_the_plain_path(monkeypatch, caplog):
    """One line in the log for each kind of GPU, however often it is asked for."""
    monkeypatch.setattr(triton_launch, "interpreted", lambda: False)
    triton_launch._family_of_target.cache_clear()
    q = torch.zeros(1, 4, 3, device="meta")
    for target, served in (("sm_89", True), ("gfx942", True), ("sm_75", False), ("gfx90a", False)):
        monkeypatch.setattr(triton_launch, "_target", lambda _, target=target: target)
        for _ in range(2):
            family = triton_launch.family_of(torch.device("cuda", 0))
            assert (family in triton_launch.CONFIGS) is served
    assert [record.args for record in caplog.records] == [("sm_75",), ("gfx90a",)]
    assert not triton_operator.supports(q)
    with pytest.raises(ValueError, match=r"got meta; use the backend 'torch'"):
        taylor_efficient_triton(q, q, q)


def test_compiles_for_every_target_without_a_gpu():
    """The compiler takes what the interpreter takes; shared memory and stack stay in bounds.

    A sample; ``python -m taylorir.cost.triton_report`` compiles all.
    """
    code = """
import torch
from taylorir.attention.kernels.triton_launch import FAMILIES
from taylorir.cost.triton_report import SHARED_KIB, compile_report

assert set(SHARED_KIB) == set(FAMILIES)
targets = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "gfx942")
cases = [(target, "moments", 10, torch.bfloat16) for target in targets]
cases += [(target, "pullback", 30, torch.bfloat16) for target in targets]
cases += [("sm_120", "pullback", 30, torch.bfloat16), ("sm_90", "readout", 30, torch.bfloat16)]
cases += [("sm_86", "moments", 64, torch.float32), ("sm_89", "pullback", 64, torch.float32)]
cases += [("gfx942", "readout", 64, torch.float32), ("sm_100", "pullback", 30, torch.float16)]
for target, kernel, d, dtype in cases:
    row = compile_report(kernel, d, target=target, dtype=dtype, regions=True)
    assert row["programs"] >= 1 and row["shared_bytes"] <= 1024 * SHARED_KIB[target], row
    assert row["stack_bytes"] <= 64, row
    assert target != "sm_90" or row["programs"] >= 2, row
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=600)


@pytest.mark.gpu
@GPU
@LOW_PRECISION
@pytest.mark.parametrize(
    ("d", "temperature"), [(10, 1.0), (30, 1.0), (64, 1.0), (10, 5.0), (30, 5.0), (30, 20.0)]
)
@pytest.mark.parametrize("count", [None, 4], ids=["whole", "regions"])
def test_low_precision_on_a_gpu(dtype, d, temperature, count):
    regions = None if count is None else random_regions((2, 2304), count)
    inputs = random_inputs((2, 6, 2304), d, dtype=dtype, temperature=temperature)
    assert_errs_like_plain_pytorch(inputs, regions)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"]
)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_many_tokens_of_any_scale_stay_finite(dtype, scale):
    q, k, v, tau, dy = random_inputs((2, 262144), 30, dtype=dtype)
    with torch.no_grad():
        for x in (q, k, v):
            x *= scale
    result = with_gradients(taylor_efficient_triton, q, k, v, tau, dy)
    assert torch.isfinite(result["y"]).all()
    plain = taylor_efficient(q, k, v, temperature=tau, backend="torch").double()
    assert relative_error(result["y"], plain) < {torch.float32: 1e-4}.get(dtype, 2e-2)


@pytest.mark.gpu
@GPU
def test_compiled_by_inductor_on_a_gpu():
    inputs = random_inputs((2, 2, 111), 30, dtype=torch.bfloat16)
    compiled = torch.compile(lambda *qkvt: taylor_efficient_triton(*qkvt) * 2, fullgraph=True)
    actual = with_gradients(compiled, *inputs)
    expected = with_gradients(lambda *qkvt: taylor_efficient_triton(*qkvt) * 2, *inputs)
    assert all(relative_error(actual[name], expected[name].double()) < 1e-2 for name in expected)
