"""Which crops a gallery shows, by rule and never by hand, and what each method makes of them.

``make picture`` calls ``python -m taylorir.experiments.gallery book/_static/upscale.webp 2`` for the README.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from taylorir.datasets import NamedImage, make_pair, sample_split
from taylorir.experiments.growing import FILTERS, LANCZOS, enlarge
from taylorir.images import PEAK, psnr, rgb_to_y
from taylorir.networks import default_model, load_network
from taylorir.report import BELOW_FLOOR, estimate, judge, plot_pictures, save_figure, use_style


class Panel(NamedTuple):
    """One picture of a crop: uint8 ``[size, size, 3]``, its error in grey levels of luma, its PSNR-Y in dB.

    ``error`` and ``psnr_y`` are None for the reference itself and for a picture of another size (LR).
    """

    picture: np.ndarray
    error: np.ndarray | None
    psnr_y: float | None


def rank_crops(
    hr: Mapping[str, np.ndarray],
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    *,
    size: int = 96,
    border: int = 4,
) -> pd.DataFrame:
    """Every crop of a regular grid, ordered by how much the second method gains on the first.

    The rule by which the gallery chooses: no crop is picked by hand. A crop's gain is its PSNR-Y under the
    second method minus that under the first; flat crops, where the smaller error of the two is below one grey
    level of luma, are left out, since there both are right.

    Args:
        hr, first, second: uint8 ``[H, W, 3]`` by image name, equal shapes.
        size: side of the square crops, in HR pixels; the grid's step is half of it.
        border: pixels shaved from the image first (the scale, by convention).

    Returns:
        Columns image, top, left, size, psnr_first, psnr_second, gain (dB), largest gain first.

    Raises:
        ValueError: names or shapes differ, or no image holds a crop.
    """
    if not set(hr) == set(first) == set(second):
        raise ValueError(
            f"the images differ: hr {sorted(hr)}, first {sorted(first)}, second {sorted(second)}"
        )
    rows = []
    for name in hr:
        luma = rgb_to_y(hr[name])
        errors = [(rgb_to_y(images[name]) - luma) ** 2 for images in (first, second)]
        height, width = errors[0].shape
        for top in range(border, height - size - border + 1, size // 2):
            for left in range(border, width - size - border + 1, size // 2):
                window = np.s_[top : top + size, left : left + size]
                mse = [float(error[window].mean()) for error in errors]
                if min(mse) >= 1.0:
                    a, b = (10 * np.log10(PEAK**2 / value) for value in mse)
                    rows.append((name, top, left, size, float(a), float(b), float(b - a)))
    if not rows:
        raise ValueError(f"no image holds a crop of {size}x{size} pixels with an error above one grey level")
    columns = ["image", "top", "left", "size", "psnr_first", "psnr_second", "gain"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(
        ["gain", "image", "top", "left"], ascending=[False, True, True, True], ignore_index=True
    )


def over_seeds(ranked: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The crops that are ranked under every seed, by their mean gain.

    Args:
        ranked: of :func:`rank_crops`, one a seed.

    Returns:
        Columns image, top, left, size, gain (mean over seeds, dB), gain_0, gain_1, ... (of each seed) and
        agree (whether all have the same sign), largest gain first.
    """
    place = ["image", "top", "left", "size"]
    gains = pd.concat({f"gain_{i}": one.set_index(place)["gain"] for i, one in enumerate(ranked)}, axis=1)
    gains = gains.dropna()
    signs = np.sign(gains)
    table = gains.assign(gain=gains.mean(axis=1), agree=signs.eq(signs.iloc[:, 0], axis=0).all(axis=1))
    return table.reset_index().sort_values(
        ["gain", *place[:3]], ascending=[False, True, True, True], ignore_index=True
    )


def judge_crops(ranked: pd.DataFrame, *, planned: int, above_floor: bool) -> pd.Series:
    """The gain over all crops, each image counting as one: it and the seeds are samples.

    Args:
        ranked: of :func:`over_seeds`.
        planned: seeds that were fixed beforehand.
        above_floor: whether all networks surpass the best of what needs no transformer.

    Returns:
        images, seeds and those of :class:`taylorir.report.Estimate` (dB), barred, p_holm and verdict (see
        :func:`taylorir.report.judge`).
    """
    gains = ranked.groupby("image")[list(ranked.filter(regex=r"^gain_\d+$"))].mean().to_numpy()
    images, seeds = gains.shape
    row = {"images": images, "seeds": seeds, "planned": planned, "barred": "" if above_floor else BELOW_FLOOR}
    return judge(pd.DataFrame([row | estimate(gains)._asdict()])).iloc[0]


def pick_both_ways(ranked: pd.DataFrame, count: int = 2) -> pd.DataFrame:
    """The ``count`` crops that gain most, then the ``count`` that lose most; one an image and direction."""
    best = ranked.drop_duplicates("image").head(count)
    worst = ranked.iloc[::-1].drop_duplicates("image").head(count)
    return pd.concat([best, worst], ignore_index=True)


def crop_panels(
    pictures: Mapping[str, np.ndarray], crop: Mapping[str, object], reference: str = "HR"
) -> dict[str, Panel]:
    """One crop under every method.

    Args:
        pictures: uint8 ``[H, W, 3]`` by title, ``reference`` among them; smaller pictures (LR) are
            enlarged by pixel repetition.
        crop: a row of :func:`rank_crops`.
        reference: the title of the true image.

    Raises:
        ValueError: the reference is missing.
    """
    if reference not in pictures:
        raise ValueError(f"pictures have no {reference!r}: {', '.join(pictures)}")
    true = pictures[reference]
    top, left, size = (int(crop[key]) for key in ("top", "left", "size"))
    window = np.s_[top : top + size, left : left + size]
    panels = {}
    for title, picture in pictures.items():
        if picture.shape != true.shape:
            factor = true.shape[0] // picture.shape[0]
            panels[title] = Panel(picture.repeat(factor, axis=0).repeat(factor, axis=1)[window], None, None)
        elif title == reference:
            panels[title] = Panel(picture[window], None, None)
        else:
            error = np.abs(rgb_to_y(picture[window]) - rgb_to_y(true[window]))
            panels[title] = Panel(picture[window], error, psnr(picture[window], true[window]))
    return panels


def upscaled_crop(images: Iterable[NamedImage], upscale: int, *, size: int = 128) -> dict[str, np.ndarray]:
    """What ``taylorir upscale`` makes of a photograph, by title: the crop of median gain over Lanczos.

    Half of all crops (see :func:`rank_crops`) gain more, half gain less.

    Raises:
        ValueError: no weights for the factor, or no image holds a crop.
    """
    pairs = {named.name: make_pair(named.image, upscale) for named in images}
    models = {name: name for name in FILTERS} | {"ours": load_network(default_model(upscale))}
    results = {
        title: {name: enlarge(model, lr, upscale) for name, (lr, _) in pairs.items()}
        for title, model in models.items()
    }
    hr = {name: pair[1] for name, pair in pairs.items()}
    ranked = rank_crops(hr, results[LANCZOS], results["ours"], size=size, border=upscale)
    median = ranked.loc[len(ranked) // 2]
    name = median["image"]
    titles = dict(zip(models, ("bicubic", "Lanczos", "taylorir upscale"), strict=True))
    pictures = {"your picture": pairs[name][0]}
    pictures |= {titles[model]: result[name] for model, result in results.items()}
    panels = crop_panels(pictures | {"the truth": hr[name]}, median, reference="the truth")
    return {
        title if panel.psnr_y is None else f"{title}, {panel.psnr_y:.1f} dB": panel.picture
        for title, panel in panels.items()
    }


def main(target: str, upscale: str) -> None:
    """Write the picture of the README; photographs of scikit-image that no network was trained on."""
    use_style()
    figure = plot_pictures(upscaled_crop(sample_split()[1], int(upscale)))
    figure.set_facecolor("white")
    save_figure(figure, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
