"""Figures of the chapter on the evaluation protocol. Sees DataFrames, never torch."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure


def plot_choice_effects(effects: pd.DataFrame) -> Figure:
    """Change of PSNR by choice, one bar a choice and scale; its panel on the right enlarges the small ones.

    Args:
        effects: columns choice, upscale, delta_db of one set (see ``evaluation_choices.choice_effects``).
    """
    names = list(dict.fromkeys(effects.choice))
    scales = sorted(set(effects.upscale))
    figure = Figure(figsize=(8.4, 0.42 * len(names) + 1.2))
    left, right = figure.subplots(1, 2, sharey=True)
    thickness = 0.8 / len(scales)
    for i, scale in enumerate(scales):
        values = effects[effects.upscale == scale].set_index("choice").delta_db.reindex(names)
        places = [row + (i - (len(scales) - 1) / 2) * thickness for row in range(len(names))]
        for axes in (left, right):
            axes.barh(
                places, values, thickness, label=f"x{scale}", color=("#0072b2", "#e69f00", "#009e73")[i % 3]
            )
    for axes in (left, right):
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_xlabel("change of PSNR (dB)")
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.invert_yaxis()
    right.set_xlim(-0.05, 0.05)
    right.set_title("enlarged")
    left.legend()
    return figure


def compare_with_published(
    measured: pd.DataFrame, published: pd.DataFrame, model: str = "bicubic"
) -> pd.DataFrame:
    """Set means beside the published ones.

    Args:
        measured: rows, one an image: set, upscale, psnr_y, ssim_y.
        published: rows, one a set: model, set, upscale, psnr_y, ssim_y.
        model: which of the published ones.

    Returns:
        Columns set, upscale, images, psnr_y, ssim_y, psnr_published, ssim_published, psnr_difference,
        ssim_difference; in the order in which the sets are published.
    """
    keys = ["set", "upscale"]
    means = measured.groupby(keys).agg(
        images=("psnr_y", "size"), psnr_y=("psnr_y", "mean"), ssim_y=("ssim_y", "mean")
    )
    stated = published[published.model == model].rename(
        columns={"psnr_y": "psnr_published", "ssim_y": "ssim_published"}
    )
    both = stated[[*keys, "psnr_published", "ssim_published"]].merge(means.reset_index(), on=keys)
    both["psnr_difference"] = both.psnr_y - both.psnr_published
    both["ssim_difference"] = both.ssim_y - both.ssim_published
    return both[[*keys, "images", *both.columns[5:7], "psnr_published", "ssim_published", *both.columns[7:]]]


def published_table(published: pd.DataFrame) -> pd.DataFrame:
    """Published rows, one line a model, training set and scale, one column a set: ``dB / SSIM``.

    Rows without a value, which wait for a holder of the paper, are left out.
    """
    keys = ["model", "training", "upscale"]
    published = published.dropna(subset=["psnr_y", "ssim_y"])
    cells = published.assign(
        cell=[f"{a:.2f} / {b:.4f}" for a, b in zip(published.psnr_y, published.ssim_y, strict=True)]
    )
    order = {model: i for i, model in enumerate(dict.fromkeys(published.model))}
    wide = cells.pivot(index=keys, columns="set", values="cell").reset_index()
    wide = wide[[*keys, *dict.fromkeys(published.set)]]
    wide = wide.sort_values(
        ["upscale", "model", "training"], key=lambda c: c.map(order) if c.name == "model" else c
    )
    return wide.reset_index(drop=True)


def beside_paper(published: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The paper's cells of TaylorSwinIR beside SwinIR's, and its gain beside the one measured here.

    Args:
        published: rows, one a set: model ("TaylorSwinIR", "SwinIR-M"), training, set, upscale, psnr_y and
            ssim_y. Cells of TaylorSwinIR that nobody has typed yet are missing, and so is what follows.
        measured: rows, one an image and training: model ("SwinIR" or "TaylorSwinIR"), set, upscale, psnr_y,
            ssim_y.

    Returns:
        Columns measure, set, upscale, paper, swinir (as published, trained on the same images), gain_paper,
        gain_here (of set means), difference (of the two gains).
    """
    keys = ["set", "upscale"]
    own = published[published.model == "TaylorSwinIR"]
    parts = []
    for measure in ("psnr_y", "ssim_y"):
        stated = published[published.model == "SwinIR-M"].set_index(["training", *keys])[measure]
        here = measured.pivot_table(index=keys, columns="model", values=measure)
        gain_here = (here["TaylorSwinIR"] - here["SwinIR"]).rename("gain_here")
        cells = own[["training", *keys, measure]].rename(columns={measure: "paper"})
        cells = cells.join(stated.rename("swinir"), on=["training", *keys]).join(gain_here, on=keys)
        parts.append(cells.assign(measure=measure))
    cells = pd.concat(parts, ignore_index=True)
    cells["gain_paper"] = cells.paper - cells.swinir
    cells["difference"] = cells.gain_paper - cells.gain_here
    return cells[["measure", *keys, "paper", "swinir", "gain_paper", "gain_here", "difference"]]
