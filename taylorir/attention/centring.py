"""Keys about their mean: what softmax does not see, and what gives TaylorShift back the room of its scores.

Shape legend: see :mod:`taylorir.attention.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylorir.attention.kernels.checks import compute_dtype, without_autocast


def centre_keys(
    k: Tensor, regions: Tensor | tuple[Tensor, Tensor] | None = None, *, num_regions: int | None = None
) -> Tensor:
    """k less its mean over the keys that a query meets, in time linear in M (:eq:`eq-centred-keys`).

    Softmax is blind to it: q . (k_j - mean) is q . k_j less the same number for every j. TaylorShift divides
    by the norm afterwards, and so is not: what all keys share fills most of the cosine, and the weights are
    then nearly equal. Without it the cosines of a query are about zero and use the range that the temperature
    gives. The name of the switch is ``centre_keys``, in a network's configuration and wherever networks are
    converted.

    Args:
        k: [..., H, M, d].
        regions: labels as in :func:`taylorir.attention.taylor_efficient`, [..., M]; of a pair those of the
            keys. A token's mean is that over its own label.
        num_regions: the labels are below it; None counts them, which a traced graph cannot.

    Returns:
        The shape and dtype of k; float16 and bfloat16 are centred in float32.
    """
    keys = k.to(compute_dtype(k))
    if regions is None:
        return (keys - keys.mean(-2, keepdim=True)).to(k.dtype)
    labels = regions[1] if isinstance(regions, tuple) else regions
    if num_regions is None:
        distinct, labels = labels.unique(return_inverse=True)
        num_regions = len(distinct)
    members = labels[..., None, :] == torch.arange(num_regions, device=k.device)[:, None]  # [..., L, M]
    members = members[..., None, :, :].to(keys.dtype)  # [..., 1, L, M], one for all heads
    with without_autocast(k):
        means = (members @ keys) / members.sum(-1, keepdim=True).clamp_min(1)  # [..., H, L, d]
        return (keys - members.mT @ means).to(k.dtype)
