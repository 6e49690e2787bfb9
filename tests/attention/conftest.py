"""Tests of the operator run on the CPU by plain PyTorch and by the C++ kernels alike."""

import pytest
import torch

from taylorir.attention.kernels import cpp_operator


@pytest.fixture(params=["torch", "cpp"])
def each_backend(request, monkeypatch):
    """The backend that "auto" is; skips the C++ kernels where no compiler builds them."""
    if request.param == "cpp" and not cpp_operator.load():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TAYLORIR_BACKEND", request.param)
    return request.param


@pytest.fixture
def memory_of_nan():
    """New tensors hold NaN at first, so that what is never written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # with it, PyTorch fills new memory
    yield
    torch.use_deterministic_algorithms(before)
