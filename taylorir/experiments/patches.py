"""What a token is, three ways: quality and memory of the mid tier's networks by the pixels of a token."""

from __future__ import annotations

import pandas as pd

from taylorir.cost import memory_of
from taylorir.experiments.plan import SETS
from taylorir.experiments.protocol import find_run
from taylorir.experiments.protocol_mid import BUDGETS, seeds_of
from taylorir.experiments.protocol_parts import PATCH_SIDES, TWO_SEEDS
from taylorir.networks import build_from_config

ARMS_BY_PATCH: dict[tuple[str, int], str] = {
    ("no transformer", 1): "linear",
    ("SwinIR", 1): "swinir",
    **{("SwinIR", side): f"swinir_p{side}" for side in PATCH_SIDES},
    ("TaylorSwinIR", 1): "taylorswinir",
    **{("TaylorSwinIR", side): f"taylor_p{side}" for side in PATCH_SIDES},
}
"""Kind of network and side of a token in pixels -> beginning of its runs' names."""


def patch_table(rows: pd.DataFrame, *, lr_size: int = 48) -> pd.DataFrame:
    """Quality, of the seeds and images that all have, and memory of a training step.

    Args:
        rows: one an image and run: run, set, image, psnr_y (dB), ssim_y.
        lr_size: side of the crop, in LR pixels.

    Returns:
        A row an arm that has rows: network, side (of a token, pixels), seeds, images, psnr_y and ssim_y
        (means), over (dB above the network without a transformer), memory (MiB, counted).
    """
    table = []
    for (network, side), arm in ARMS_BY_PATCH.items():
        names = seeds_of(arm, BUDGETS[0], TWO_SEEDS)
        some = rows[rows["run"].isin(names) & rows["set"].isin(SETS)]
        if some.empty:
            continue
        model = build_from_config(find_run("mid", names[0]).config.model)
        means = some.groupby("run")[["psnr_y", "ssim_y"]].mean().mean()
        row = {"network": network, "side": side, "seeds": some["run"].nunique()}
        row |= {"images": len(some[["set", "image"]].drop_duplicates())} | means.to_dict()
        table.append(row | {"memory": memory_of(model, lr_size).total / 2**20})
    table = pd.DataFrame(table)
    return table.assign(over=table["psnr_y"] - table.set_index("network").loc["no transformer", "psnr_y"])
