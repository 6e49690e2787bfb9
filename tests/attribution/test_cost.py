"""The cost of a map is that of a process of its own: what this one holds does not count."""

import pandas as pd
from typer.testing import CliRunner

from taylorir.attribution import cost as attribution_cost
from taylorir.evaluation.memory_limit import peak_resident_memory


def test_each_network_is_measured_in_a_fresh_process(tmp_path):
    ballast = bytearray(b"x" * 2**29)  # 512 MiB, which ru_maxrss would hand on
    here = peak_resident_memory() / 2**20
    app = attribution_cost.typer.Typer()
    app.command()(attribution_cost._main)
    out = tmp_path / "cost.csv"
    arguments = [
        "swinir_tiny_x2",
        "taylorswinir_tiny_x2",
        "--lr-size",
        "16",
        "--fold",
        "2",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(out, keep_default_na=False)
    assert rows.network.tolist() == ["swinir_tiny_x2", "taylorswinir_tiny_x2"]
    assert rows.softmax_backend.tolist() == ["fused", ""] and set(rows.fold) == {2}
    assert (rows.seconds > 0).all() and (rows.cpu_seconds > 0).all()
    assert len(ballast) == 2**29 and (rows.peak_resident_mib < here - 300).all()
