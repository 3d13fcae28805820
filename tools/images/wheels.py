"""What the production image installs: a wheel, and what it requires, by hash."""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from tools.core import files
from tools.core.errors import UsageError
from tools.core.secrets import remember_userinfo
from tools.wheels.archive import REQUIREMENTS

# Build secrets, and the variables, uv's own and pip's, whose first they hold.
INDEXES = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS", "PIP_FIND_LINKS"),
}


def find_wheels(root: Path, version: str) -> tuple[str, ...]:
    """Wheels of ``mlc_llm`` of exactly this version in ``dist/`` that Linux can install,
    wherever they were put (UsageError: there are none, or one without its requirements).
    """
    paths = sorted((root / "dist").glob(f"**/mlc_llm-{version}-*.whl"))
    fitting = [path for path in paths if re.search("any|linux", path.stem.rpartition("-")[2])]
    named = f" {version}" if version != "*" else ""
    if not fitting:
        message = f"dist/ holds no wheel of mlc_llm{named} for Linux."
        raise UsageError(message, "Run nox -s wheels first.")
    for path in fitting:
        if not path.with_name(REQUIREMENTS).exists():
            message = f"{REQUIREMENTS} is missing beside {path.relative_to(root)}."
            raise UsageError(message, "Run nox -s wheels again: it writes both.")
    return tuple({path.name: str(path) for path in fitting}.values())


def leave_out(requirements: str, names: Iterable[str]) -> str:
    """Pinned requirements without some packages, and without what only those require.

    Source: the comments ``# via`` that ``uv pip compile`` writes: who requires a package.
    """
    out = {canonicalize_name(name) for name in names}
    blocks = re.findall(r"^[A-Za-z0-9].*\n(?:[ #].*(?:\n|\Z))*", requirements, re.MULTILINE)
    entries = [
        (canonicalize_name(re.split(r"[^\w.-]", one, maxsplit=1)[0]), one) for one in blocks
    ]
    every = {name for name, _ in entries}
    requirers: dict[str, set[str]] = {name: set() for name in every}
    for name, block in entries:
        requirers[name].update(block.partition("# via")[2].replace("#", "").split())
    kept: set[str] = set()
    while new := {
        # By the wheel itself (which is not in the file), or by a package that is kept.
        name
        for name in every - out - kept
        if requirers[name] - every or requirers[name] & kept
    }:
        kept |= new
    return "".join(block for name, block in entries if name in kept)


def hand_in(folder: Path, wheels: Sequence[str], without: Sequence[str], links: str) -> None:
    """Fill the build's named context ``wheels``: each wheel with its requirements, less those
    ``without``, and packages of theirs from the local folders among ``links``.
    """
    (folder / "links").mkdir(parents=True)
    pinned = set()
    for number, path in enumerate(map(Path, wheels)):
        beside = path.with_name(REQUIREMENTS).read_text(encoding="utf-8")
        text = leave_out(beside, without)
        pinned |= set(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))
        files.write(folder / str(number) / REQUIREMENTS, text)
        shutil.copy2(path, folder / str(number))
    files.write(folder / "left-out.txt", " ".join(map(canonicalize_name, without)))
    for place in re.split(r"[\s,]+", links):
        for path in Path(place).glob("*.whl") if place and "://" not in place else ():
            try:
                name, version, *_ = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                continue
            if (name, str(version)) in pinned:
                shutil.copy2(path, folder / "links")


def indexes(env: Mapping[str, str]) -> dict[str, str]:
    """Where packages come from, as build secrets by name: addresses may hold passwords."""
    found = {}
    for name, variables in INDEXES.items():
        text = next(filter(None, map(env.get, variables)), "")
        # uv's lists have commas, and names before addresses (NAME=https://...).
        places = [re.sub(r"^[\w-]+=", "", one) for one in re.split(r"[\s,]+", text)]
        if remote := [remember_userinfo(one) for one in places if "://" in one]:
            found[name] = " ".join(remote)
    return found
