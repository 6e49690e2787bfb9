"""The rows of error against float64: that they measure what they say, on cases whose answer is known."""

import math

import pandas as pd
import pytest
import torch

from taylorir.attention import taylor_direct
from taylorir.fidelity import numerics


@pytest.mark.parametrize("form", numerics.FORMS)
def test_forms_agree_in_float64(form):
    q, k, v = torch.randn(3, 1, 2, 63, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(numerics.FORMS[form](q, k, v), taylor_direct(q, k, v), rtol=0, atol=1e-12)


def test_relative_error_by_hand():
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert numerics.relative_error(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert numerics.relative_error(torch.tensor([3.0, math.nan]), expected) == math.inf


def test_error_rows():
    rows = numerics.error_rows([16, 63], num_heads=1, quadratic_up_to=16, gradients_up_to=16)
    assert set(rows.form[rows.num_tokens == 16]) == set(numerics.FORMS)
    assert set(rows.form[rows.num_tokens == 63]) == {"efficient"}
    assert set(rows.quantity[rows.num_tokens == 16]) == {"output", "gradient"}
    assert set(rows.quantity[rows.num_tokens == 63]) == {"output"}
    worst = rows.groupby("dtype").error.max()
    assert worst["float32"] < 1e-5 < worst["float16"] < worst["bfloat16"] < 0.1
    with pytest.raises(ValueError, match="form: got 'fast'"):
        numerics.error_rows([16], forms=("fast",))
    with pytest.raises(ValueError, match="dtype: got 'float8'"):
        numerics.error_rows([16], dtypes=("float8",))


def test_range_rows_find_where_float16_gives_out():
    rows = numerics.range_rows([1e-8, 1e4, 1e8], num_tokens=64, num_heads=1)
    half = (
        rows[(rows["dtype"] == "float16") & (rows.quantity == "scale of v")]
        .set_index(["form", "scale"])
        .error
    )
    assert half["naive efficient", 1e4] == math.inf  # the sum of 64 values of 10^4 passes 65504
    assert half["efficient", 1e4] < 1e-3
    assert (rows.scale[rows["dtype"] == "float16"] < 1e8).all()  # such inputs are no numbers of float16
    assert (rows.error[rows["dtype"] == "float32"] < 1e-5).all()


def test_command_writes_rows(tmp_path):
    path = tmp_path / "rows.csv"
    numerics.main([str(path), "--num-tokens", "32"])
    rows = pd.read_csv(path)
    assert rows[["form", "num_tokens"]].drop_duplicates().values.tolist() == [
        ["direct", 32],
        ["efficient", 32],
    ]
    assert set(rows["dtype"]) == set(numerics.DTYPES)
