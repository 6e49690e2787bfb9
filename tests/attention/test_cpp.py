"""What is the C++ kernels' own: any layout, threads, precision, the build, the measured crossover."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taylorir.attention import (
    CROSSOVERS,
    build as ahead,
    crossover_flops,
    taylor_attention,
    taylor_direct,
    taylor_efficient,
)
from taylorir.attention.kernels import cpp_operator, forms as chosen
from taylorir.attention.kernels.forms import measured_crossover

ROOT = Path(__file__).resolve().parents[2]
DIRECT, EFFICIENT = 10**9, 0

needs_tiles = pytest.mark.skipif(not cpp_operator.uses_tiles(), reason="no tile unit (AMX)")
needs_kernels = pytest.mark.skipif(not cpp_operator.load(), reason="no C++ compiler")


def inputs(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k, v, dy = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    return [x.to(dtype).requires_grad_() for x in (q, k, v)], dy.to(dtype)


def results(x, dy, **options):
    y = taylor_attention(*x, **options)
    return y.detach(), *torch.autograd.grad(y, x, dy)


@needs_kernels
@pytest.mark.parametrize("crossover", [DIRECT, EFFICIENT], ids=["direct", "efficient"])
@pytest.mark.parametrize("layout", ["heads last", "numbers apart", "every second token"])
def test_any_layout(crossover, layout):
    x, dy = inputs(2, 3, 70, 5)
    expected = results(x, dy, crossover=crossover, backend="cpp")
    laid = {
        "heads last": lambda t: t.detach().transpose(1, 2).contiguous().transpose(1, 2),
        "numbers apart": lambda t: t.detach().mT.contiguous().mT,
        "every second token": lambda t: t.detach().repeat_interleave(2, -2)[..., ::2, :],
    }[layout]
    x, dy = [laid(t).requires_grad_() for t in x], laid(dy)
    torch.testing.assert_close(
        results(x, dy, crossover=crossover, backend="cpp"), expected, rtol=0, atol=1e-15
    )


@needs_kernels
@pytest.mark.parametrize("crossover", [DIRECT, EFFICIENT], ids=["direct", "efficient"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("axes", [(3,), (2, 3), (2, 1, 3)], ids=["one window", "windows", "two axes"])
def test_one_call_without_derivative_gives_what_the_long_way_gives(dtype, axes, crossover):
    x, _ = inputs(*axes, 70, 10, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for temperature in (0.7, torch.tensor([0.5, 1.0, 2.0], dtype=wide)):
        options = {"temperature": temperature, "scale_output": True, "crossover": crossover, "backend": "cpp"}
        expected = taylor_attention(*x, **options)
        found = taylor_attention(*(t.detach() for t in x), **options)
        assert torch.equal(found, expected)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert torch.equal(taylor_attention(*x, **options), expected)


@needs_kernels
@pytest.mark.parametrize("tiles", ["0", "1"], ids=["registers", "tiles where there are"])
@pytest.mark.parametrize("d", [5, 15, 30])
@pytest.mark.parametrize("crossover", [DIRECT, EFFICIENT], ids=["direct", "efficient"])
def test_what_a_thread_keeps_from_a_call_does_not_reach_the_next(crossover, d, tiles, monkeypatch):
    monkeypatch.setenv("TAYLORIR_TILES", tiles)
    x, dy = inputs(1, 2, 70, d, dtype=torch.float32)
    expected = results(x, dy, crossover=crossover, backend="cpp")
    longer = [torch.full((1, 2, 500, d), torch.nan).requires_grad_() for _ in x]
    results(longer, torch.full((1, 2, 500, d), torch.nan), crossover=crossover, backend="cpp")
    found = results(x, dy, crossover=crossover, backend="cpp")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_kernels
@pytest.mark.parametrize("tokens", [600, 1500])
def test_threads_share_a_window_and_repeat_themselves(tokens):
    """Fewer heads than threads: their tokens are cut into parts, and the parts' sums added in one order."""
    x, dy = inputs(1, 1, tokens, 6)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(x, dy, crossover=EFFICIENT, backend="cpp")
        torch.set_num_threads(2)
        both = results(x, dy, crossover=EFFICIENT, backend="cpp")
        again = results(x, dy, crossover=EFFICIENT, backend="cpp")
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(both, again, strict=True))


@needs_kernels
@pytest.mark.parametrize("tiles", ["0", "1"], ids=["registers", "tiles where there are"])
@pytest.mark.parametrize("d", [10, 15, 30, 64])
@pytest.mark.parametrize("crossover", [DIRECT, EFFICIENT], ids=["direct", "efficient"])
def test_float32_errs_no_more_than_plain_pytorch(d, crossover, tiles, monkeypatch):
    monkeypatch.setenv("TAYLORIR_TILES", tiles)
    x, dy = inputs(1, 4, 700, d)
    truth = results(x, dy, crossover=crossover, backend="torch")
    x, dy = [t.detach().float().requires_grad_() for t in x], dy.float()
    errors = {
        backend: [
            float((a - b).norm() / b.norm())
            for a, b in zip(results(x, dy, crossover=crossover, backend=backend), truth, strict=True)
        ]
        for backend in ("cpp", "torch")
    }
    rounded = 2**-24  # of the inputs, which both forms have
    for ours, theirs in zip(errors["cpp"], errors["torch"], strict=True):
        assert ours <= 1.1 * theirs + rounded


@needs_tiles
@pytest.mark.parametrize(
    ("queries", "keys", "d", "d_v"),
    [
        (5, 4, 2, 16),
        (33, 17, 3, 13),
        (64, 96, 16, 16),
        (70, 201, 30, 30),
        (100, 65, 20, 33),
        (40, 80, 64, 70),
    ],
)
def test_tiles_give_what_registers_give(queries, keys, d, d_v, monkeypatch):
    """Numbers of tokens, features and columns that fill no tile, in regions, with a temperature a head."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dy = (
        torch.randn(2, 3, *size, generator=generator)
        for size in ((queries, d), (keys, d), (keys, d_v), (queries, d_v))
    )
    x = [t.requires_grad_() for t in (q, k, v)]
    regions = tuple(torch.randint(3, (2, n), generator=generator) for n in (queries, keys))
    temperature = torch.tensor([0.5, 1.0, 2.0])
    for options in ({}, {"regions": regions}):
        found = {}
        for tiles in "01":
            monkeypatch.setenv("TAYLORIR_TILES", tiles)
            assert cpp_operator.uses_tiles() == (tiles == "1")
            found[tiles] = results(
                x, dy, temperature=temperature, crossover=EFFICIENT, backend="cpp", **options
            )
        for ours, theirs in zip(found["1"], found["0"], strict=True):
            assert not torch.equal(ours, theirs)  # sums were taken another way
            torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-6 * float(theirs.abs().max()))


@needs_tiles
def test_nan_stays_in_its_region():
    """Behind the last token of a small region the memory holds what a large one before it has left."""
    x, dy = inputs(1, 1, 69, 20, dtype=torch.float32)
    options = {"regions": torch.tensor([0] * 64 + [1] * 5), "crossover": EFFICIENT, "backend": "cpp"}
    clean = results(x, dy, **options)
    spoilt = [t.detach().clone() for t in x]
    for t in spoilt:
        t[:, :, :64] = torch.nan
    found = results([t.requires_grad_() for t in spoilt], dy, **options)
    for ours, theirs in zip(found, clean, strict=True):
        assert ours[:, :, :64].isnan().all()
        assert torch.equal(ours[:, :, 64:], theirs[:, :, 64:])


def test_without_a_compiler_plain_pytorch_serves_and_says_so_once(tmp_path):
    code = """
import logging, torch
logging.basicConfig(format="%(message)s")
from taylorir.attention import taylor_attention, taylor_direct
x = torch.randn(3, 1, 2, 40, 4, dtype=torch.float64)
for _ in range(2):
    torch.testing.assert_close(taylor_attention(*x), taylor_direct(*x), rtol=0, atol=1e-12)
try:
    taylor_attention(*x, backend="cpp")
except ValueError as error:
    print(error)
"""
    environment = os.environ | {"CXX": "no-such-compiler", "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    environment.pop("TAYLORIR_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("plain PyTorch serves: no C++ compiler: no-such-compiler") == 1
    assert "backend 'cpp' needs a C++ compiler" in done.stdout


def test_a_wrong_name_of_the_variable_is_named(monkeypatch):
    monkeypatch.setenv("TAYLORIR_BACKEND", "fast")
    with pytest.raises(ValueError, match="TAYLORIR_BACKEND must be 'torch' or 'cpp', got 'fast'"):
        taylor_efficient(*torch.zeros(3, 1, 4, 2))


@needs_kernels
def test_a_build_that_was_killed_is_made_anew(tmp_path, monkeypatch, caplog):
    made = []

    def load(name, sources, *, build_directory, **options):
        made.append(Path(build_directory))
        (made[-1] / f"{name}.so").write_bytes(b"")

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr("torch.utils.cpp_extension.load", load)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    with caplog.at_level(logging.WARNING):
        library = cpp_operator.build()
        library.unlink()
        (made[0] / "lock").touch()  # what torch's loader would wait for
        assert cpp_operator.build() == library and library.is_file()
        cpp_operator.build()
    assert len(made) == 2 and not (made[1] / "lock").exists()
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "building the C++ kernels of attention"
    ] * 2


def test_building_ahead_says_where_or_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ahead, "build", lambda verbose: tmp_path / "kernels.so")
    ahead.main()
    assert capsys.readouterr().out == f"{tmp_path / 'kernels.so'}\n"

    def fails(verbose):
        raise RuntimeError("no compiler\nc++: not found")

    monkeypatch.setattr(ahead, "build", fails)
    with pytest.raises(SystemExit, match=r"^taylorir: error: no compiler \(--verbose shows all\)$"):
        ahead.main()


def test_the_crossover_is_read_from_a_table(tmp_path, monkeypatch):
    table = tmp_path / "crossovers.csv"
    table.write_text("head_dim,num_tokens\n16,400\n4,10\n", encoding="utf-8")
    monkeypatch.setenv("TAYLORIR_CROSSOVERS", str(table))
    assert measured_crossover(4) == 10
    assert measured_crossover(8) == pytest.approx((10 * 400) ** 0.5)  # 8 is half way from 4 to 16
    assert measured_crossover(2) == pytest.approx(10 * 7 / 21)
    assert measured_crossover(32) == pytest.approx(400 * 1057 / 273)

    q = torch.zeros(1, 1, 399, 16)
    forms = chosen.FORMS["cpp"]
    assert chosen.cheaper_form(q, q, None, "cpp") is forms[0]
    assert chosen.cheaper_form(q, torch.zeros(1, 1, 402, 16), None, "cpp") is forms[1]
    assert chosen.cheaper_form(q, q, None) is chosen.EFFICIENT  # N0 of 16 is 273


@pytest.mark.parametrize("tiles", [False, True])
def test_the_crossover_is_that_of_the_unit_in_use(tiles, tmp_path, monkeypatch):
    table = tmp_path / "crossovers.csv"
    table.write_text("head_dim,tiles,num_tokens\n4,False,10\n4,True,8\n")
    monkeypatch.setenv("TAYLORIR_CROSSOVERS", str(table))
    monkeypatch.setattr(cpp_operator, "uses_tiles", lambda: tiles)
    assert measured_crossover(4) == (8 if tiles else 10)


@pytest.mark.parametrize("tiles", [False, True])
def test_the_table_in_use_has_the_networks_widths_below_the_counted_crossover(tiles, monkeypatch):
    assert CROSSOVERS.is_file()
    monkeypatch.setattr(cpp_operator, "uses_tiles", lambda: tiles)
    for d in (10, 15, 30):
        assert d < measured_crossover(d) < crossover_flops(d)


@needs_kernels
def test_labels_without_partners():
    """Queries of a label that no key has get 0; keys that no query has get no gradient."""
    x, dy = inputs(1, 2, 6, 3)
    queries, keys = torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.tensor([[1, 3, 1, 0, 3, 0]])
    for crossover in (DIRECT, EFFICIENT):
        y, dq, dk, dv = results(x, dy, regions=(queries, keys), crossover=crossover, backend="cpp")
        mask = queries[..., None, :, None] == keys[..., None, None, :]
        torch.testing.assert_close(y, taylor_direct(*x, mask=mask).detach(), rtol=0, atol=1e-14)
        assert not y[:, :, 4:].any() and not dq[:, :, 4:].any()
        assert not dk[:, :, [1, 4]].any() and not dv[:, :, [1, 4]].any() and dv[:, :, 0].any()
