"""Run benchmarks by name, or all: ``python -m bench [NAME ...]``.

Each is a module of this folder that prints its own table, and can be run by itself as
``python -m bench.NAME``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    """All benchmarks."""
    stems = {path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")}
    return sorted(stems - {"compare"})


def main(chosen: list[str]) -> int:
    """Run the chosen ones, or all, one after another; 2 for an unknown name."""
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(names())}")
        return 2
    codes = []
    for name in chosen or names():
        print(f"== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
