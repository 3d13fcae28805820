"""Give the job a Python of its own, with the variables that actions/setup-python sets
(``src/find-python.ts``).
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

version = json.loads(os.environ["INPUTS"])["python-version"]
here = platform.python_version()
assert f"{here}.".startswith(f"{version}."), f"there is {here} here, not {version}"
location = Path(os.environ["RUNNER_TEMP"], "python")
command = [sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", str(location)]
subprocess.run(command, check=True)


def tell(file: str, *lines: str) -> None:
    with open(os.environ[file], "a", encoding="utf-8") as sink:
        sink.writelines(f"{line}\n" for line in lines)


names = ("pythonLocation", "Python_ROOT_DIR", "Python2_ROOT_DIR", "Python3_ROOT_DIR")
tell("GITHUB_ENV", *(f"{name}={location}" for name in names))
tell("GITHUB_ENV", f"PKG_CONFIG_PATH={location}/lib/pkgconfig")
libraries = [str(location / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
tell("GITHUB_ENV", f"LD_LIBRARY_PATH={':'.join(libraries)}")
tell("GITHUB_PATH", str(location), str(location / "bin"))
tell("GITHUB_OUTPUT", f"python-version={here}", f"python-path={location / 'bin' / 'python'}")
