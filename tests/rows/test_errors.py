"""Out of memory is recognised in whatever words it is said, and nothing else is taken for it."""

import errno

import numpy as np
import pytest
import torch

from taylorir.rows.errors import is_out_of_memory


@pytest.mark.parametrize(
    "ask",
    [lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: bytearray(2**62)],
    ids=["torch", "numpy", ""],
)
def test_each_librarys_own_words(ask):
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        ask()
    assert is_out_of_memory(raised.value)


def test_words_of_other_systems():
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ...")
    )
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), OSError(errno.ENOENT, "no")]
)
def test_other_errors(error):
    assert not is_out_of_memory(error)
