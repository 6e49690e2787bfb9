"""Networks of others behind the interface of ours, read by spandrel or transformers where they are installed.

Neither is imported before a file or a folder of theirs is opened.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from taylorir.networks.fitting import check_values
from taylorir.networks.windows import pad_reflect
from taylorir.rows import one_line

INSTALL = "pip install 'taylorir[foreign]'"
PURPOSES = ("SR", "Restoration")
TRANSFORMERS_CONFIG = "config.json"


@dataclass(frozen=True)
class ForeignConfig:
    """What evaluation and cost ask of a network.

    Attributes:
        architecture: name of the family.
        upscale: s.
        in_chans: channels of an image: 3 (RGB) or 1 (grey).
        window_size: sides are padded to multiples of this many LR pixels.
        smallest: and to at least this many.
        square: and to a square.
    """

    architecture: str
    upscale: int
    in_chans: int = 3
    window_size: int = 1
    smallest: int = 0
    square: bool = False


class ForeignNetwork(nn.Module):
    """A network of others: LR image [B, c, H, W] in 0..1, any H and W from 1, to SR image [B, c, sH, sW].

    Args:
        network: the network as its library makes it, kept as ``model.network``.
        config: what to know of it, kept as ``model.config``.
    """

    def __init__(self, network: nn.Module, config: ForeignConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, x: Tensor) -> Tensor:
        """As the class says; padded by reflection to what the network takes, and cropped.

        Raises:
            ValueError: it gives something else than one image.
        """
        config, (height, width) = self.config, x.shape[-2:]
        x = pad_reflect(x, config.window_size if min(height, width) >= config.smallest else config.smallest)
        if config.square:
            x = pad_reflect(x, max(x.shape[-2:]))
        y = self.network(x)
        y = getattr(y, "reconstruction", y)  # of transformers
        if not isinstance(y, Tensor):
            raise ValueError(f"{config.architecture} gives a {type(y).__name__}, no image")
        return y[..., : height * config.upscale, : width * config.upscale]


def image_channels(model: nn.Module | str) -> int:
    """Channels of the images that a model takes: 3 (RGB), or 1 of a grey network."""
    return getattr(getattr(model, "config", None), "in_chans", 3)


def build_foreign(weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> ForeignNetwork:
    """The network of a state dict that spandrel recognises, in evaluation mode.

    Raises:
        ValueError: spandrel is not installed, knows no such architecture, or knows it for another purpose.
    """
    spandrel = _imported("spandrel", source)
    check_values({name: value for name, value in weights.items() if value.is_floating_point()}, source)
    try:
        found = spandrel.ModelLoader("cpu").load_from_state_dict(dict(weights))
    except spandrel.UnsupportedModelError:
        raise ValueError(f"spandrel knows no architecture with the weights of {source}") from None
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"spandrel cannot load {source}: {one_line(error)[:200]}") from None
    name, channels = found.architecture.name, {found.input_channels, found.output_channels}
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose not in PURPOSES:
        raise ValueError(f"{source} is a network of {name}, which does not restore images as a whole")
    if channels not in ({1}, {3}):
        raise ValueError(
            f"{source} is a network of {name} from {found.input_channels} to "
            f"{found.output_channels} channels; known are 1 (grey) and 3 (RGB)"
        )
    sizes = found.size_requirements
    config = ForeignConfig(name, found.scale, channels.pop(), sizes.multiple_of, sizes.minimum, sizes.square)
    return ForeignNetwork(found.model, config).eval()


def is_transformers_folder(path: Path) -> bool:
    """Whether ``save_pretrained`` of transformers made a folder."""
    return (path / TRANSFORMERS_CONFIG).is_file()


def load_transformers(folder: Path) -> ForeignNetwork:
    """The Swin2SR of a folder that ``save_pretrained`` made, in evaluation mode.

    Raises:
        ValueError: transformers is not installed, or another network; a converted one is of
            :func:`taylorir.convert.load_any`.
        OSError: the folder is not complete.
    """
    settings = read_transformers_config(folder)
    if CONVERTED in settings:
        raise ValueError(f"{folder} holds a converted network: load it by taylorir.convert.load_any")
    model = swin2sr_class(folder).from_pretrained(folder, local_files_only=True)
    return wrap_swin2sr(model)


CONVERTED = "taylorir"
"""Key under which the configuration of a converted network says how it was converted."""


def read_transformers_config(folder: Path) -> dict:
    """The configuration of a folder that ``save_pretrained`` made.

    Raises:
        ValueError: it is no JSON object, or not of a Swin2SR for super-resolution.
    """
    try:
        settings = json.loads((folder / TRANSFORMERS_CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or settings.get("model_type") != "swin2sr":
        kind = settings.get("model_type") if isinstance(settings, dict) else "unreadable"
        raise ValueError(f"{folder / TRANSFORMERS_CONFIG}: model_type is {kind!r}, known is 'swin2sr'")
    return settings


def swin2sr_class(source: object) -> type[nn.Module]:
    """``Swin2SRForImageSuperResolution`` of transformers.

    Raises:
        ValueError: transformers is not installed.
    """
    return _imported("transformers", source).Swin2SRForImageSuperResolution


def wrap_swin2sr(model: nn.Module) -> ForeignNetwork:
    """A Swin2SR of transformers, which pads by itself, in evaluation mode."""
    config = ForeignConfig(
        "Swin2SR", model.config.upscale, model.config.num_channels, model.config.window_size
    )
    return ForeignNetwork(model, config).eval()


def _imported(package: str, source: object) -> ModuleType:
    try:
        if importlib.util.find_spec("torchvision"):
            _import_torchvision()
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{source} needs the package {error.name or package}: {INSTALL}") from None


_declared: list[torch.library.Library] = []


def _import_torchvision() -> None:
    """Import torchvision, which others import, also where its operators do not load.

    The wheel of the package index is compiled for torch with CUDA. Beside a torch without, its Python fails
    unless two names are declared; nothing here calls them.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        names = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(names)
        importlib.import_module("torchvision")
