"""For ``torch.hub``: ``torch.hub.load("OWNER/taylorir", "load_network", "taylorswinir_mini_x2_s0")``."""

dependencies = ["torch", "numpy", "pandas", "safetensors", "lazy_loader", "psutil", "filelock"]

from taylorir.networks import build_model, load_network, taylorize  # noqa: E402, F401
