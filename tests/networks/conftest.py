"""What tests of networks share: a small network of others."""

import pytest
import torch


@pytest.fixture
def swin2sr():
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    torch.manual_seed(0)
    config = transformers.Swin2SRConfig(
        embed_dim=12,
        depths=[2],
        num_heads=[2],
        window_size=4,
        image_size=16,
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    return transformers.Swin2SRForImageSuperResolution(config).eval()
