"""``taylorir models``: the networks whose weights are here."""

from __future__ import annotations

from taylorir.cli.output import AsJson, print_json, print_table


def list_models(as_json: AsJson = False) -> None:
    """The networks whose weights are here: factor, size, training, PSNR on Set5."""
    from taylorir.evaluation import stored_models

    rows = stored_models()
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def complete_model(incomplete: str) -> list[str]:
    """Names that a shell offers where a network is asked for."""
    from taylorir.rows import WEIGHTS_FOLDER

    stored = (path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors"))
    return [name for name in ("bicubic", *sorted(stored)) if name.startswith(incomplete)]


def complete_variant(incomplete: str) -> list[str]:
    """Names that a shell offers where a network to train is asked for."""
    from taylorir.networks import VARIANTS

    return [name for name in VARIANTS if name.startswith(incomplete)]


def complete_dataset(incomplete: str) -> list[str]:
    """Names that a shell offers where an image set is asked for."""
    from taylorir.datasets import SAMPLE_SETS, read_manifest

    names = (*SAMPLE_SETS, *(entry.name for entry in read_manifest()))
    return [name for name in names if name.startswith(incomplete)]
