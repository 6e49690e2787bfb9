"""Tests of the operator run on the CPU by plain PyTorch and by the C++ kernels alike."""

import pytest

from taylorir.attention.kernels import cpp_operator


@pytest.fixture(params=["torch", "cpp"])
def each_backend(request, monkeypatch):
    """The backend that "auto" is; skips the C++ kernels where no compiler builds them."""
    if request.param == "cpp" and not cpp_operator.load():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TAYLORIR_BACKEND", request.param)
    return request.param
