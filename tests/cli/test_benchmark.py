"""A size, a count or a time that is none, and a device that cannot compute, end in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taylorir.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = "benchmark attention --num-tokens 16 --method taylor_direct"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("benchmark time swinir_tiny_x2 --lr-size -5", "--lr-size"),
        ("benchmark time swinir_tiny_x2 --lr-size 16 --window-size 0", "--window-size"),
        ("benchmark time swinir_tiny_x2 --lr-size 16 --seconds -1", "--seconds"),
        ("benchmark time swinir_tiny_x2 --lr-size 16 --longest nan", "--longest"),
        ("benchmark time swinir_tiny_x2 --lr-size 16 --device meta", "--device meta cannot be used here"),
        ("benchmark attention --num-tokens 0", "--num-tokens"),
        (f"{ATTENTION} --num-heads 0", "--num-heads"),
        (f"{ATTENTION} --head-dim 0", "--head-dim"),
        (f"{ATTENTION} --total-tokens 0", "--total-tokens"),
        (f"{ATTENTION} --seconds inf", "--seconds"),
        (f"{ATTENTION} --device meta", "--device meta cannot be used here"),
        ("benchmark memory --lr-size -48", "--lr-size"),
        ("benchmark memory --window-size 0", "--window-size"),
        ("benchmark memory --upscale 0", "upscale: got 0, expected one of 2, 3, 4"),
        ("benchmark memory --jobs 0", "--jobs"),
        ("benchmark limits --jobs -1", "--jobs"),
        ("benchmark validate --limit-gib -2", "--limit-gib"),
        ("evaluate bicubic --device meta", "--device meta cannot be used here"),
        (
            "train swinir_tiny_x2 --out run --device meta",
            "must be auto, cpu, cuda or cuda:N, got 'meta'",
        ),
        ("train swinir_tiny_x2 --out run --device cuda:x", "got 'cuda:x'"),
    ],
)
def test_misuse_of_measurements_is_one_line_and_exit_code_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    output = capsys.readouterr()
    assert end.value.code == 2 and output.out == ""
    assert output.err.startswith("taylorir: error: ") and output.err.count("\n") == 1
    assert message in output.err
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("arguments", ["--bogus", "run --tier none", "run --threads x", "ruin"])
def test_misuse_of_the_experiments_is_one_line_and_exit_code_2(tmp_path, arguments):
    command = [sys.executable, "-m", "taylorir.experiments", *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("taylorir: error: ") and done.stderr.count("\n") == 1
