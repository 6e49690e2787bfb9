"""Settings from the command line have the types of their dataclass, or are refused in one line."""

from __future__ import annotations

import dataclasses
import re

import pytest

from taylorir.cli.main import main
from taylorir.networks.config import ModelConfig
from taylorir.training.config import TrainConfig
from taylorir.training.settings import check_types, parse_setting


@dataclasses.dataclass(frozen=True)
class Example:
    """One field of each type."""

    switch: bool = True
    count: int = 1
    rate: float = 0.5
    name: str = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    numbers: tuple[int, ...] = ()
    heads: tuple[int, ...] | int = 6
    limit: float | None = None
    words: tuple[str, ...] | None = None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("switch", text, True) for text in ("true", "True", "yes", "ON", "1", " true ")),
        *(("switch", text, False) for text in ("false", "False", "no", "Off", "0")),
        ("count", "12", 12), ("count", "-1", -1), ("rate", "2e-4", 2e-4), ("rate", "3", 3.0),
        ("name", "cosine", "cosine"), ("name", "'cosine'", "cosine"), ("name", "none", "none"),
        ("pair", "0.9,0.99", (0.9, 0.99)), ("pair", "(0.9, 0.99)", (0.9, 0.99)),
        ("numbers", "[6, 6]", (6, 6)), ("numbers", "(6,)", (6,)), ("numbers", "6", (6,)),
        ("numbers", "()", ()),
        ("heads", "6", 6), ("heads", "6,3", (6, 3)), ("limit", "none", None), ("limit", "1.5", 1.5),
        ("words", "a, 'b'", ("a", "b")), ("words", "None", None),
    ],
)  # fmt: skip
def test_texts_become_values_of_the_fields_type(name, text, value):
    got = parse_setting(Example, name, text)
    assert got == value and type(got) is type(value)
    check_types(dataclasses.replace(Example(), **{name: got}))


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        *(("switch", text, "true or false") for text in ("maybe", "", "2")),
        *(("count", text, "a whole number") for text in ("1.5", "many", "[1]")),
        ("rate", "fast", "a number"),
        *(("pair", text, "2 numbers with a comma between") for text in ("0.9", "0.9,0.9,0.9", "a,b")),
        *(("numbers", text, "whole numbers with commas between") for text in ("6,,6", "6 6")),
        ("limit", "much", "a number or none"),
    ],
)
def test_texts_of_another_type_are_refused(name, text, what):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be {what}, got {text!r}")):
        parse_setting(Example, name, text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("switch", "no"), ("switch", 1), ("count", True), ("count", 1.0), ("rate", "1"), ("rate", False),
     ("name", None), ("pair", (1.0,)), ("pair", 1), ("numbers", (1, "a")), ("heads", "6"), ("limit", "1")],
)  # fmt: skip
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        check_types(dataclasses.replace(Example(), **{name: value}))


def test_every_field_of_both_configurations_reads_what_it_writes():
    for config in (TrainConfig(), ModelConfig()):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if field.name != "model":
                assert parse_setting(type(config), field.name, str(value)) == value, field.name


@pytest.mark.parametrize(
    "setting",
    ["tf32=maybe", "compile=2", "deterministic=", "learning_rate=fast", "learning_rate=nan", "betas=0.9",
     "betas=a,b", "milestones=x", "milestones=2", "ema_decay=high", "final_rate=(1)", "clip_grad_norm=None",
     "datasets=()", "batch_size=1e3", "crop_size=[8]", "num_iters=99999999999999999999", "seed=1.0",
     "seed=99999999999999999999999", "depths=6 6", "depths=0", "num_heads=x", "mlp_ratio=wide",
     "drop_path_rate=nan", "shift=sometimes", "use_checkpoint=5", "embed_dim=60.0", "patch_size=3", "dtype=",
     "schedule=1", "degradation=()", "model=1", "=1", "x"],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path, capsys, setting):
    with pytest.raises(SystemExit) as end:
        main(["train", "swinir_tiny_x2", "--out", str(tmp_path / "run"), "--quiet", "--set", setting])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("taylorir: error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_words_for_off_switch_off(tmp_path, monkeypatch):
    seen = []

    def stop(config, **options):
        seen.append(config)
        raise ValueError("far enough")

    monkeypatch.setattr("taylorir.training.train", stop, raising=False)
    settings = ("tf32=false", "compile=no", "deterministic=off", "shift=0", "num_heads=2", "depths=2,2")
    with pytest.raises(SystemExit):
        main(
            ["train", "swinir_tiny_x2", "--out", str(tmp_path), *(x for s in settings for x in ("--set", s))]
        )
    config = seen[0]
    assert (config.tf32, config.compile, config.deterministic, config.model.shift) == (False,) * 4
    assert (config.model.num_heads, config.model.depths) == ((2, 2), (2, 2))
