"""The build context: what of the checkout goes to the builder, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.core.console import human_size
from tools.core.errors import UsageError


@dataclass(frozen=True)
class BuildContext:
    """Size in bytes and the number of files, with the largest of them (bytes, path)."""

    size: int
    files: int
    largest: tuple[tuple[int, str], ...]


def measure(root: Path, largest: int = 10) -> BuildContext:
    """Measure the context at ``root``, as its ``.dockerignore`` leaves it.

    The rules of that file are applied by the Docker SDK for Python.
    """
    from docker.utils.build import exclude_paths

    ignore = root / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    sizes = []
    for name in exclude_paths(str(root), rules):
        path = root / name
        if path.is_file() and not path.is_symlink():
            sizes.append((path.stat().st_size, Path(name).as_posix()))
    sizes.sort(reverse=True)
    return BuildContext(sum(size for size, _ in sizes), len(sizes), tuple(sizes[:largest]))


def check(context: BuildContext, limit: int) -> None:
    """Refuse a context over ``limit`` bytes, naming its largest entries (UsageError)."""
    if context.size <= limit:
        return
    entries = "\n".join(f"  {human_size(size):>10}  {name}" for size, name in context.largest)
    raise UsageError(
        f"The build context is {human_size(context.size)}, over the limit of "
        f"{human_size(limit)}; its largest entries stand above.",
        "Add them to .dockerignore, or raise CONTEXT_LIMIT.",
        entries,
    )
