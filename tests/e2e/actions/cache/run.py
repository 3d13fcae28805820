"""Note what was asked of the cache, and find nothing."""

import json
import os

inputs = json.loads(os.environ["INPUTS"])
assert inputs["path"] and inputs["key"], "path and key are required"
assert inputs["lookup-only"] in ("true", "false"), inputs["lookup-only"]
asked = {key: inputs[key] for key in ("path", "key", "restore-keys", "lookup-only")}
with open(os.environ["E2E_CACHES"], "a", encoding="utf-8") as sink:
    sink.write(json.dumps({"job": os.environ["GITHUB_JOB"], **asked}) + "\n")
print(f"Cache not found for input keys: {inputs['key']}")
