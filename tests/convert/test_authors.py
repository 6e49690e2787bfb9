"""Networks as their authors write them: the same classes, in the modules of their own repositories.

The repositories install no package, so the modules of spandrel are renamed here.
"""

from __future__ import annotations

import pytest
import torch

from taylorir.convert import survey, taylorize
from tests.convert.families import FAMILIES

HOMES = [
    ("SwinIR", "models.network_swinir", {}),
    ("SwinIR", "basicsr.archs.swinir_arch", {}),
    ("Swin2SR", "models.network_swin2sr", {}),
    ("DRCT", "drct.archs.DRCT_arch", {}),
    ("HAT", "hat.archs.hat_arch", {}),
    ("ATD", "basicsr.archs.atd_arch", {}),
    ("DAT", "basicsr.archs.dat_arch", {}),
    ("RGT", "basicsr.archs.rgt_arch", {}),
    ("CRAFT", "basicsr.archs.craft_arch", {}),
    ("GRL", "models.common.mixed_attn_block_efficient", {"GRL": "models.networks.grl"}),
    ("OmniSR", "ops.OSA", {"OmniSR": "components.OmniSR"}),
    ("SCUNet", "models.network_scunet", {}),
]
"""Family, module of its classes, and those that are elsewhere."""


@pytest.mark.parametrize("name, home, elsewhere", HOMES, ids=[home for _, home, _ in HOMES])
def test_the_modules_of_the_authors_are_known(name, home, elsewhere, monkeypatch):
    family = FAMILIES[name]
    model, image = family.network(), family.image()
    library = f"spandrel.architectures.{name}."
    with torch.no_grad():
        expected = taylorize(model, window_size=family.window_size)(image)
    notes = survey(model, image)["note"].tolist()
    for kind in {type(module) for module in model.modules()}:
        if kind.__module__.startswith(library):
            monkeypatch.setattr(kind, "__module__", elsewhere.get(kind.__name__, home))
    assert not any(type(module).__module__.startswith(library) for module in model.modules())
    with torch.no_grad():
        assert torch.equal(taylorize(model, window_size=family.window_size)(image), expected)
    assert survey(model, image)["note"].tolist() == notes
