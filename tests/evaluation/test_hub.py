"""Cards and the Hub: a stored network as others find it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from taylorir.evaluation import from_pretrained, push_to_hub, save_pretrained
from taylorir.evaluation.cards import model_card
from taylorir.networks import load_network
from taylorir.rows import RESULTS_FOLDER, WEIGHTS_FOLDER, read_rows

NAME = "swinir_mini_x3_s0"


@pytest.mark.parametrize("card", sorted(WEIGHTS_FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_the_card_beside_weights_says_what_is_known_of_them(card):
    """Made by ``python -m taylorir.evaluation.cards``."""
    assert card.read_text(encoding="utf-8") == model_card(card.with_suffix(".safetensors"))


def test_a_card_of_restoration_says_what_is_undone_and_stands_beside_the_input():
    card = (WEIGHTS_FOLDER / "swinir_denoise_mini_s0.md").read_text()
    assert "restoration of pictures after `noise25`, at their size" in card
    assert "bicubic" not in card and "by a factor of" not in card
    given, made = (
        rows[rows["set"] == "Set5"].psnr_y.mean()
        for rows in (
            read_rows("restoration_input.csv").query("task == 'denoise'"),
            read_rows("quality_restoration.csv").query("run == 'swinir_denoise_mini_s0'"),
        )
    )
    (row,) = (line for line in card.splitlines() if line.startswith("| Set5 "))
    assert row.split(" | ")[2] == f"{made:.2f}" and row.endswith(f" {given:.2f} |")


def test_a_card_has_the_numbers_of_the_rows_and_of_the_training():
    card = (WEIGHTS_FOLDER / f"{NAME}.md").read_text()
    rows = pd.read_csv(RESULTS_FOLDER / "quality_mini.csv").query("run == @NAME and set == 'Set5'")
    assert f"| Set5 | 5 | {rows.psnr_y.sum() / 5:.2f} | {rows.ssim_y.sum() / 5:.4f} |" in card
    assert "super-resolution by a factor of 3, 47,139 learned numbers, softmax attention" in card
    assert "3,000 steps of 1 crop" in card and "* T91: MIT for the repository" in card
    assert card.startswith("---\nlicense: apache-2.0\n")


def test_what_is_saved_for_the_hub_is_loaded_from_there(tmp_path):
    folder = save_pretrained(NAME, tmp_path / "repository")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["model"]["upscale"] == 3
    model, lr = from_pretrained(folder), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(lr), load_network(NAME)(lr))
    with pytest.raises(FileNotFoundError, match="there are no weights nothing_x2"):
        save_pretrained("nothing_x2", tmp_path)


def test_the_hub_is_asked_for_weights_and_given_the_folder(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    told = {}

    class Api:
        def create_repo(self, repository, **options):
            told["repository"] = (repository, options)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            told["files"] = {path.name for path in Path(folder_path).iterdir()}
            save_pretrained(NAME, tmp_path)
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(
        hub, "snapshot_download", lambda *asked, **options: told.update(asked=asked) or tmp_path
    )
    assert push_to_hub(NAME, "me/net", private=True) == "https://hub/me/net"
    assert told["repository"] == ("me/net", {"private": True, "exist_ok": True})
    assert told["files"] == {"README.md", "config.json", "model.safetensors"}
    assert from_pretrained("me/net").config.upscale == 3 and told["asked"] == ("me/net",)
