"""TaylorShift for Swin2SR of Hugging Face ``transformers``: "plug and play" on a network that others wrote.

Modules are found by their class name, so that ``transformers`` need not be installed, nor imported.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from taylorir.attention import taylor_attention

_ATTENTION = "Swin2SRSelfAttention"


class TaylorSwin2SRSelfAttention(nn.Module):
    """Takes the place of ``Swin2SRSelfAttention`` of Hugging Face ``transformers``, with its q, k and v.

    That attention is one of cosines already: its learned scale is what ``temperature`` is here.
    """

    def __init__(self, attention: nn.Module, temperature: float) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.num_attention_heads = attention.num_attention_heads
        weight = self.query.weight
        self.temperature = nn.Parameter(weight.new_full((self.num_attention_heads,), temperature))

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


def has_swin2sr_attention(model: nn.Module) -> bool:
    """Whether a network has an attention that :func:`taylorize_swin2sr` replaces."""
    return any(type(module).__name__ == _ATTENTION for module in model.modules())


def taylorize_swin2sr(model: nn.Module, window_size: int | None, temperature: float) -> nn.Module:
    """A copy of a Swin2SR network with TaylorShift attention; see :func:`taylorir.networks.taylorize`."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == _ATTENTION:
                setattr(module, name, TaylorSwin2SRSelfAttention(child, temperature))
    if window_size is not None:
        model.config.window_size = window_size
        for module in model.modules():
            for index, layer in enumerate(getattr(module, "layers", ())):
                layer.window_size = window_size
                layer.shift_size = window_size // 2 if index % 2 else 0
    return model
