"""What the compiler makes of the GPU kernels, without a GPU: registers, spills, shared memory, instructions.

    python -m taylorir.cost.triton_report --head-dim 10 30 --dtype bfloat16

Triton brings the assembler and the disassembler, so the kernels compile for sm_90 on any Linux machine.
``spill_bytes`` is a thread's stack; ``programs`` how many fit on a multiprocessor (65536 registers, 227 KiB).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import pandas as pd
import torch

from taylorir.attention.kernels.triton_taylor import CONFIGS, CONFIGS_FLOAT32, PRECISIONS, Launch, padded

KERNELS = ("moments", "readout", "pullback")
_POINTERS = {
    "high_ptr": "*fp32",
    "low_ptr": "*fp32",
    "den_ptr": "*fp32",
    "h_ptr": "*fp32",
    "tau_ptr": "*fp32",
    "dtau_ptr": "*fp32",
}
_TABLES = ("table_ptr", "order_ptr")
_SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_ALIGNED = re.compile(r".*_(ptr|sb|sh)$")


def compile_report(
    kernel: str,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    query: bool = True,
    regions: bool = False,
    launch: Launch | None = None,
    capability: int = 90,
) -> dict[str, object]:
    """Compile one kernel and read off what it needs.

    Args:
        kernel: "moments", "readout" or "pullback".
        head_dim: d, and d_v.
        dtype: of q, k, v.
        query, regions: which variant.
        launch: how; default what :mod:`triton_taylor` would use.
        capability: the architecture, 90 for H100 and H200.

    Raises:
        RuntimeError: Triton was told to interpret, so it cannot compile.
    """
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from taylorir.attention.kernels import triton_kernels

    function = getattr(triton_kernels, f"{kernel}_kernel")
    if not hasattr(function, "cache_key"):
        raise RuntimeError("unset TRITON_INTERPRET: in interpreter mode Triton does not compile")
    low_precision = dtype == torch.bfloat16
    width = padded(head_dim)
    launch = launch or (CONFIGS if low_precision else CONFIGS_FLOAT32)[width][kernel]
    constants = {
        **dict.fromkeys(("x_sn", "z_sn", "out_sn", "dx_sn", "d", "dv"), head_dim),
        **{"D": width, "C": width, "BN": launch.tile_size, "SPLITS": 1, "ORDERED": regions, "QUERY": query},
        **{"OP": tl.bfloat16 if low_precision else tl.float32, "PRECISION": PRECISIONS[dtype]},
    }
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    types = {name: "constexpr" for name in constants} | _POINTERS | dict.fromkeys(_TABLES, "*i32")
    signature = {
        name: types.get(name, f"*{_SHORT[dtype]}" if name.endswith("_ptr") else "i32")
        for name in function.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if _ALIGNED.match(name)
    }
    compiled = triton.compile(
        ASTSource(function, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options=launch.options(),
    )
    registers, spilled, instructions = _inspect(compiled.asm["cubin"], Path(triton.__file__).parent)
    shared = compiled.metadata.shared
    fitting = min(65536 // (-(-registers // 8) * 256 * launch.num_warps), 227 * 1024 // (shared + 1024))
    return {
        "kernel": kernel,
        "head_dim": head_dim,
        "dtype": _SHORT[dtype],
        "query": query,
        "regions": regions,
        **launch._asdict(),
        "registers": registers,
        "spill_bytes": spilled,
        "shared_bytes": shared,
        "programs": fitting,
        "instructions": instructions,
    }


def _inspect(cubin: bytes, triton_folder: Path) -> tuple[int, int, int]:
    """Registers and stack bytes of a thread, and the number of instructions."""
    tool = triton_folder / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, listing = (
            subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True)
            for option in ("-res-usage", "-sass")
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr).groups()
    return int(registers), int(stack), len(re.findall(r"/\*[0-9a-f]{4,5}\*/", listing.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head-dim", type=int, nargs="+", default=[10, 30, 60])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=[str(t)[6:] for t in _SHORT])
    parser.add_argument("--regions", action="store_true")
    arguments = parser.parse_args()
    rows = [
        compile_report(kernel, d, dtype=getattr(torch, dtype), query=query, regions=arguments.regions)
        for dtype in arguments.dtype
        for d in arguments.head_dim
        for kernel in KERNELS
        for query in (True, False)
    ]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
