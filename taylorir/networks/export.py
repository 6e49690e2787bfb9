"""Networks for other runtimes: ``torch.export`` and ONNX, with free batch, height and width.

The graph holds the trained weights and the arithmetic of the network, written so that a tracer can follow it
for any size: padding by index instead of by case, region labels computed from the size, no loops over tiles.
It pads and crops by itself, as the network does.

Shape legend: see :mod:`taylorir.networks.swinir`; here n = nH x nW windows of an image, F features of a
token.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.nn import functional

from taylorir.attention import crossover_flops
from taylorir.networks.position import rope_2d
from taylorir.networks.swinir import SwinIR
from taylorir.networks.window_attention import WindowAttention
from taylorir.networks.windows import NUM_REGIONS
from taylorir.rows import write_atomic

FORMATS = {".pt2": "torch.export", ".onnx": "ONNX"}
OPSET = 18
CHECK_SIZES = ((48, 48), (61, 77), (192, 128))
#: Largest difference from PyTorch that an exported file may show; values are in 0..1.
TOLERANCE = 1e-4


class ExportableAttention(nn.Module):
    """The attention of one block, softmax or Taylor, in plain operations: [B, H, W, C] to the same.

    Taylor attention is direct or efficient by the crossover, fixed when the graph is made. In shifted windows
    the efficient form keeps a state for each of the four regions that a window can have. Where the border is
    ragged, windows are filled up, and a label keeps the filling apart.

    Args:
        attention: whose weights to use.
        border: as in :class:`~taylorir.networks.ModelConfig`.
    """

    def __init__(self, attention: WindowAttention, border: str) -> None:
        super().__init__()
        self.attention = attention
        self.ragged = border == "ragged"
        self.before = -attention.shift_size % attention.window_size  # tokens that the first window lacks
        self.tokens = attention.window_size**2
        self.head_dim = attention.head_dim
        self.taylor = hasattr(attention, "temperature")
        joined = self.head_dim + (attention.rib.rank if attention.rib is not None else 0)
        self.efficient = self.taylor and self.tokens >= crossover_flops(joined)
        first, second = torch.triu_indices(joined, joined)
        self.register_buffer("first", first.clone(), persistent=False)
        self.register_buffer("second", second.clone(), persistent=False)
        self.register_buffer("weight", torch.where(first == second, math.sqrt(0.5), 1.0), persistent=False)
        low = torch.arange(attention.window_size) >= attention.window_size - attention.shift_size
        self.register_buffer("low", low, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        attention, (batch, height, width, channels) = self.attention, x.shape
        size, shift = attention.window_size, attention.shift_size
        if self.ragged:  # around the image come tokens that none of its own meets
            rows, columns = ((side + self.before + size - 1) // size for side in (height, width))
            after = (rows * size - height - self.before, columns * size - width - self.before)
            x = functional.pad(x, (0, 0, self.before, after[1], self.before, after[0]))
        else:
            rows, columns = height // size, width // size
            if shift:
                x = torch.cat((x[:, shift:], x[:, :shift]), 1)
                x = torch.cat((x[:, :, shift:], x[:, :, :shift]), 2)
        x = _copied(x.reshape(batch, rows, size, columns, size, channels).permute(0, 1, 3, 2, 4, 5))
        qkv = attention.qkv(x.reshape(batch, rows * columns, self.tokens, channels))
        qkv = qkv.reshape(batch, rows * columns, self.tokens, 3, attention.num_heads, self.head_dim)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)  # [B, n, heads, N, d]
        if attention.position == "rope":
            q, k = rope_2d(q, size, size), rope_2d(k, size, size)
        labels = None
        if self.ragged:
            labels = self.filler(rows, columns, height, width)
        elif shift:
            labels = self.labels(rows, columns)
        if self.taylor and attention.centre_keys:
            k = attention.centred(k, labels)
        if attention.rib is not None:
            factors = attention.rib(size, size, size)  # [heads, N, R]
            if labels is not None:
                places = self.cut_places(rows, columns) if self.ragged else self.places(labels)
                factors = (x[:, places].transpose(0, 1) for x in factors)
            q, k = attention.join(q, k, *factors)
        y = self.taylor_attention(q, k, v, labels) if self.taylor else self.softmax(q, k, v, labels)
        if attention.lepe is not None:
            y = torch.cat((y, v), 2)
        y = _copied(y.transpose(2, 3)).reshape(batch, rows, columns, size, size, -1)
        y = _copied(y.permute(0, 1, 3, 2, 4, 5)).reshape(batch, rows * size, columns * size, -1)
        if self.ragged:
            y = y[:, self.before + torch.arange(height)][:, :, self.before + torch.arange(width)]
        elif shift:
            y = torch.cat((y[:, height - shift :], y[:, : height - shift]), 1)
            y = torch.cat((y[:, :, width - shift :], y[:, :, : width - shift]), 2)
        if attention.lepe is not None:
            y, values = y.chunk(2, -1)
            y = y + attention.lepe(values)
        return attention.proj(y)

    def labels(self, rows: int, columns: int) -> Tensor:
        """Region of each token, 0..3: [n, N]. Only the last row and column of windows have several."""
        down = (torch.arange(rows, device=self.low.device) == rows - 1)[:, None, None, None] & self.low[
            :, None
        ]
        right = (torch.arange(columns, device=self.low.device) == columns - 1)[:, None, None] & self.low
        return (2 * down.long() + right.long()).reshape(rows * columns, self.tokens)

    def places(self, labels: Tensor) -> Tensor:
        """Place of each token in the rectangle that is its region, as one of the window: [n, N]."""
        size, cut = self.attention.window_size, self.attention.window_size - self.attention.shift_size
        return torch.arange(self.tokens, device=labels.device) - cut * (labels // 2 * size + labels % 2)

    def filler(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """0 for tokens of the image, 1 for those around it: [n, N]."""
        y, x = (
            torch.arange(count * self.low.numel(), device=self.low.device).reshape(count, -1) - self.before
            for count in (rows, columns)
        )
        down, right = (y < 0) | (y >= height), (x < 0) | (x >= width)
        outside = down[:, None, :, None] | right[None, :, None, :]
        return outside.long().reshape(rows * columns, self.tokens)

    def cut_places(self, rows: int, columns: int) -> Tensor:
        """Place of each token in the rectangle that the image leaves of its window, as one of the window:
        [n, N]. A first window begins only where the image does."""
        size = self.attention.window_size
        down = (torch.arange(rows, device=self.low.device) == 0)[:, None, None] * size
        right = (torch.arange(columns, device=self.low.device) == 0)[None, :, None]
        place = torch.arange(self.tokens, device=self.low.device) - self.before * (down + right)
        return place.clamp_min(0).reshape(rows * columns, self.tokens)

    def softmax(self, q: Tensor, k: Tensor, v: Tensor, labels: Tensor | None) -> Tensor:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if self.attention.position == "bias":
            scores = scores + self.attention.bias(self.attention.window_size, self.attention.window_size)
        if labels is not None:
            scores = torch.where(_meet(labels), scores, -torch.inf)
        return scores.softmax(-1) @ v

    def taylor_attention(self, q: Tensor, k: Tensor, v: Tensor, labels: Tensor | None) -> Tensor:
        q = _unit(q) * self.attention.joint_temperature()[:, None, None]
        k = _unit(k)
        ones = torch.cat((v, torch.ones_like(v[..., :1])), -1)  # [B, n, heads, N, d + 1]
        if not self.efficient:
            scores = q @ k.transpose(-1, -2)
            weights = 1 + scores + scores * scores / 2
            y = (weights if labels is None else weights * _meet(labels)) @ ones
        elif labels is None:
            y = self.features(q) @ (self.features(k).transpose(-1, -2) @ ones)
        else:
            states = 1 if self.ragged else NUM_REGIONS
            member = (labels[..., None] == torch.arange(states, device=labels.device)).to(v.dtype)[
                :, None, :, :, None
            ]
            parts = (ones[..., None, :] * member).flatten(-2)  # [B, n, heads, N, states (d + 1)]
            parts = self.features(q) @ (self.features(k).transpose(-1, -2) @ parts)
            y = (parts.unflatten(-1, (states, self.head_dim + 1)) * member).sum(-2)
        y = y[..., :-1] / y[..., -1:]
        return y * math.sqrt(self.tokens / self.head_dim) if self.attention.scale_output else y

    def features(self, x: Tensor) -> Tensor:
        """f(x) [..., N, F] with f(x) . f(y) = 1 + x . y + (x . y)^2 / 2 (:eq:`eq-features`)."""
        products = x[..., self.first] * x[..., self.second] * self.weight
        return torch.cat((torch.ones_like(x[..., :1]), x, products), -1)


class ExportableNetwork(nn.Module):
    """A network whose size is free when traced: LR [B, c, H, W] in 0..1 to SR [B, c, sH, sW], not clipped.

    Raises:
        TypeError: not a SwinIR or TaylorSwinIR of this package.
    """

    def __init__(self, model: SwinIR) -> None:
        super().__init__()
        if not isinstance(model, SwinIR):
            raise TypeError(
                f"model must be a SwinIR or TaylorSwinIR of this package, got {type(model).__name__}"
            )
        self.network = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.multiple = model.config.multiple
        self.upscale = model.config.upscale
        for layer in self.network.layers:
            for block in layer.residual_group.blocks:
                block.attn = ExportableAttention(block.attn, model.config.border)
        for module in self.network.modules():
            if isinstance(
                module, nn.Conv2d
            ):  # of channels last, it asks whether there is more than one image
                module.register_forward_pre_hook(lambda _, inputs: (_copied(*inputs),))

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        x = lr[:, :, _reflected(height, self.multiple)][:, :, :, _reflected(width, self.multiple)]
        sr = self.network(x)
        return sr[:, :, torch.arange(height * self.upscale)][:, :, :, torch.arange(width * self.upscale)]


def _reflected(length: int, multiple: int) -> Tensor:
    """Indices that pad a side to a multiple by reflecting again and again: 0 1 2 1 0 1 ... for 3."""
    padded = (length + multiple - 1) // multiple * multiple
    index = torch.arange(padded)
    last = torch.ones_like(index) * (length - 1)
    period = (2 * last).clamp_min(1)
    index = index - index // period * period
    return torch.minimum(index, torch.where(last > 0, period - index, 0))


def _copied(x: Tensor) -> Tensor:
    """Always a copy, so that the tracer need not ask whether one is needed: with one window it is not."""
    return x.clone(memory_format=torch.contiguous_format)


def _meet(labels: Tensor) -> Tensor:
    """[n, 1, N, N]: which tokens of a window attend to each other."""
    return (labels[:, :, None] == labels[:, None, :])[:, None]


def _unit(x: Tensor) -> Tensor:
    """x / |x|; zero where x is."""
    return x / (x * x).sum(-1, keepdim=True).clamp_min(1e-24).sqrt()


def export_program(model: SwinIR) -> ExportedProgram:
    """Trace a network by ``torch.export`` with free batch, height and width.

    Raises:
        TypeError: not a SwinIR or TaylorSwinIR of this package.
    """
    network = ExportableNetwork(model)
    side = model.config.window_size * model.config.patch_size
    sides = (side + side // 2 + 1, 2 * side + side // 2 + 2)
    example = torch.rand(2, model.config.in_chans, *sides)
    free = {axis: Dim.DYNAMIC for axis in (0, 2, 3)}
    # Oblivious: or else "one row of windows" becomes a case of its own, which the graph refuses.
    with torch.no_grad(), symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(network, (example,), dynamic_shapes={"lr": free}, strict=False)


def export_network(model: SwinIR, path: str | Path) -> Path:
    """Write a network as ``.pt2`` (torch.export) or ``.onnx``, whole or not at all.

    Args:
        model: a SwinIR or TaylorSwinIR; float32 weights are written.
        path: its suffix says the format. In ONNX the input is called ``lr``, the output ``sr``.

    Raises:
        ValueError: another suffix.
        ValueError: ONNX without the packages ``onnx`` and ``onnxscript``.
        TypeError, OSError: a network of another kind; the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path: got {path.name!r}, expected a name that ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx":
        _need("onnx", "onnxscript")
    program = export_program(model)
    if path.suffix == ".pt2":
        write_atomic(path, lambda stream: torch.export.save(program, stream))
        return path
    with warnings.catch_warnings():  # the converter's own deprecated calls
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program, dynamo=True, input_names=["lr"], output_names=["sr"], opset_version=OPSET, verbose=False
        )
    write_atomic(path, lambda stream: stream.write(converted.model_proto.SerializeToString()))
    return path


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs the packages {', '.join(missing)}: pip install 'taylorir[export]'")


def load_exported(path: str | Path) -> Callable[[Tensor], Tensor]:
    """An exported file as a function of LR images [B, 3, H, W] on the CPU.

    Raises:
        ValueError: an ONNX file without the package ``onnxruntime``.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        return torch.export.load(path).module()
    _need("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda lr: torch.from_numpy(session.run(["sr"], {"lr": lr.numpy()})[0])


def exported_difference(
    model: SwinIR, path: str | Path, sizes: tuple[tuple[int, int], ...] = CHECK_SIZES, *, seed: int = 0
) -> dict[tuple[int, int], float]:
    """Largest difference between an exported file and the network itself, on random images of several sizes.

    Returns:
        (height, width) -> largest absolute difference, the range of the image being 0..1.

    Raises:
        ValueError: an ONNX file without the package ``onnxruntime``; NaN or infinity comes out.
    """
    run = load_exported(path)
    generator, model = torch.Generator().manual_seed(seed), copy.deepcopy(model).float().cpu().eval()
    differences = {}
    for size in sizes:
        lr = torch.rand(1, model.config.in_chans, *size, generator=generator)
        with torch.no_grad():
            differences[size] = float((run(lr) - model(lr)).abs().max())
        if not math.isfinite(differences[size]):  # NaN is no agreement: no comparison with a bound finds it
            raise ValueError(f"{path}: NaN or infinity comes of an image of {size[0]}x{size[1]} pixels")
    return differences
