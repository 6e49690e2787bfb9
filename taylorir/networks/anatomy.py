"""What a network is made of, read off the network itself: parameters, multiplications, tokens, stages.

Nothing here computes a pixel: networks live on the meta device, where tensors have shapes and no contents.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from taylorir.networks.swinir import SwinIR
from taylorir.networks.variants import VARIANTS, build_model

HD = (720, 1280)
"""Height and width of the output for which lightweight networks state their cost."""


def count_gmacs(name: str, height: int, width: int, **overrides: object) -> float:
    """Multiply-accumulates of one forward pass, in 1e9: matrix products and convolutions, with padding.

    Exponentials, norms, and the products that make TaylorShift's features are not counted, as is usual.
    Softmax is that of whole windows, masked where they are shifted, as the original runs it.
    Blocks are alike, so short networks are counted and the rest follows: exact, and quicker.

    Args:
        name, overrides: as for :func:`taylorir.networks.build_model`.
        height, width: of the LR image.
    """
    depths = overrides.pop("depths", VARIANTS[name].depths)
    if not depths or any(depth % 2 for depth in depths):
        return _count_gmacs(name, height, width, depths=depths, **overrides)
    one, longer, two = (
        _count_gmacs(name, height, width, depths=short, **overrides) for short in ((2,), (4,), (2, 2))
    )
    pair = longer - one
    stage = two - one - pair
    return one - pair - stage + stage * len(depths) + pair * sum(depths) / 2


@functools.lru_cache(maxsize=64)
def _count_gmacs(name: str, height: int, width: int, **overrides: object) -> float:
    with torch.device("meta"):
        model = build_model(name, **({"softmax_backend": "naive"} | overrides)).eval()
        image = torch.empty(1, model.config.in_chans, height, width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


def model_rows(names: Sequence[str], *, output: tuple[int, int] = HD, **overrides: object) -> pd.DataFrame:
    """Size and cost of networks, each at the LR image that gives the same output: one row a network.

    Columns: variant, upscale, window_size, window_tokens, patch_size, tokens (of the LR image, padded),
    parameters, parameters_bias (those of the position bias), gmacs, lr_height, lr_width.
    """
    rows = []
    for name in names:
        with torch.device("meta"):
            model = build_model(name, **overrides)
        config = model.config
        height, width = (-(-side // config.upscale) for side in output)
        tokens = 1
        for side in (height, width):
            tokens *= -(-side // config.multiple) * config.multiple // config.patch_size
        rows.append(
            {
                "variant": name,
                "upscale": config.upscale,
                "window_size": config.window_size,
                "window_tokens": config.window_size**2,
                "patch_size": config.patch_size,
                "tokens": tokens,
                "parameters": _count(model),
                "parameters_bias": _count(model, "relative_position_bias_table"),
                "gmacs": count_gmacs(name, height, width, **overrides),
                "lr_height": height,
                "lr_width": width,
            }
        )
    return pd.DataFrame(rows)


def patch_rows(name: str, patch_sizes: Sequence[int], *, output: tuple[int, int] = HD) -> pd.DataFrame:
    """:func:`model_rows` of one variant with patches of several sizes."""
    rows = [model_rows([name], output=output, patch_size=patch_size) for patch_size in patch_sizes]
    return pd.concat(rows, ignore_index=True)


def stage_rows(name: str, height: int = 48, width: int = 48, **overrides: object) -> pd.DataFrame:
    """The stages of a network in the order in which an image passes them, found by running it.

    Columns: level ("network", "RSTB", "block", "attention"; below the first it is the last one of its kind),
    stage (name in the state dict), kind (class), parameters, shape (of the output). Within the attention,
    "attend" is what happens between its two linear layers: heads x tokens x channels of one window.
    """
    with torch.device("meta"):
        model = build_model(name, **overrides).eval()
        image = torch.empty(1, model.config.in_chans, height, width)
    rstb = model.layers[-1]
    block = rstb.residual_group.blocks[-1]
    levels = {"network": model, "RSTB": rstb, "block": block, "attention": block.attn}
    rows: list[dict[str, object]] = []
    handles = []
    for level, parent in levels.items():
        for stage, module in _stages(parent):
            hook = functools.partial(_note, rows, level, stage)
            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    attend = {
        "level": "attention",
        "stage": "attend",
        "kind": type(block.attn).__name__,
        "parameters": sum(value.numel() for value in block.attn.parameters(recurse=False)),
        "shape": f"{block.attn.num_heads} x {block.attn.window_size**2} x {block.attn.head_dim}",
    }
    before = next(i for i, row in enumerate(rows) if (row["level"], row["stage"]) == ("attention", "proj"))
    frame = pd.DataFrame([*rows[:before], attend, *rows[before:]])
    frame["level"] = pd.Categorical(frame["level"], categories=list(levels), ordered=True)
    return frame.sort_values("level", kind="stable", ignore_index=True)


def key_rows(first: str, second: str) -> pd.DataFrame:
    """Parameters that one of two networks has and the other lacks: one row a kind, with number and size."""
    with torch.device("meta"):
        models = [build_model(name) for name in (first, second)]
    named = [dict(model.named_parameters()) for model in models]
    rows = []
    for index, name in enumerate((first, second)):
        alone = {key: value for key, value in named[index].items() if key not in named[1 - index]}
        for kind in sorted({key.rpartition(".")[2] for key in alone}):
            of_kind = [value for key, value in alone.items() if key.endswith(kind)]
            count = sum(value.numel() for value in of_kind)
            rows.append({"only_in": name, "parameter": kind, "tensors": len(of_kind), "parameters": count})
    return pd.DataFrame(rows)


def _stages(parent: nn.Module) -> list[tuple[str, nn.Module]]:
    stages = []
    for name, module in parent.named_children():
        if isinstance(parent, SwinIR) and name == "layers":
            stages += [(f"layers.{index}", layer) for index, layer in enumerate(module)]
        elif name == "residual_group":
            stages += [(f"blocks.{index}", block) for index, block in enumerate(module.blocks)]
        else:
            stages.append((name, module))
    return stages


def _note(
    rows: list[dict[str, object]],
    level: str,
    stage: str,
    module: nn.Module,
    _inputs: tuple,
    output: torch.Tensor,
) -> None:
    rows.append(
        {
            "level": level,
            "stage": stage,
            "kind": type(module).__name__,
            "parameters": _count(module),
            "shape": " x ".join(map(str, output.shape[1:])),
        }
    )


def _count(model: nn.Module, ending: str = "") -> int:
    return sum(value.numel() for name, value in model.named_parameters() if name.endswith(ending))
