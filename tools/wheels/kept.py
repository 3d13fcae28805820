"""Built wheels that are not finished: what failed in a repair or check goes on from there.

They lie in ``.nox/built/``, a folder each, whose name is a digest of all that went into the
build but the compilers themselves; a run that succeeds removes them.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tools.core import console, files
from tools.core.settings import FIELDS

FOLDER = Path(".nox", "built")  # in the checkout
KEEP = 3  # folders
# Of the environment, what does not reach a wheel: of the terminal and the run, how much is
# done at once, where packages come from (their versions are constrained), and our settings
# (those that matter change the copy or another variable).
_ASIDE = re.compile(
    r"PWD|OLDPWD|SHLVL|_|TERM|COLUMNS|LINES|TE?MP(DIR)?|INVOCATION_ID|JOURNAL_STREAM"
    r"|(SSH|XDG|DBUS|GITHUB|RUNNER|ACTIONS|NOX|PIP|UV|DOCKER|PYTEST|SCCACHE|CCACHE)_\w+"
    r"|CMAKE_BUILD_PARALLEL_LEVEL|CARGO_BUILD_JOBS"
    rf"|(MLC_)?({'|'.join(FIELDS).upper()})"
)


def key(folder: Path, env: Mapping[str, str], *more: str) -> str:
    """The digest of a build: the copy in ``folder`` (names, modes, contents), the environment
    and whatever ``more`` it depends on.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        content = os.readlink(path) if path.is_symlink() else files.sha256(path)
        mode = path.lstat().st_mode & 0o111
        digest.update(f"{path.relative_to(folder)}\0{mode}\0{content}\0".encode())
    for name, value in sorted(env.items()):
        if not _ASIDE.fullmatch(name):
            digest.update(f"{name}={value}\0".encode(errors="surrogateescape"))
    digest.update("\0".join(more).encode())
    return digest.hexdigest()[:32]


def take(store: Path, out: Path) -> Path | None:
    """A copy, in the new folder ``out``, of the wheel that is kept in ``store``; None if there
    is none.
    """
    wheel = next(store.glob("*.whl"), None)
    if wheel is None:
        return None
    console.say(f"going on from {wheel.name}, which an earlier run built and did not finish")
    out.mkdir(parents=True)
    return Path(shutil.copy2(wheel, out))


def keep(wheel: Path, store: Path) -> None:
    """Keep a copy of a wheel in ``store``, whole or not at all, beside the last others."""
    files.remove_tree(part := store.parent / "part")
    part.mkdir(parents=True)
    shutil.copy2(wheel, part)
    files.remove_tree(store)
    os.replace(part, store)
    for old in sorted(store.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns)[:-KEEP]:
        files.remove_tree(old)
