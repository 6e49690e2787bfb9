"""Where the committed data lies: the manifest, the rows measured, the weights trained here."""

from __future__ import annotations

from pathlib import Path

#: The folder ``data`` of a checkout.
DATA_FOLDER = Path(__file__).resolve().parents[2] / "data"
#: Measured rows, one CSV file a question.
RESULTS_FOLDER = DATA_FOLDER / "results"
#: Networks that were trained here: ``NAME.safetensors`` and ``NAME.json``.
WEIGHTS_FOLDER = DATA_FOLDER / "weights"
