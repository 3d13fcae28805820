"""Clone the commit of the event as actions/checkout does.

Refs and depth: ``src/ref-helper.ts`` and ``src/git-source-provider.ts`` of actions/checkout.
Afterwards origin is the address on GitHub, where nothing can be read without a token.
"""

import json
import os
import subprocess


def git(*args: str) -> None:
    print("git", *args, flush=True)
    subprocess.run(["git", *args], check=True)


inputs = json.loads(os.environ["INPUTS"])
ref, sha = os.environ["GITHUB_REF"], os.environ["GITHUB_SHA"]
source, depth = os.environ["E2E_REPOSITORY"], int(inputs["fetch-depth"])
assert inputs["persist-credentials"] == "false", "the token would stay in the clone"
assert inputs["submodules"] in ("true", "false", "recursive"), inputs["submodules"]

kind, _, name = ref.removeprefix("refs/").partition("/")
here = {"heads": f"refs/remotes/origin/{name}", "pull": f"refs/remotes/pull/{name}"}.get(
    kind, ref
)
refs = [f"+{ref}:{ref}" if kind == "tags" else f"+{sha}:{here}"]
if depth <= 0:
    every = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    refs = every + (refs if kind == "pull" else [])
limit = [f"--depth={depth}"] if depth > 0 else []

git("init", "--quiet", ".")
git("config", "--local", "gc.auto", "0")
git("fetch", "--quiet", "--no-tags", "--prune", *limit, source, *refs)
if kind == "heads":
    git("checkout", "--quiet", "--force", "-B", name, here)
else:
    git("checkout", "--quiet", "--force", here)
done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
assert done.stdout.strip() == sha, f"{ref} is {done.stdout.strip()}, not {sha}"
server, repository = os.environ["GITHUB_SERVER_URL"], os.environ["GITHUB_REPOSITORY"]
git("remote", "add", "origin", f"{server}/{repository}")
if inputs["submodules"] != "false":
    recursive = ["--recursive"] if inputs["submodules"] == "recursive" else []
    git("submodule", "update", "--init", "--force", *recursive)
