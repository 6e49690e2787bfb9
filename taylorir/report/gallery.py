"""Pictures that a reader can judge: a crop under every method with its error map, and an offline slider."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image


def plot_crop(panels: Mapping[str, tuple[np.ndarray, np.ndarray | None, float | None]]) -> Figure:
    """One crop under every method, each with its PSNR-Y, above its error map.

    Args:
        panels: by title a picture, its error in grey levels of luma or None, its PSNR-Y or None, as
            ``taylorir.experiments.crop_panels`` gives them.
    """
    figure = Figure(figsize=(2.1 * len(panels), 4.6), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False)
    largest = max((float(error.max()) for _, error, _ in panels.values() if error is not None), default=1.0)
    image = None
    for (title, (picture, error, psnr_y)), column in zip(panels.items(), grid.T, strict=True):
        for axes in column:
            axes.set_axis_off()
        column[0].imshow(picture)
        name = title if psnr_y is None else f"{title}\n{psnr_y:.2f} dB"
        column[0].set_title(name, fontsize=10, loc="center", weight="normal")
        if error is not None:
            image = column[1].imshow(error, cmap="magma", vmin=0, vmax=largest)
    if image is not None:
        scale = grid[1, -1].inset_axes((0.05, 0.05, 0.08, 0.9))
        figure.colorbar(image, cax=scale, label="error, grey levels of Y")
    return figure


def plot_gains(gains: pd.DataFrame) -> Figure:
    """Mean gain with its interval, one line a degradation; without one where a seed is alone.

    Args:
        gains: columns degradation, difference, low, high, in dB.
    """
    figure = Figure(figsize=(7.2, 0.32 * len(gains) + 1.0))
    axes = figure.subplots()
    places = np.arange(len(gains))[::-1]
    spread = np.abs(gains[["low", "high"]].to_numpy().T - gains["difference"].to_numpy())
    axes.errorbar(gains["difference"], places, xerr=spread, fmt="o", color="#D55E00", capsize=3)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(places, gains["degradation"])
    axes.set(xlabel="gain of TaylorSwinIR over SwinIR, dB PSNR-Y")
    return figure


def plot_gain_distribution(ranked: pd.DataFrame) -> Figure:
    """How often which gain occurs.

    Args:
        ranked: a column gain in dB, one row a crop.
    """
    figure = Figure(figsize=(7.2, 2.8))
    axes = figure.subplots()
    axes.hist(ranked["gain"], bins=40, color="#D55E00")
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set(xlabel="gain of TaylorSwinIR over SwinIR, dB PSNR-Y", ylabel="crops")
    return figure


class Slider:
    """Two pictures in one frame with a movable edge: an HTML range input, so keyboard and touch work."""

    def __init__(self, before: np.ndarray, after: np.ndarray, *, labels: tuple[str, str], alt: str) -> None:
        """Args: two uint8 ``[H, W, 3]`` of equal shape, their names, and one sentence that says what is seen.

        Raises:
            ValueError: the shapes differ.
        """
        if before.shape != after.shape:
            raise ValueError(f"the pictures differ in shape: {list(before.shape)} and {list(after.shape)}")
        self.before, self.after, self.labels, self.alt = before, after, labels, alt

    def _repr_html_(self) -> str:
        left, right = (html.escape(label) for label in self.labels)
        alt = html.escape(self.alt, quote=True)
        height, width = self.before.shape[:2]
        move = "this.closest('figure').style.setProperty('--edge', this.value + '%')"
        return (
            f"<style>{_STYLE}</style>"
            f'<figure class="tir-slider" style="--edge:50%;max-width:max({width}px, 16rem)">'
            f'<div class="tir-slider-frame" style="aspect-ratio:{width}/{height}">'
            f'<img src="{_data_uri(self.after)}" alt="{alt} ({right})">'
            f'<img class="tir-slider-top" src="{_data_uri(self.before)}" alt="{alt} ({left})">'
            '<span class="tir-slider-edge" aria-hidden="true"></span>'
            f'<input type="range" min="0" max="100" value="50" step="1" oninput="{move}" '
            f'aria-label="Edge between {left} and {right}, in percent of the width">'
            f"</div><figcaption><span>{left}</span><span>{right}</span></figcaption></figure>"
        )

    def __repr__(self) -> str:
        return f"Slider: {self.labels[0]} | {self.labels[1]}. {self.alt}"


_STYLE = """
.tir-slider { margin: 1rem auto; }
.tir-slider-frame { position: relative; overflow: hidden; border-radius: 6px; }
.tir-slider-frame > * { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none; }
figure.tir-slider .tir-slider-frame > img {
  width: 100%; height: 100%; margin: 0; padding: 0 !important; border-radius: 0;
}
.tir-slider-frame > .tir-slider-top { clip-path: inset(0 calc(100% - var(--edge)) 0 0); }
.tir-slider-frame > .tir-slider-edge {
  left: var(--edge); width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 4px #000;
}
.tir-slider-frame > input { opacity: 0; cursor: ew-resize; touch-action: pan-y; }
.tir-slider-frame:focus-within { outline: 3px solid #0072B2; outline-offset: 2px; }
.tir-slider figcaption { display: flex; justify-content: space-between; gap: 1em; font-size: 0.85em; }
.tir-slider figcaption > span { font-weight: 400; }
"""


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
