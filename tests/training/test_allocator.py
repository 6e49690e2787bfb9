"""What is freed is kept, where the C library can be told so."""

import os
import platform
import subprocess
import sys

import pytest

from taylorir.training import allocator

FAULTS = """
import resource, torch
from taylorir.training import keep_freed_memory
print(keep_freed_memory())
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        kept = [torch.ones(1 << 20) for _ in range(4)]
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
pages()
print(pages(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [n for n in os.environ if n.startswith("MALLOC_") or n in ("LD_PRELOAD", "GLIBC_TUNABLES")]:
        monkeypatch.delenv(name)


def run(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    told, pages, peak = done.stdout.split()
    return told == "True", float(pages), int(peak)


@needs_glibc
def test_the_next_tensors_take_no_page_from_the_system_and_the_peak_does_not_grow(monkeypatch):
    told, pages, peak = run(monkeypatch)
    assert told and pages < 100  # of 4096 that the four tensors have
    assert peak < 1.05 * run(monkeypatch, MALLOC_TOP_PAD_="0")[2]


@needs_glibc
@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_what_the_environment_says_stays(name, monkeypatch):
    told, pages, _ = run(monkeypatch, **{name: "0" if name.startswith("M") else "glibc.malloc.top_pad=0"})
    assert not told and pages > 1000


def test_another_c_library_is_left_alone(monkeypatch):
    for error in (TypeError, OSError, AttributeError):

        def refuse(name, error=error):
            raise error

        monkeypatch.setattr(allocator.ctypes, "CDLL", refuse)
        assert not allocator.keep_freed_memory()
