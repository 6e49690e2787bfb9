"""The survey names every attention of every family: where, what of, how wide, and what stands against it."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from taylorir.convert import survey, taylorize
from tests.convert.families import FAMILIES, UNKNOWN

# how many, class, kind, queries x keys, heads x width, what is added to the scores, whether it is converted
SITES = {
    "SwinIR": ["2 WindowAttention window 16x16 2x6 bias mask yes"],
    "Swin2SR": ["2 WindowAttention window 16x16 2x6 bias mask yes"],
    "DRCT": [f"1 WindowAttention window 16x16 2x{d} bias mask yes" for d in (6, 8, 10, 12, 14)],
    "HAT": [
        "1 WindowAttention window 16x16 2x6 bias yes",
        "1 WindowAttention window 16x16 2x6 bias mask yes",
        "1 OCAB overlapping 16x36 2x6 bias yes",
    ],
    "ATD": [
        "1 WindowAttention window 16x16 2x6 bias yes",
        "1 WindowAttention window 16x16 2x6 bias mask yes",
        "2 ATD_CA across 384x8 1x4 no",
        "2 AC_MSA rectangle 32x32 2x6 no",
    ],
    "DAT": [
        "2 Spatial_Attention rectangle 32x32 2x8 bias yes",
        "2 Spatial_Attention rectangle 32x32 2x8 bias mask yes",
        "2 Adaptive_Channel_Attention channel 8x8 4x256 no",
    ],
    "RGT": [
        "2 WindowAttention rectangle 32x32 2x8 bias yes",
        "2 WindowAttention rectangle 32x32 2x8 bias mask yes",
        "2 RG_SA across 256x1 4x4 no",
    ],
    "CRAFT": ["4 Attention_regular rectangle 32x32 2x8 bias yes", "1 Attention channel 8x8 4x768 no"],
    "GRL": [
        "2 WindowAttention window 16x16 2x4 bias yes",
        "2 WindowAttention window 16x16 2x4 bias mask yes",
        "2 AnchorStripeAttention stripe 8x32 2x4 bias yes",
        "2 AnchorStripeAttention stripe 32x8 2x4 bias yes",
        "2 AnchorStripeAttention stripe 8x32 2x4 bias mask yes",
        "2 AnchorStripeAttention stripe 32x8 2x4 bias mask yes",
    ],
    "OmniSR": [
        "2 Attention window 16x16 4x4 bias yes",
        "1 Channel_Attention channel 4x4 4x16 no",
        "1 Channel_Attention_grid channel 4x4 4x24 no",
    ],
    "SCUNet": ["1 WMSA window 64x64 1x32 bias yes", "1 WMSA window 64x64 1x32 bias mask yes"],
    "FDAT": [
        "2 FastSpatialWindowAttention window 16x16 2x8 bias yes",
        "2 FastChannelAttention channel 8x8 2x384 no",
    ],
    "IPT": ["3 MultiheadAttention global 16x16 2x9 yes"],
    "torch TransformerEncoder": ["2 MultiheadAttention global 24x24 2x6 yes"],
    "timm ViT": ["2 Attention global 25x25 2x6 yes"],
    "timm Swin": [
        "1 WindowAttention window 16x16 2x6 bias yes",
        "1 WindowAttention window 16x16 2x6 bias mask yes",
        "1 WindowAttention window 16x16 2x12 bias yes",
    ],
    "torchvision ViT": ["2 MultiheadAttention global 17x17 2x6 yes"],
    "torchvision Swin": [
        "1 ShiftedWindowAttention window 16x16 2x6 bias yes",
        "1 ShiftedWindowAttention window 16x16 2x6 bias mask yes",
        "1 ShiftedWindowAttention window 16x16 2x12 bias yes",
    ],
    "torchvision Swin V2": [
        "1 ShiftedWindowAttentionV2 window 16x16 2x6 bias yes",
        "1 ShiftedWindowAttentionV2 window 16x16 2x6 bias mask yes",
        "1 ShiftedWindowAttentionV2 window 16x16 2x12 bias yes",
    ],
    "transformers ViT": ["2 ViTAttention global 17x17 2x6 yes"],
    "transformers Swin": [
        "1 SwinAttention window 16x16 2x6 bias yes",
        "1 SwinAttention window 16x16 2x6 bias mask yes",
        "1 SwinAttention window 16x16 2x12 bias yes",
    ],
    "transformers Swinv2": [
        "1 Swinv2SelfAttention window 16x16 2x6 bias yes",
        "1 Swinv2SelfAttention window 16x16 2x6 bias mask yes",
        "1 Swinv2SelfAttention window 16x16 2x12 bias yes",
    ],
    "transformers Swin2SR": [
        "1 Swin2SRSelfAttention window 16x16 2x6 bias yes",
        "1 Swin2SRSelfAttention window 16x16 2x6 bias mask yes",
    ],
    # its shifted windows at the borders are smaller, each a call of its own
    "SwinIR of this project": [
        "4 WindowAttention window 16x16 2x6 bias yes",
        "8 WindowAttention window 8x8 2x6 bias yes",
        "8 WindowAttention window 4x4 2x6 bias yes",
    ],
    "Uformer": [
        "1 WindowAttention window 4x4 1x8 bias no",
        "2 WindowAttention window 4x4 1x16 bias no",
        "1 WindowAttention window 4x4 2x16 bias no",
        "2 WindowAttention window 4x4 2x32 bias no",
        "1 WindowAttention window 4x4 2x64 bias no",
        "1 WindowAttention window 4x4 1x32 bias no",
        "1 WindowAttention global 4x4 2x64 bias no",
    ],
    "RestoreFormer": ["5 MultiHeadAttnBlock global 64x64 4x8 no"],
    "KBNet": [
        "1 TransAttention channel 48x48 1x1024 no",
        "2 TransAttention channel 48x48 2x256 no",
        "2 TransAttention channel 48x48 4x64 no",
        "1 TransAttention channel 48x48 8x16 no",
        "2 TransAttention channel 96x96 1x1024 no",
    ],
    "RetinexFormer": [
        "2 IG_MSA channel 8x8 1x1024 no",
        "2 IG_MSA channel 8x8 2x256 no",
        "1 IG_MSA channel 8x8 4x64 no",
    ],
    "HVI-CIDNet": ["4 CAB channel 2x2 2x256 no", "4 CAB channel 2x2 4x64 no", "4 CAB channel 2x2 8x16 no"],
    "DITN": ["1 ISA channel 12x12 1x16 no"],
    "DCTLSA": [],  # softmax of keys alone: linear in N already
}


def in_words(site) -> str:
    added = "".join(f" {name}" for name in ("bias", "mask") if getattr(site, name))
    sizes = f"{site.queries}x{site.keys} {site.heads}x{site.width}"
    return f"{site[2]} {site.kind} {sizes}{added} {'yes' if site.known else 'no'}"


@pytest.mark.parametrize("name", SITES)
def test_every_attention_is_named(name):
    family = {**FAMILIES, **UNKNOWN}[name]
    model, image = family.network(), family.image()
    before = copy.deepcopy(model.state_dict())
    sites = survey(model, image)
    found = Counter(in_words(site) for site in sites.itertuples())
    assert sorted(f"{count} {words}" for words, count in found.items()) == sorted(SITES[name])
    assert all(type(model.get_submodule(site.module)).__name__ == site[2] for site in sites.itertuples())
    assert all(site.note for site in sites.itertuples() if not site.known)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training and not any(module._forward_hooks for module in model.modules())


def test_the_survey_says_what_stands_against_it_and_where_nothing_is_saved():
    notes = survey(FAMILIES["ATD"].network(), FAMILIES["ATD"].image()).set_index("class").note
    assert set(notes["ATD_CA"]) == {"its weights are used elsewhere"}
    assert set(notes["AC_MSA"]) == {"attends within small groups of tokens that are alike"}
    assert set(notes["WindowAttention"]) == {"saves nothing: 16 keys are fewer than 43"}
    notes = survey(FAMILIES["GRL"].network(), FAMILIES["GRL"].image())[["keys", "crossover", "note"]]
    assert set(map(tuple, notes.values.tolist())) == {
        (16, 21, "saves nothing: 16 keys are fewer than 21"),
        (8, 21, "saves nothing: 8 keys are fewer than 21"),
        (32, 21, ""),
    }


def test_no_scores_are_formed():
    """They would take 5 GiB a head."""
    model = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    (site,) = survey(model, torch.empty(1, 36_000, 12, device="meta")).itertuples()
    assert (site.queries, site.keys, site.note) == (36_000, 36_000, "")


def test_of_a_converted_network_what_is_left_is_surveyed():
    family = FAMILIES["DAT"]
    taylor = taylorize(family.network(), keep=["layers.0.blocks.2"], centre_keys=True)
    left = survey(taylor, family.image()).drop_duplicates("module")
    assert left.module.tolist() == [
        "layers.0.blocks.1.attn",
        "layers.0.blocks.2.attn.attns.0",
        "layers.0.blocks.2.attn.attns.1",
        "layers.0.blocks.3.attn",
    ]
