"""A promise of memory is kept, or refused with what is needed; what a container allows is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from taylorir.evaluation import memory_limit
from taylorir.evaluation.memory_limit import (
    available_memory,
    choose_tile,
    give_back_freed,
    parse_memory,
    peak_resident_memory,
    resident_memory,
    tile_cost,
)
from taylorir.networks.variants import build_model

GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_model("swinir_tiny_x2").eval()


def test_memory_decides_the_tile(tiny):
    def tile(mebibytes: float) -> int:
        give_back_freed()  # as choose_tile does first
        budget = resident_memory() + int(mebibytes * 2**20)
        return choose_tile(cost, (4000, 4000), "auto", memory=budget, reserved=0)

    cost = tile_cost(tiny, window=8, overlap=16, upscale=2)
    sides = [tile(60), tile(240)]
    assert sides[0] < sides[1] and all(side % 8 == 0 for side in sides)
    assert 1.6 <= sides[1] / sides[0] <= 2.6  # four times the memory is twice the side
    with pytest.raises(ValueError, match="memory is too small: a tile of 32 pixels needs about"):
        choose_tile(cost, (4000, 4000), "auto", memory=2**20, reserved=0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("2GiB", 2**31), ("2G", 2**31), ("2gi", 2**31), ("1TiB", 2**40), ("512M", 2**29), ("64k", 2**16)],
        *[("500 MB", 5 * 10**8), ("1.5GB", 15 * 10**8), ("2TB", 2 * 10**12), ("1.5gib", 3 * 2**29)],
        *[(4096, 4096), ("4096", 4096), ("4096B", 4096)],
    ],
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "2 gigs", "GiB", "-1GiB", "0", "0.5B", "nan", "inf", "1iB", "2GG"])
def test_memory_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="memory must be a"):
        parse_memory(text)


def test_the_peak_is_at_least_what_is_held():
    assert peak_resident_memory() >= resident_memory() > 50 * 2**20
    before = peak_resident_memory()
    ballast = bytearray(b"x" * (before - resident_memory() + 2**27))
    assert peak_resident_memory() - before >= 2**26
    del ballast
    assert peak_resident_memory() - before >= 2**26


# ------------------------------------------------------------------------------------------------- containers


def group(folder: Path, version: int, limit: str, usage: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = GROUP_FILES[version]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


@pytest.mark.parametrize(
    ("version", "membership"),
    [
        (2, "0::/box\n"),
        (2, "0::/box/inner/deep\n"),  # the limit of a group above holds, too
        (1, "9:cpu,cpuacct:/\n4:memory:/box\n0::/\n"),
        (1, "4:hugetlb,memory:/box/docker/0123\n"),
    ],
)
def test_a_containers_limit_is_seen(tmp_path, monkeypatch, version, membership):
    root = tmp_path if version == 2 else tmp_path / "memory"
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    group(root, version, unlimited, 10**9, 0)
    group(root / "box", version, "600000000", 450_000_000, 50_000_000)
    group(root / "box/inner", version, unlimited, 450_000_000, 0)
    (tmp_path / "own").write_text(membership)
    monkeypatch.setattr(memory_limit, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory_limit, "_OWN_CGROUPS", tmp_path / "own")
    assert available_memory() == 600_000_000 - 450_000_000 + 50_000_000


def test_a_container_that_sees_only_itself(tmp_path, monkeypatch):
    group(tmp_path / "memory", 1, "600000000", 450_000_000, 0)
    (tmp_path / "own").write_text("4:memory:/docker/0123456789\n")
    monkeypatch.setattr(memory_limit, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory_limit, "_OWN_CGROUPS", tmp_path / "own")
    assert available_memory() == 150_000_000


def test_without_containers_the_machine_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limit, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory_limit, "_OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(memory_limit.psutil, "virtual_memory", lambda: type("", (), {"available": 12345}))
    assert available_memory() == 12345


@pytest.mark.parametrize("promised", [None, 10**12])
def test_the_default_tile_fits_in_the_container(tiny, monkeypatch, promised):
    cost = tile_cost(tiny, window=8, overlap=32, upscale=2)
    monkeypatch.setattr(memory_limit, "available_memory", lambda device: 100 * 2**20)
    tile = choose_tile(cost, (4000, 4000), "auto", memory=promised, reserved=50 * 2**20)
    if promised:
        assert tile == memory_limit.LARGEST_AUTO_TILE
        return
    assert cost.total((4000, 4000), tile) <= 25 * 2**20 < cost.total((4000, 4000), tile + 8)
