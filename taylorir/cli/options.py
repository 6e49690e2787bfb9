"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Upscale = Annotated[
    int | None,
    typer.Option(help="Factor: 1, 2, 3, 4 or 8. Default: the model's own; 2 for bicubic or without a model."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]
Tile = Annotated[str, typer.Option(help='LR pixels a side, "auto" (from the memory), or "none".')]
Overlap = Annotated[
    int | None,
    typer.Option(
        help="Least number of LR pixels that neighbouring tiles share. Default: two windows, at least 32."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory that the process may take, e.g. 2GiB (or, on a GPU, the network). "
        "Default: half of what is free, for --tile auto."
    ),
]
Ensemble = Annotated[
    bool, typer.Option("--self-ensemble", help="Average over the eight flips and rotations.")
]
Precision = Annotated[
    str, typer.Option(help="float32, bfloat16 or float16; auto is bfloat16 on a GPU, float32 on a CPU.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Degradation = Annotated[
    str,
    typer.Option(
        help="What is done to the LR images: noise<grey levels>, jpeg<quality>, blur<pixels>, joined with +; "
        "networks that enlarge nothing undo it."
    ),
]
