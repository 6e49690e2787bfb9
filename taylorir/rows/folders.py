"""Where the committed data lies: the manifest, the rows measured, the weights trained here."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
#: The folder ``data``: within an installed package, beside it in a checkout.
DATA_FOLDER = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent / "data"
#: Measured rows, one CSV file a question.
RESULTS_FOLDER = DATA_FOLDER / "results"
#: Networks that were trained here: ``NAME.safetensors`` and ``NAME.json``.
WEIGHTS_FOLDER = DATA_FOLDER / "weights"
