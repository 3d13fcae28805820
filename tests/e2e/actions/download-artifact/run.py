"""Fetch artifacts with the rules of actions/download-artifact (``src/download-artifact.ts``).

A name goes into ``path`` itself. Of a pattern, each match has a folder of its name; but a
single match (since v5), or with ``merge-multiple`` all, go into ``path`` itself. No match of
a pattern is no error.
"""

import fnmatch
import json
import os
import shutil
import sys
from pathlib import Path

inputs, kept = json.loads(os.environ["INPUTS"]), Path(os.environ["E2E_ARTIFACTS"])
path = Path.cwd() / os.path.expanduser(inputs["path"])
names = sorted(folder.name for folder in kept.iterdir())
if inputs["name"]:
    if inputs["name"] not in names:
        sys.exit(f"::error::Artifact not found for name: {inputs['name']}")
    names = [inputs["name"]]
elif inputs["pattern"]:
    names = fnmatch.filter(names, inputs["pattern"])
same = inputs["merge-multiple"] == "true" or len(names) == 1
for name in names:
    shutil.copytree(kept / name, path if same else path / name, dirs_exist_ok=True)
    print(f"{name}: {path if same else path / name}")
print(f"Total of {len(names)} artifact(s) downloaded")
