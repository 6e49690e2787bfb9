"""What the compiler makes of the GPU kernels, without a GPU: registers, stack, shared memory, instructions.

    python -m taylorir.cost.triton_report --target sm_90 gfx942 --head-dim 10 30 --out compiled.csv

Triton brings the assemblers, so the kernels compile for every target on any Linux machine. ``stack_bytes`` is
a thread's local memory, which holds what found no register; ``programs`` how many fit on a multiprocessor.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import tempfile
from pathlib import Path

import pandas as pd
import torch

from taylorir.attention.kernels.triton_launch import (
    CONFIGS,
    FAMILIES,
    KernelConfig,
    kernel_constants,
    padded,
)
from taylorir.rows import one_line, provenance, write_rows

SHARED_KIB = {
    **dict.fromkeys(("sm_80", "sm_87"), 163),
    **dict.fromkeys(("sm_86", "sm_89", "sm_120", "sm_121"), 99),
    **dict.fromkeys(("sm_90", "sm_100", "sm_103"), 227),
    "gfx942": 64,
}
"""Shared memory that a program may have on each target."""

KERNELS = ("moments", "readout", "pullback")
_POINTERS = {
    **dict.fromkeys(("high_ptr", "low_ptr", "den_ptr", "h_ptr", "tau_ptr", "dtau_ptr"), "*fp32"),
    **dict.fromkeys(("table_ptr", "order_ptr"), "*i32"),
}
_SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_ALIGNED = re.compile(r".*_(ptr|sb|sh)$")


def compile_report(
    kernel: str,
    head_dim: int,
    *,
    target: str = "sm_90",
    dtype: torch.dtype = torch.bfloat16,
    query: bool = True,
    regions: bool = False,
    config: KernelConfig | None = None,
) -> dict[str, object]:
    """Compile one kernel and read off its registers, stack, shared memory, programs and instructions.

    Args:
        kernel: "moments", "readout" or "pullback".
        head_dim: d, and d_v.
        target: a key of ``SHARED_KIB``, e.g. "sm_90" for H100 and H200.
        dtype: of q, k, v.
        query, regions: which variant.
        config: how; default what :mod:`triton_launch` would use.

    Raises:
        RuntimeError, TritonError: the compiler failed.
        RuntimeError: Triton was told to interpret, so it cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from taylorir.attention.kernels import triton_kernels

    function = getattr(triton_kernels, f"{kernel}_kernel")
    if not hasattr(function, "cache_key"):
        raise RuntimeError("unset TRITON_INTERPRET: in interpreter mode Triton does not compile")
    family, amd = FAMILIES[target], target.startswith("gfx")
    config = config or CONFIGS[family][dtype == torch.bfloat16][padded(head_dim)][kernel]
    constants = {
        **dict.fromkeys(("x_sn", "z_sn", "out_sn", "dx_sn"), head_dim),
        "SPLITS": 1,
        **kernel_constants(config, head_dim, head_dim, dtype, family, ordered=regions, query=query),
    }
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    types = {name: "constexpr" for name in constants} | _POINTERS
    signature = {
        name: types.get(name, f"*{_SHORT[dtype]}" if name.endswith("_ptr") else "i32")
        for name in function.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if _ALIGNED.match(name)
    }
    warp = 64 if amd else 32
    compiled = triton.compile(
        ASTSource(function, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("hip", target, warp) if amd else GPUTarget("cuda", int(target[3:]), warp),
        options=config.options(),
    )
    found = _inspect_amd(compiled.asm["amdgcn"]) if amd else _inspect_nvidia(compiled.asm["cubin"])
    registers, stack, instructions = found
    shared = compiled.metadata.shared
    threads = warp * config.num_warps
    fitting = min(
        (131072 if amd else 65536) // (-(-registers // 8) * 8 * threads),
        SHARED_KIB[target] * 1024 // max(shared, 1),
    )
    return {
        **config._asdict(),
        "registers": registers,
        "stack_bytes": stack,
        "shared_bytes": shared,
        "programs": fitting,
        "instructions": instructions,
    }


def _inspect_nvidia(cubin: bytes) -> tuple[int, int, int]:
    """Registers and stack bytes of a thread, and the number of instructions."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, listing = (
            subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return int(registers), int(stack), len(re.findall(r"/\*[0-9a-f]{4,5}\*/", listing))


def _inspect_amd(assembly: str) -> tuple[int, int, int]:
    """The same, from the notes that end an assembly listing."""
    registers, stack = (
        int(re.search(rf"\.{note}:\s*(\d+)", assembly)[1])
        for note in ("vgpr_count", "private_segment_fixed_size")
    )
    return registers, stack, len(re.findall(r"^\t[sv]_|^\t(?:ds|global|buffer|scratch)_", assembly, re.M))


def report_rows(
    targets: list[str], dtypes: list[torch.dtype], head_dims: list[int]
) -> list[dict[str, object]]:
    """A row for each kernel and variant; what does not compile says so in ``status``."""
    from triton.errors import TritonError

    names = ("target", "dtype", "head_dim", "kernel", "query", "regions")
    rows = []
    for values in itertools.product(targets, dtypes, head_dims, KERNELS, (True, False), (True, False)):
        case = dict(zip(names, values, strict=True))
        try:
            found = {"status": "ok", **compile_report(**case)}
        except (RuntimeError, TritonError) as error:
            found = {"status": one_line(error)}
        rows.append(case | found | provenance(dtype=case["dtype"]))
    return rows


def main() -> None:
    names = [str(dtype).removeprefix("torch.") for dtype in _SHORT]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", nargs="+", default=list(SHARED_KIB), choices=list(SHARED_KIB))
    parser.add_argument("--dtype", nargs="+", default=names, choices=names)
    parser.add_argument("--head-dim", type=int, nargs="+", default=[10, 30, 64])
    parser.add_argument("--out", type=Path, help="CSV file for all rows; the terminal shows the worst")
    arguments = parser.parse_args()
    dtypes = [getattr(torch, name) for name in arguments.dtype]
    frame = pd.DataFrame(report_rows(arguments.target, dtypes, arguments.head_dim))
    if arguments.out is not None:
        write_rows(arguments.out, frame)
    frame["failed"] = frame["status"] != "ok"
    needs = {"failed": "sum", "stack_bytes": "max", "shared_bytes": "max", "programs": "min"}
    print(frame.groupby(["target", "dtype", "head_dim"], sort=False).agg(needs).to_string())


if __name__ == "__main__":
    main()
