"""The stored networks on the Hugging Face Hub: weights, their record and their card in one folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from taylorir.evaluation.cards import model_card
from taylorir.networks import load_network
from taylorir.rows import WEIGHTS_FOLDER

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS = "model.safetensors"  # as the Hub's own libraries name it


def from_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, device: str | torch.device = "cpu"
) -> nn.Module:
    """A network from the Hub, or from a folder as :func:`save_pretrained` writes it, in evaluation mode.

    Args:
        source: "owner/name" on the Hub, or a folder.
        revision: branch, tag or commit on the Hub.
        device: where the network shall live.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: what is there are no weights.
        ModuleNotFoundError: the Hub is asked and ``huggingface_hub`` is missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(os.fspath(source), revision=revision, allow_patterns=[WEIGHTS]))
    return load_network(folder / WEIGHTS, device=device)


def save_pretrained(name: str, folder: str | os.PathLike[str]) -> Path:
    """Lay a stored network out as a repository of the Hub: weights, ``config.json``, the card as README.

    Raises:
        FileNotFoundError: there are no weights of this name in ``data/weights``.
    """
    weights, folder = WEIGHTS_FOLDER / f"{name}.safetensors", Path(folder)
    if not weights.is_file():
        raise FileNotFoundError(f"there are no weights {name} in {WEIGHTS_FOLDER}")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    shutil.copyfile(weights.with_suffix(".json"), folder / "config.json")
    (folder / "README.md").write_text(model_card(weights), encoding="utf-8")
    return folder


def push_to_hub(name: str, repository: str, *, private: bool = False) -> str:
    """Publish a stored network; the address of the commit.

    Args:
        name: of weights in ``data/weights``.
        repository: "owner/name"; made when missing. The login is that of ``hf auth login``.
        private: of a repository that is made.

    Raises:
        FileNotFoundError: there are no weights of this name.
        ModuleNotFoundError: ``huggingface_hub`` is missing.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(name, folder)
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Upload {name}")
    return commit.commit_url
