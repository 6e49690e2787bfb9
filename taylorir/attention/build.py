"""``python -m taylorir.attention.build``: build the C++ kernels of the CPU ahead of their first use."""

from __future__ import annotations

import logging
import sys

from taylorir.attention.kernels.cpp_operator import build


def main() -> None:
    """Build, and print where the library lies; one line and exit code 1 where it cannot be built."""
    logging.basicConfig(format="%(message)s")
    try:
        print(build(verbose="--verbose" in sys.argv[1:]))
    except (OSError, RuntimeError) as error:
        sys.exit(f"taylorir: error: {str(error).strip().splitlines()[0]} (--verbose shows all)")


if __name__ == "__main__":
    main()
