"""Keep files under the artifact's name, with the rules of actions/upload-artifact.

Which files, and below which root they are named: its ``src/shared/search.ts``.
"""

import glob
import json
import os
import shutil
import sys
from pathlib import Path

inputs = json.loads(os.environ["INPUTS"])
name, lines = inputs["name"], inputs["path"].split("\n")
patterns = [str(Path.cwd() / line.strip()) for line in lines if line.strip()]
assert patterns, "path is required"
assert name and not set(name) & set('":<>|*?\r\n\\/'), f"{name!r} is not a name"
assert inputs["if-no-files-found"] in ("warn", "error", "ignore"), inputs["if-no-files-found"]
assert (
    0 <= int(inputs["retention-days"] or 0) <= 90 and 0 <= int(inputs["compression-level"]) <= 9
)


def search_path(pattern: str) -> Path:
    """What is before the first part that has a wildcard."""
    parts = Path(pattern).parts
    plain = [bool(set(part) & set("*?[")) for part in (*parts, "*")].index(True)
    return Path(*parts[:plain])


def hidden(path: Path, root: Path) -> bool:
    """Hidden files and folders are left out."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


files: set[Path] = set()
for pattern in patterns:
    base = search_path(pattern)
    for match in map(Path, glob.glob(pattern, recursive=True)):
        inside = [match, *match.rglob("*")] if match.is_dir() else [match]
        files |= {one for one in inside if one.is_file() and not hidden(one, base)}
if not files:
    said = f"No files were found with the provided path: {inputs['path']}."
    if inputs["if-no-files-found"] == "error":
        sys.exit(f"::error::{said}")
    print(f"::warning::{said}" if inputs["if-no-files-found"] == "warn" else said)
    sys.exit(0)

roots = {search_path(pattern) for pattern in patterns}
root = Path(os.path.commonpath(roots))
if len(patterns) == 1 and files == roots:
    root = root.parent  # a single file
folder = Path(os.environ["E2E_ARTIFACTS"], name)
try:
    folder.mkdir()
except FileExistsError:
    sys.exit(f"::error::(409) Conflict: an artifact with the name {name} already exists")
for file in sorted(files):
    target = folder / file.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    print(f"{name}: {file.relative_to(root)}, {file.stat().st_size} bytes")
