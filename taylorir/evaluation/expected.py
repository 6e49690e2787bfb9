"""What to expect of a network on a picture, from the rows that were measured with it."""

from __future__ import annotations

from pathlib import Path

from taylorir.evaluation.stored import quality_rows
from taylorir.rows import RESULTS_FOLDER, read_rows

PUBLISHED = "SwinIR-S"


def expectation(run: str, upscale: int, folder: Path = RESULTS_FOLDER) -> str | None:
    """How far a stored network is above bicubic, beside a published one: says how much detail to hope for.

    Args:
        run: name of the stored weights, as in the column ``run`` of the rows of trained networks.
        upscale: s.
        folder: of the rows.

    Returns:
        One line with means over the sets, or None where nothing was measured with these weights, or the rows
        are not here.
    """
    try:
        bicubic, published = (read_rows(folder / name) for name in ("bicubic.csv", "published.csv"))
    except FileNotFoundError:
        return None
    measured = quality_rows(folder)
    pairs = measured[(measured["run"] == run) & (measured["upscale"] == upscale)].merge(
        bicubic, on=["set", "image", "upscale"], suffixes=("", "_bicubic")
    )
    published = published[published["upscale"] == upscale].set_index(["set", "model"])["psnr_y"]
    gains = {}
    for name, rows in pairs.groupby("set"):
        if (name, PUBLISHED) in published.index and (name, "bicubic") in published.index:
            theirs = published[name, PUBLISHED].mean() - published[name, "bicubic"].mean()
            gains[name] = ((rows["psnr_y"] - rows["psnr_y_bicubic"]).mean(), theirs)
    if not gains:
        return None
    ours, theirs = (sum(values) / len(gains) for values in zip(*gains.values(), strict=True))
    return (
        f"at x{upscale} this network is {ours:.2f} dB above bicubic ({', '.join(gains)}), "
        f"the published {PUBLISHED} {theirs:.2f} dB"
        + ("; expect soft detail and steps along slanted edges" if ours < theirs / 2 else "")
    )
