"""A card beside each stored network: what it is, was trained on, and reaches; from its record and the rows.

``python -m taylorir.evaluation.cards`` writes those of ``data/weights``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from taylorir.datasets import read_manifest
from taylorir.evaluation.expected import expectation
from taylorir.evaluation.stored import quality_rows, stored_models, stored_record
from taylorir.rows import WEIGHTS_FOLDER, read_rows, write_atomic

_CARD = """\
---
license: apache-2.0
library_name: taylorir
pipeline_tag: image-to-image
tags: [{tag}, {family}]
metrics: [psnr, ssim]
---

# {name}

{title}: {purpose}, {parameters:,} learned numbers, {attention}
within windows of {window} x {window} tokens, position {position}.

```python
import taylorir

{result} = taylorir.upscale("photo.jpg", {upscale}, model="{name}")
```

## Training

{iterations:,} steps of {batch_size} crop(s) of {crop_size} x {crop_size} {pixels}, seed {seed},
{cpu_minutes:.1f} minutes of processor time on {device}, {date}, commit {commit}.
Images: {datasets}. {made}

## Measured

{measured}

{how}{expectation}

## Limits

{knows},
and saw few steps of training: it stands for a comparison at equal budget, not for the best that its
architecture can do.

## Licence

The weights are under Apache-2.0, as the code. Of the images that they learned from:

{licences}
"""
_ENLARGES = {
    "tag": "super-resolution",
    "purpose": "super-resolution by a factor of {upscale}",
    "result": "large",
    "pixels": "LR pixels",
    "made": "LR images by MATLAB's bicubic.",
    "how": "PSNR and SSIM on luma, border shaved.",
    "knows": "It knows images that were made small by bicubic, without noise, blur or compression",
}
_RESTORES = {
    "tag": "image-restoration",
    "purpose": "restoration of pictures after `{degradation}`, at their size",
    "result": "clean",
    "pixels": "pixels",
    "made": "Degraded by `{degradation}`, a name of `taylorir.images.degrade`.",
    "how": "PSNR and SSIM on luma.",
    "knows": "It knows pictures after `{degradation}`, of that strength and nothing else",
}


def model_card(weights: Path) -> str:
    """The card of a weights file of this package, in the Markdown that the Hugging Face Hub reads.

    Raises:
        ValueError: the file does not say how it was trained.
    """
    record = stored_record(weights)
    model, training = record["model"], record["train"]
    known = stored_models(weights.parent).set_index("model").loc[weights.stem]
    family = "taylorswinir" if model["attention"] == "taylor" else "swinir"
    licences = {entry.name: entry.licence for entry in read_manifest()}
    upscale, degradation = model["upscale"], training.get("degradation", "none")
    hint = expectation(weights.stem, upscale)
    texts = {
        name: text.format(upscale=upscale, degradation=degradation)
        for name, text in (_ENLARGES if upscale > 1 else _RESTORES).items()
    }
    return _CARD.format(
        **texts,
        name=weights.stem,
        family=family,
        title="TaylorSwinIR" if family == "taylorswinir" else "SwinIR",
        upscale=upscale,
        parameters=known.parameters,
        attention="TaylorShift attention" if family == "taylorswinir" else "softmax attention",
        window=model["window_size"],
        position=model["position"],
        iterations=record["step"],
        batch_size=training["batch_size"],
        crop_size=training["crop_size"],
        seed=record["seed"],
        cpu_minutes=record["cpu_seconds"] / 60,
        device=record["device"],
        date=record["date"],
        commit=record["commit"],
        datasets=", ".join(training["datasets"]),
        measured=_measured(weights.stem, upscale, degradation),
        expectation=f" {hint[0].upper()}{hint[1:]}." if hint else "",
        licences="\n".join(f"* {name}: {licences[name].rstrip('.')}." for name in training["datasets"]),
    )


def _measured(run: str, upscale: int, degradation: str) -> str:
    """A Markdown table of the means over each set, beside bicubic, or the input where nothing is enlarged."""
    keys = ["set", "image"]
    if upscale > 1:
        other, without = "bicubic", read_rows("bicubic.csv").query("upscale == @upscale")
    else:
        other, without = "the input", read_rows("restoration_input.csv").query("degradation == @degradation")
    rows = quality_rows().query("run == @run and upscale == @upscale")
    rows = rows.merge(without[[*keys, "psnr_y"]], on=keys, suffixes=("", "_without"))
    means = rows.groupby("set", sort=False).agg(
        images=("image", "size"),
        psnr_y=("psnr_y", "mean"),
        ssim_y=("ssim_y", "mean"),
        without=("psnr_y_without", "mean"),
    )
    if means.empty:
        return "Not measured on a benchmark set."
    lines = [f"| set | images | PSNR-Y, dB | SSIM-Y | PSNR-Y of {other}, dB |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.Index} | {row.images} | {row.psnr_y:.2f} | {row.ssim_y:.4f} | {row.without:.2f} |"
        for row in means.itertuples()
    ]
    return "\n".join(lines)


def write_cards(folder: Path = WEIGHTS_FOLDER) -> list[Path]:
    """Write the card of each weights file of a folder beside it; their paths."""
    cards = []
    for weights in sorted(folder.glob("*.safetensors")):
        content = model_card(weights).encode()
        cards.append(weights.with_suffix(".md"))
        write_atomic(cards[-1], lambda file, content=content: file.write(content))
    return cards


if __name__ == "__main__":
    sys.exit(print(*write_cards(), sep="\n"))
