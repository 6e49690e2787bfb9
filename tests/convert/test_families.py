"""Each family's converted network against its own code with the direct form in place of softmax."""

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import nn

from taylorir.convert import taylorize
from tests.convert.direct_form import replaced_softmax
from tests.convert.families import FAMILIES

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def output_and_gradients(
    model: nn.Module, image: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    y = model(image)
    model.zero_grad()
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return y.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("centre_keys", [False, True], ids=["as they are", "centred"])
@pytest.mark.parametrize(
    "family, size",
    [pytest.param(f, i, id=f"{n}-{i}") for n, f in FAMILIES.items() for i in range(len(f.sizes))],
)
def test_a_converted_network_is_its_own_code_with_the_direct_form(family, size, centre_keys):
    model, image = family.network(), family.image(size)
    with replaced_softmax(model, tuple(family.attends), 1.5, centre_keys) as mode:
        expected, expected_gradients = output_and_gradients(model, image)
    assert mode.replaced == family.softmaxes
    taylor = taylorize(model, temperature=1.5, centre_keys=centre_keys)
    found, gradients = output_and_gradients(taylor, image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * expected.abs().max().item())
    with torch.no_grad():  # torch has fast paths then
        torch.testing.assert_close(taylor(image), found, rtol=0, atol=1e-10 * expected.abs().max().item())
    assert (model(image) - found).abs().max() > 1e-6
    for name in gradients.keys() & expected_gradients.keys():
        size = expected_gradients[name].abs().max().item()
        torch.testing.assert_close(
            gradients[name], expected_gradients[name], rtol=0, atol=1e-9 * size + 1e-12
        )
    alone = gradients.keys() - expected_gradients.keys()
    assert alone and all(name.endswith("temperature") for name in alone)


@each_family
def test_all_else_is_kept_under_its_name_and_nothing_of_the_positions_stays(family, tmp_path):
    model, image = family.network(), family.image(batch=1)
    before = copy.deepcopy(model.state_dict())
    taylor = taylorize(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    after = taylor.state_dict()
    new = after.keys() - before.keys()
    assert len(new) == sum(family.attends.values()) and all(name.endswith("temperature") for name in new)
    assert all(torch.equal(after[name], before[name]) for name in after.keys() & before.keys())
    assert not [name for name, _ in taylor.named_buffers() if "mask" in name or "index" in name]

    torch.save(after, tmp_path / "taylor.pth")
    with torch.no_grad():
        expected = taylor(image)
        other = taylorize(family.network(), temperature=3.0)
        other.load_state_dict(torch.load(tmp_path / "taylor.pth", weights_only=True), strict=True)
        for same in (other, copy.deepcopy(taylor), pickle.loads(pickle.dumps(taylor))):
            assert torch.equal(same(image), expected)


@each_family
def test_what_is_kept_stays_softmax(family):
    model, image = family.network(), family.image(batch=1)
    sites = [name for name, module in model.named_modules() if type(module).__name__ in family.attends]
    with torch.no_grad():
        some = taylorize(model, keep=sites[1:])
        with replaced_softmax(model.get_submodule(sites[0]), tuple(family.attends), 1.0):
            torch.testing.assert_close(some(image), model(image), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="all its attention is kept"):
        taylorize(model, keep=sites)


ENLARGED = {name: family for name, family in FAMILIES.items() if family.window_size is not None}
ENLARGED["DAT, squares"] = dataclasses.replace(FAMILIES["DAT"], window_size=(16, 16))


@pytest.mark.parametrize("family", ENLARGED.values(), ids=ENLARGED)
def test_larger_windows_are_those_of_a_network_built_with_them(family):
    taylor = taylorize(family.network(), window_size=family.window_size)
    built = taylorize(family.network(family.window_size))
    built.load_state_dict(taylor.state_dict(), strict=True)
    for size in range(len(family.sizes)):
        image = family.image(size)
        with torch.no_grad():
            assert torch.equal(taylor(image), built(image))
            assert (taylor(image) - taylorize(family.network())(image)).abs().max() > 1e-6
