"""A network by a name, a checkpoint, a folder or a released file: the same weights."""

import warnings
from pathlib import Path

import pytest
import torch

from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from taylorir.networks.weights import default_model, load_network
from taylorir.rows import WEIGHTS_FOLDER


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of ``data/weights``."""
    monkeypatch.setattr("taylorir.networks.weights.WEIGHTS_FOLDER", tmp_path)
    return tmp_path


def test_a_name_a_file_and_a_released_file_give_the_same_network(folder):
    tiny = build_model("swinir_tiny_x2")
    path = save_weights(folder / "swinir_tiny_x2.safetensors", tiny, {})
    released = folder / "released.pth"
    torch.save({"params": tiny.state_dict()}, released)
    for name in ("swinir_tiny_x2", str(path), path, str(released), released):
        loaded = load_network(name)
        assert torch.equal(loaded.conv_first.weight, tiny.conv_first.weight) and not loaded.training


def test_what_is_no_network_is_refused_with_what_would_be(folder):
    (folder / "taylor_w8_x2.safetensors").touch()
    with pytest.raises(ValueError, match=r"no trained weights for 'swinir_tiny_x2'.*'taylorir train"):
        load_network("swinir_tiny_x2")
    with pytest.raises(ValueError, match="unknown model 'swinr_tiny_x2'; did you mean swinir_tiny_x2"):
        load_network("swinr_tiny_x2")
    with pytest.raises(ValueError, match=r"unknown model 'taylor_w9_x2'; did you mean taylor_w8_x2"):
        load_network("taylor_w9_x2")
    with pytest.raises(ValueError, match="unknown model 'bicubic'; give a variant or a checkpoint"):
        load_network("bicubic")
    for name in ("some/where", "where.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"no such model file: {name}"):
            load_network(name)


def test_the_default_is_of_the_largest_networks_of_the_factor_the_best(folder, tmp_path_factory, monkeypatch):
    with pytest.raises(ValueError, match="no trained weights for x2"):
        default_model(2)
    results = tmp_path_factory.mktemp("results")
    monkeypatch.setattr("taylorir.networks.weights.RESULTS_FOLDER", results)
    (results / "quality_mid_runs.csv").write_text(
        "run,held_out_psnr_y\ntaylorswinir_mid_x2_3k_s0,33.1\ntaylorswinir_mid_x2_3k_s1,33.3\n"
        "taylorswinir_mid_x2_8k_s0,33.2\nswinir_mid_x2_3k_s0,33.15\nswinir_mid_x2_3k_s1,33.9\n"
    )
    for name, best in (
        ("swinir_tiny_x2", "swinir_tiny_x2"),
        ("taylorswinir_s_x3", "swinir_tiny_x2"),
        ("taylor_w8_x2", "swinir_tiny_x2"),
        ("taylorswinir_mini_x2_s1", "taylorswinir_mini_x2_s1"),
        ("taylorswinir_mini_x2_s0", "taylorswinir_mini_x2_s0"),  # neither has rows: the first
        ("swinir_mid_x2_3k_s0", "swinir_mid_x2_3k_s0"),
        ("taylorswinir_mid_x2_3k_s0", "swinir_mid_x2_3k_s0"),
        ("taylorswinir_mid_x2_8k_s0", "taylorswinir_mid_x2_8k_s0"),
        ("taylorswinir_mid_x2_3k_s1", "taylorswinir_mid_x2_3k_s1"),
        ("swinir_as_taylorswinir_mid_x2_3k_s0", "taylorswinir_mid_x2_3k_s1"),
        ("swinir_mid_x2_3k_s1", "swinir_mid_x2_3k_s1"),
        ("swinir_m_x2", "swinir_m_x2"),
    ):
        (folder / f"{name}.safetensors").touch()
        assert default_model(2) == best
    assert default_model(3) == "taylorswinir_s_x3"


def test_a_task_has_weights_of_its_own(folder, monkeypatch):
    for name in (
        "taylorswinir_mini_x2_s0",
        "swinir_jpeg_mini_s0",
        "swinir_denoise_mini_s0",
        "linear_denoise_mini_s0",
    ):
        (folder / f"{name}.safetensors").touch()
    monkeypatch.setattr("taylorir.networks.weights.RESULTS_FOLDER", folder)  # without rows
    assert default_model(1, "jpeg") == "swinir_jpeg_mini_s0"
    for name in ("taylorswinir_denoise_mini_s1", "taylorswinir_denoise_mini_s0", "swinir_denoise_color"):
        (folder / f"{name}.safetensors").touch()
        assert default_model(1, "denoise") == name
    with pytest.raises(ValueError, match="no trained weights for sharpen in"):
        default_model(1, "sharpen")


def test_a_name_means_the_same_where_a_folder_is_called_so(folder, tmp_path_factory, monkeypatch, caplog):
    stored, own = build_model("swinir_tiny_x2"), build_model("swinir_tiny_x2")
    save_weights(folder / "swinir_tiny_x2.safetensors", stored, {})
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    assert torch.equal(load_network("swinir_tiny_x2").conv_first.weight, stored.conv_first.weight)
    assert not caplog.messages
    save_weights(Path("swinir_tiny_x2"), own, {})
    assert torch.equal(load_network("swinir_tiny_x2").conv_first.weight, stored.conv_first.weight)
    line = "swinir_tiny_x2 is the weights of this package; for what lies here, write ./swinir_tiny_x2"
    assert caplog.messages == [line]
    for path in ("./swinir_tiny_x2", Path("swinir_tiny_x2")):
        assert torch.equal(load_network(path).conv_first.weight, own.conv_first.weight)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    "stem", sorted(path.stem for path in WEIGHTS_FOLDER.glob("swinir_mini_*.safetensors"))
)
def test_stored_swinir_weights_are_swinir_weights_to_other_programs(stem):
    spandrel = pytest.importorskip("spandrel")
    path, lr = WEIGHTS_FOLDER / f"{stem}.safetensors", torch.rand(1, 3, 24, 33)
    with warnings.catch_warnings(action="ignore"):  # of torch.meshgrid, in their code
        found = spandrel.ModelLoader().load_from_file(path)  # it asks for each of its tensors and no other
    model = load_network(stem)
    assert (found.architecture.id, found.scale) == ("SwinIR", model.config.upscale)
    with torch.inference_mode():
        torch.testing.assert_close(found.model.eval()(lr), model(lr), rtol=0, atol=1e-5)


def test_torch_hub_finds_the_networks():
    name, root = "taylorswinir_mini_x4_s0", str(Path(__file__).resolve().parents[2])
    model = torch.hub.load(root, "load_network", name, source="local")
    assert model.config == load_network(name).config
    fresh = torch.hub.load(root, "build_model", "swinir_tiny_x2", window_size=4, source="local")
    assert fresh.config.window_size == 4
