"""The command line: each mistake of a user is one line and exit code 2; results are whole or absent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import save_file

import taylorir
from taylorir.cli.main import main
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.images.io import read_image, write_image
from taylorir.images.resize import imresize
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from taylorir.networks.weights import load_network
from tests.pictures import noise, png_header

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return end.value.code or 0, output.out, output.err

    return call


@pytest.fixture
def folder(tmp_path):
    """Pictures that are good and bad, and weights that fit and do not."""
    write_image(tmp_path / "good.png", noise(20, 24, 3))
    write_image(tmp_path / "small.png", noise(5, 7, 3))
    write_image(tmp_path / "dot.png", noise(1, 1, 3))
    write_image(tmp_path / "line.png", noise(5000, 1, 3))
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 10_000))
    (tmp_path / "text.png").write_text("this is no picture")
    write_image(tmp_path / "whole.jpg", noise(40, 40, 3))
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    torch.manual_seed(0)
    model = build_model("swinir_tiny_x2")
    save_weights(tmp_path / "tiny.safetensors", model, {})
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    tampered = {name: p.detach().clone() for name, p in model.named_parameters()}
    tampered["conv_first.weight"] = torch.zeros(24, 3, 5, 5)
    header = {"model": json.loads((tmp_path / "tiny.json").read_text())["model"]}
    save_file(tampered, tmp_path / "misfit.safetensors", metadata={"taylorir": json.dumps(header)})
    return tmp_path


# -------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("evaluate swinr_s_x2", "unknown model 'swinr_s_x2'"),
        ("evaluate swinir_m_x8 --upscale 8", "no trained weights for 'swinir_m_x8'"),
        ("evaluate bicubic --dataset Set6", "unknown dataset 'Set6'"),
        ("evaluate bicubic --dataset Set5 --data-root {}", "no images of dataset 'Set5'"),
        ("evaluate bicubic --dataset Set5 --data-root {}/none", "data root is no folder"),
        ("evaluate bicubic --upscale 5", "--upscale must be 1, 2, 3, 4 or 8, not 5"),
        ("evaluate {}/none.safetensors", "no such model file"),
        ("evaluate {}/other.safetensors", "holds no SwinIR: it lacks conv_first.weight"),
        ("evaluate {}/other.pth", "holds no SwinIR"),
        ("evaluate {}/misfit.safetensors", "is of another architecture: conv_first.weight"),
        ("evaluate {}/text.png", "is no weights file that can be read"),
        ("evaluate {}/tiny.safetensors --upscale 4", "upscale 4 was asked of a model that upscales by 2"),
        ("evaluate bicubic --out {}/rows.txt", "must be a .csv file"),
        ("evaluate bicubic --out {}/none/rows.csv", "cannot write {}/none/rows.csv"),
        ("evaluate bicubic --device cuda:77", "--device cuda:77 cannot be used"),
        ("upscale {}/none.png {}/o.png", "no such file: {}/none.png"),
        ("upscale {}/text.png {}/o.png --model bicubic", "text.png is not an image"),
        ("upscale {}/cut.jpg {}/o.png --model bicubic", "cut.jpg is damaged or cut short"),
        ("upscale {}/small.png {}/o.png --model bicubic", "7x5 pixels; at least 8x8"),
        ("upscale {}/dot.png {}/o.png --model bicubic", "1x1 pixels; at least 8x8"),
        ("upscale {}/line.png {}/o.png --model bicubic", "1x5000 pixels; at least 8x8"),
        (
            "upscale {}/bomb.png {}/o.png --model bicubic",
            "more than the limit of 100,000,000 pixels",
        ),
        ("upscale {}/good.png {}/o.png --upscale 5", "not 5"),
        ("upscale {}/good.png {}/o.gif --model bicubic", "the suffix must be one of"),
        ("upscale {}/good.png {}/none/o.png --model bicubic", "cannot write {}/none/o.png"),
        ("upscale {}/good.png {}/good.png --model bicubic", "is the picture itself"),
        ("upscale {}/good.png {}/o.png --model {}/tiny.safetensors --upscale 3", "upscale 3 was asked"),
        ("upscale {}/good.png {}/o.png --model bicubic --memory much", "memory must be a size"),
        ("upscale {}/good.png {}/o.png --model bicubic --tile big", "--tile must be a number"),
        ("upscale {} {} --model bicubic", "give another folder"),
        ("train nothing_x2 --out {}/run", "unknown model 'nothing_x2'"),
        ("train swinir_tiny_x2 --out {}/run --set depht=3", "unknown setting 'depht'"),
        ("train swinir_tiny_x2 --out {}/run --set depth", "--set must be NAME=VALUE"),
        ("train swinir_tiny_x2 --out {}/run --set batch_size=many", "batch_size must be a whole number"),
        ("train swinir_tiny_x2 --out {}/run --num-iters 0", "num_iters must be"),
        ("train swinir_tiny_x2 --out {}/good.png/run", "{}/good.png/run"),
        ("data check", "give a data root"),
        ("data fetch Set6 --data-root {}", "unknown dataset 'Set6'"),
        ("data fetch Set5 --data-root {}", "add --accept-licence"),
        ("evaluate bicubic --wrong", "No such option: --wrong"),
        ("evaluate bicubic --upscale two", "--upscale"),
        ("evaluate", "Missing argument"),
        ("measure", "measure"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(run, folder, monkeypatch, arguments, message):
    monkeypatch.delenv("TAYLORIR_DATA", raising=False)
    before = sorted(folder.rglob("*"))
    code, out, err = run(*arguments.replace("{}", str(folder)).split())
    assert code == 2
    assert err.startswith("taylorir: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert message.replace("{}", str(folder)) in err and "Traceback" not in out + err
    assert sorted(folder.rglob("*")) == before, "nothing may be left behind"


def test_no_permission(run, folder, read_only):
    picture = (folder / "good.png").read_bytes()
    assert run("upscale", folder / "good.png", folder / "o.png", "--model", "bicubic")[0] == 0
    with read_only({"good.png": picture, "benchmarks/Set5/a.png": picture}) as locked:
        for arguments, message in (
            ("upscale {}/good.png {}/o.png --model bicubic", "cannot write {}/o.png"),
            ("upscale {}/benchmarks/Set5 {}/out --model bicubic", "cannot make the folder {}/out"),
            ("evaluate bicubic --dataset Set5 --data-root {} --out {}/r.csv", "cannot write {}/r.csv"),
            ("train swinir_tiny_x2 --out {}/run", "{}/run"),
        ):
            code, _, err = run(*arguments.replace("{}", str(locked)).split())
            expected = message.replace("{}", str(locked))
            assert (code, err) == (2, f"taylorir: error: {expected}: Permission denied\n")
        assert sorted(path.name for path in locked.iterdir()) == ["benchmarks", "good.png"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: ..."),
    ],
)
def test_out_of_memory_is_said(run, folder, monkeypatch, error):
    def exhaust(*_, **__):
        raise error

    monkeypatch.setattr("taylorir.evaluation.files.super_resolved_parts", exhaust)
    code, _, err = run("upscale", folder / "good.png", folder / "o.png", "--model", "bicubic")
    assert code == 2 and err == (
        "taylorir: error: out of memory; try --tile auto with --memory, or a smaller --tile or batch\n"
    )


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch, folder):
    def fail(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("taylorir.evaluation.files.super_resolved_parts", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["upscale", str(folder / "good.png"), str(folder / "o.png"), "--model", "bicubic"])


# ------------------------------------------------------------------------------------------------ commands


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"taylorir {taylorir.__version__}\n"


def test_help_is_quick_because_torch_is_not_imported():
    code = "import sys; from taylorir.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    loaded = "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), 'heavy import'"
    done = subprocess.run([sys.executable, "-c", code + loaded], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("evaluate", "train", "upscale", "benchmark", "data"):
        assert f"\n  {command} " in done.stdout


def test_module_runs_and_fails_like_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "taylorir", "upscale", "no.png", "o.png", "--upscale", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "taylorir: error: --upscale must be 1, 2, 3, 4 or 8, not 5\n"


def test_evaluate_writes_a_row_an_image(run, tmp_path):
    code, out, err = run("evaluate", "bicubic", "--upscale", 4, "--out", tmp_path / "rows.csv", "--quiet")
    assert code == 0 and err == "" and out.startswith("samples_held_out x4: 3 images, PSNR-Y ")
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows.image.tolist() == ["astronaut", "chelsea", "coffee"] and set(rows.upscale) == {4}
    assert f"{rows.psnr_y.mean():.3f} dB" in out


def test_upscale_a_picture(run, folder):
    model = folder / "tiny.safetensors"
    code, out, _ = run("upscale", folder / "good.png", folder / "o.png", "--model", model)
    assert re.search(r"good.png -> .*o.png \(\d+ s, at most [\d,]+ MiB of memory\)\n$", out)
    torch.manual_seed(0)
    expected = super_resolve(build_model("swinir_tiny_x2"), read_image(folder / "good.png"))
    assert code == 0 and np.array_equal(read_image(folder / "o.png"), expected)


def test_upscale_keeps_orientation_transparency_grey_and_profile(run, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels, exif = noise(12, 16, 3), Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif, icc_profile=profile)
    rgba = noise(12, 16, 4)
    rgba[..., 3] |= 1  # what is not seen at all is replaced
    write_image(tmp_path / "clear.png", rgba)
    write_image(tmp_path / "grey.png", rgba[..., 0].copy())
    Image.fromarray(rgba[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    code, out, _ = run("upscale", tmp_path, tmp_path / "out", "--model", "bicubic", "--upscale", 3)
    assert code == 0 and "4 of 4 files upscaled" in out
    assert "bits are reduced" not in out
    with Image.open(tmp_path / "out" / "turned.png") as turned:
        assert turned.info["icc_profile"] == profile and "exif" not in turned.info
        assert np.array_equal(np.array(turned), imresize(np.rot90(pixels).copy(), 3.0))
    with Image.open(tmp_path / "out" / "clear.png") as clear:
        assert np.array_equal(np.array(clear), imresize(rgba, 3.0))
    with Image.open(tmp_path / "out" / "grey.png") as grey:
        assert grey.mode == "L" and np.array_equal(np.array(grey), imresize(rgba[..., 0].copy(), 3.0))
    with Image.open(tmp_path / "out" / "deep.png") as deep:
        expected = imresize(rgba[..., 0].astype(np.uint16) * 257, 3.0)
        assert deep.mode == "I;16" and np.array_equal(np.array(deep), expected)


def test_a_folder_goes_on_after_broken_files_and_reports_them(run, folder, tmp_path):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    code, out, err = run("upscale", folder, tmp_path / "out", "--model", "bicubic", "--suffix", ".webp")
    assert code == 1
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["good.webp", "whole.webp"]
    reported = dict(line.removeprefix("taylorir: ").split(": ", 1) for line in err.splitlines())
    assert set(reported) == {
        "bomb.png", "cut.jpg", "dot.png", "line.png", "small.png", "text.png", "other.pth", "tiny.json",
    }  # fmt: skip
    assert "cut short" in reported["cut.jpg"] and "not an image" in reported["text.png"]
    assert "2 of 10 files upscaled" in out


def test_results_of_the_same_name_do_not_replace_each_other(run, tmp_path):
    write_image(tmp_path / "a.png", noise(9, 9, 3))
    write_image(tmp_path / "a.jpg", noise(9, 9, 3))
    code, _, _ = run("upscale", tmp_path, tmp_path / "out", "--model", "bicubic")
    assert code == 0 and sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a_jpg.png", "a_png.png"]


def test_the_factor_is_the_models_own(run, folder, monkeypatch):
    torch.manual_seed(0)
    save_weights(folder / "three.safetensors", build_model("swinir_tiny_x2", upscale=3), {})
    for arguments, side in (
        (("--model", folder / "three.safetensors"), 72),
        (("--model", folder / "tiny.safetensors"), 48),
        (("--model", "bicubic"), 48),
        (("--model", "bicubic", "--upscale", 4), 96),
    ):
        code, _, _ = run("upscale", folder / "good.png", folder / "o.png", *arguments)
        assert code == 0 and read_image(folder / "o.png").shape[1] == side
    columns = ["psnr_y", "ssim_y", "seconds"]
    monkeypatch.setattr(
        "taylorir.evaluation.evaluate", lambda *_, **__: pd.DataFrame([[1] * 3], columns=columns)
    )
    code, out, _ = run("evaluate", folder / "three.safetensors")
    assert code == 0 and out.startswith("samples_held_out x3: 1 images")


def test_at_x4_the_command_says_what_to_expect(run, folder, monkeypatch):
    monkeypatch.setattr("taylorir.evaluation.files.super_resolved_parts", lambda *_, **__: iter(()))
    for upscale, said in ((4, True), (2, False)):
        code, out, _ = run("upscale", folder / "good.png", folder / "o.png", "--upscale", upscale)
        assert code == 0 and ("\nnote: at x4 this network is " in out) == said


def test_jpeg_cannot_hold_transparency(run, tmp_path):
    write_image(tmp_path / "a.png", noise(9, 9, 4))
    code, _, err = run("upscale", tmp_path / "a.png", tmp_path / "o.jpg", "--model", "bicubic")
    assert code == 2 and "JPEG has no transparency" in err and not (tmp_path / "o.jpg").exists()


def test_train_stops_resumes_and_its_folder_is_a_model(run, tmp_path):
    common = [
        "train",
        "swinir_tiny_x2",
        "--out",
        tmp_path / "run",
        "--num-iters",
        3,
        "--quiet",
        "--deterministic",
    ]
    small = [
        "batch_size=2",
        "crop_size=8",
        "embed_dim=6",
        "depths=(1,)",
        "eval_every=0",
        "checkpoint_every=1",
    ]
    settings = [word for text in small for word in ("--set", text)]
    code, out, _ = run(*common, *settings, "--max-minutes", 1e-9)
    assert code == 0 and "stopped at step 1 of 3" in out
    code, _, err = run(*common, *settings)
    assert code == 2 and "--resume" in err
    code, out, _ = run(*common, *settings, "--resume")
    assert code == 0 and "weights.safetensors: held-out PSNR-Y" in out
    code, out, _ = run("evaluate", tmp_path / "run", "--quiet", "--tile", 48)
    assert code == 0 and "3 images" in out


def test_data_check_and_list(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TAYLORIR_DATA", raising=False)
    folder = tmp_path / "benchmarks" / "Set5"
    folder.mkdir(parents=True)
    write_image(folder / "baby.png", noise(9, 9, 3))
    code, out, _ = run("data", "check", tmp_path, "--out", tmp_path / "verdict.csv")
    assert code == 1 and "Set5: 4 missing, 1 differs" in out and "differs: baby" in out
    assert "Set14: missing" in out
    assert (pd.read_csv(tmp_path / "verdict.csv").status == "differs").sum() == 1
    code, out, _ = run("data", "list", "--data-root", tmp_path)
    assert code == 0 and "Set5: 5 images, 1 here" in out and "Manga109: 109 images" in out


def test_the_sets_and_their_check_as_json(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TAYLORIR_DATA", raising=False)
    (tmp_path / "benchmarks" / "Set5").mkdir(parents=True)
    write_image(tmp_path / "benchmarks" / "Set5" / "baby.png", noise(9, 9, 3))
    code, out, _ = run("data", "list", "--json", "--data-root", tmp_path)
    sets = {row["set"]: row for row in json.loads(out)}
    assert code == 0 and (sets["Set5"]["images"], sets["Set5"]["here"]) == (5, 1)
    assert (sets["samples_held_out"]["here"], sets["Manga109"]["here"]) == (3, 0)
    code, out, _ = run("data", "check", tmp_path, "--json", "--out", tmp_path / "verdict.csv")
    rows = [row for row in json.loads(out) if row["set"] == "Set5"]
    assert code == 1 and {row["image"]: row["status"] for row in rows}["baby"] == "differs"
    assert pd.read_csv(tmp_path / "verdict.csv")["set"].tolist() == [row["set"] for row in json.loads(out)]


def test_ctrl_c_says_that_a_checkpoint_is_saved(run, tmp_path, monkeypatch):
    def interrupted(config, *, out, **_):
        out.mkdir()
        for name in ("step_00000007.json", "step_00000007.safetensors"):
            (out / name).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("taylorir.training.train", interrupted)
    code, _, err = run("train", "swinir_tiny_x2", "--out", tmp_path / "run")
    saved = tmp_path / "run" / "step_00000007.safetensors"
    assert code == 130 and err == f"interrupted; {saved} is saved, go on with --resume\n"


def test_models_are_listed_with_what_is_known_of_them(run):
    code, out, _ = run("models", "--json")
    (one,) = (row for row in json.loads(out) if row["model"] == "swinir_mini_x3_s0")
    assert code == 0
    model = load_network("swinir_mini_x3_s0")
    rows = pd.read_csv(ROOT / "data" / "results" / "quality_mini.csv")
    set5 = rows[(rows["run"] == "swinir_mini_x3_s0") & (rows["set"] == "Set5")]
    assert one["parameters"] == sum(p.numel() for p in model.parameters())
    assert (one["upscale"], one["trained_on"], one["iterations"]) == (3, "BSDS400, T91", 3000)
    assert len(set5) == 5 and one["set5_psnr_y"] == pytest.approx(set5["psnr_y"].sum() / 5, abs=1e-9)
    code, out, _ = run("models")
    assert code == 0 and re.search(r"swinir_mini_x3_s0 +3 +\d+ BSDS400, T91 +3000", out)


def test_rows_as_json_are_those_of_the_csv_file(run, tmp_path):
    code, out, _ = run("evaluate", "bicubic", "--json", "--quiet", "--out", tmp_path / "rows.csv")
    rows = json.loads(out)
    assert code == 0 and pd.DataFrame(rows)["image"].tolist() == ["astronaut", "chelsea", "coffee"]
    pd.testing.assert_frame_equal(pd.DataFrame(rows), pd.read_csv(tmp_path / "rows.csv"))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("taylorir ev", ["evaluate"]),
        ("taylorir evaluate taylorswinir_mini_x3", ["taylorswinir_mini_x3_s0"]),
        ("taylorir evaluate bicubic --dataset Set", ["Set5", "Set14", "Set12"]),
        ("taylorir train swinir_s_x", ["swinir_s_x2", "swinir_s_x3", "swinir_s_x4"]),
        ("taylorir upscale a.png b.png --model swinir_mini_x4", ["swinir_mini_x4_s0"]),
    ],
)
def test_a_shell_completes_names(words, offered):
    environment = {"_TAYLORIR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": ""}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    command = [sys.executable, "-c", "from taylorir.cli.main import main; main()"]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == offered


def test_benchmark_prints_a_row_a_network(run, tmp_path):
    code, out, _ = run(
        "benchmark",
        "time",
        "swinir_tiny_x2",
        "--lr-size",
        16,
        "--seconds",
        0.01,
        "--out",
        tmp_path / "rows.csv",
    )
    assert code == 0 and "swinir_tiny_x2" in out and len(pd.read_csv(tmp_path / "rows.csv")) == 1
