"""``taylorize``: TaylorShift in place of softmax in a network that is there already, all else kept.

Networks of others are recognised by the class name of their attention, so that ``transformers`` need not be
installed, nor imported.
"""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor, nn

from taylorir.attention import taylor_attention
from taylorir.networks.swinir import SwinIR, SwinTransformerBlock
from taylorir.networks.taylorswinir import TaylorSwinIR

_SWIN2SR_ATTENTION = "Swin2SRSelfAttention"


def taylorize(
    model: nn.Module, *, window_size: int | None = None, position: str | None = None, temperature: float = 1.0
) -> nn.Module:
    """A copy of a network with window attention in which TaylorShift replaces softmax; all else is kept.

    Known are :class:`~taylorir.networks.SwinIR`, which becomes a :class:`TaylorSwinIR`, and networks of
    Hugging Face ``transformers`` made of ``Swin2SRSelfAttention``, such as
    ``Swin2SRForImageSuperResolution``. Kept are q, k, v, projections, norms, MLPs and convolutions, as the
    modules that they are (with adapters, if they have any), each with its dtype, device, ``requires_grad``
    and mode. A position bias has no counterpart and is dropped. New are the temperatures, and LePE where the
    network had none; they can be trained. The weights fit softmax, so train on before judging the result.

    Args:
        model: the network; it is not changed.
        window_size: a new window, in tokens; default that of ``model``.
        position: "none", "rope", "lepe" or "rib" (SwinIR only); default that of ``model``, or "none"
            where it has a bias.
        temperature: of every head, where ``model`` has no temperatures of its own.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: a network without window attention that is known here; the line names its attention
            module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, SwinIR):
        return _taylorize_swinir(model, window_size, position, temperature)
    if any(type(module).__name__ == _SWIN2SR_ATTENTION for module in model.modules()):
        if position not in (None, "none"):
            raise ValueError(f"position must be 'none' for {type(model).__name__}, got {position!r}")
        return _taylorize_swin2sr(model, window_size, temperature)
    unknown = [
        f"{name or 'the model itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if "attention" in type(module).__name__.lower()
    ]
    found = f"does not know its attention {unknown[0]}" if unknown else "finds no attention in it"
    raise ValueError(f"cannot taylorize {type(model).__name__}: taylorize {found}; known: SwinIR and Swin2SR")


def _taylorize_swinir(
    model: SwinIR, window_size: int | None, position: str | None, temperature: float
) -> TaylorSwinIR:
    config = model.config
    if position is None:
        position = "none" if config.position == "bias" else config.position
    config = dataclasses.replace(
        config, attention="taylor", position=position, window_size=window_size or config.window_size
    )
    taylor, kept = TaylorSwinIR(config), copy.deepcopy(model)
    for new, old in zip(_blocks(taylor), _blocks(kept), strict=True):
        new.attn.to(old.norm1.weight.device, old.norm1.weight.dtype).train(old.attn.training)
        nn.init.constant_(new.attn.temperature, temperature)
        for name in ("qkv", "proj", "lepe", "rib", "temperature"):
            if getattr(old.attn, name, None) is not None and getattr(new.attn, name) is not None:
                setattr(new.attn, name, getattr(old.attn, name))
        old.attn = new.attn
    for name, module in kept.named_children():
        setattr(taylor, name, module)
    taylor.mean, taylor.training = kept.mean, kept.training
    return taylor


def _blocks(model: SwinIR) -> list[SwinTransformerBlock]:
    return [block for layer in model.layers for block in layer.residual_group.blocks]


def _taylorize_swin2sr(model: nn.Module, window_size: int | None, temperature: float) -> nn.Module:
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == _SWIN2SR_ATTENTION:
                setattr(module, name, TaylorSwin2SRSelfAttention(child, temperature).train(child.training))
    if window_size is not None:
        model.config.window_size = window_size
        for module in model.modules():
            for index, layer in enumerate(getattr(module, "layers", ())):
                layer.window_size = window_size
                layer.shift_size = window_size // 2 if index % 2 else 0
    return model


class TaylorSwin2SRSelfAttention(nn.Module):
    """Takes the place of ``Swin2SRSelfAttention`` of Hugging Face ``transformers``, with its q, k and v.

    That attention is one of cosines already: its learned scale is what ``temperature`` is here.
    """

    def __init__(self, attention: nn.Module, temperature: float) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.num_attention_heads = attention.num_attention_heads
        scale = attention.logit_scale
        self.temperature = nn.Parameter(scale.new_full((self.num_attention_heads,), temperature))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = False,
    ) -> tuple[Tensor]:
        """[B nW, N, C] to ([B nW, N, C],).

        Args:
            hidden_states: the tokens of all windows.
            attention_mask: [nW, N, N], 0 where tokens may meet and -100 elsewhere. It is read as regions: a
                token's label is the first token that it may meet.
            output_attentions: must be false, as no weights are formed.
        """
        if output_attentions:
            raise ValueError("output_attentions must be False: TaylorShift forms no weights to give out")
        tokens = (
            hidden_states if attention_mask is None else hidden_states.unflatten(0, (-1, len(attention_mask)))
        )
        q, k, v = (
            project(tokens).unflatten(-1, (self.num_attention_heads, -1)).transpose(-2, -3)
            for project in (self.query, self.key, self.value)
        )
        regions = None if attention_mask is None else (attention_mask == 0).byte().argmax(-1)
        y = taylor_attention(q, k, v, temperature=self.temperature, regions=regions)
        return (y.transpose(-2, -3).reshape(hidden_states.shape),)
