"""Digest the subjects and hand them in; nothing is signed (``src/subject.ts``)."""

import base64
import glob
import hashlib
import json
import os
import re
import urllib.request
from pathlib import Path

inputs = json.loads(os.environ["INPUTS"])
patterns = [part.strip() for part in re.split("[,\n]", inputs["subject-path"]) if part.strip()]
paths = [Path(path) for pattern in patterns for path in sorted(glob.glob(pattern))]
files = [path for path in paths if path.is_file()]
assert files, f"Could not find subject at path {inputs['subject-path']}"
subjects = [
    {"name": file.name, "digest": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}
    for file in files
]
statement = {"_type": "https://in-toto.io/Statement/v1", "subject": subjects}
payload = base64.b64encode(json.dumps(statement).encode()).decode()
envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": []}
request = urllib.request.Request(
    f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/attestations",
    json.dumps({"bundle": {"dsseEnvelope": envelope}}).encode(),
    {"Authorization": f"Bearer {inputs['github-token']}", "Content-Type": "application/json"},
)
print(urllib.request.urlopen(request).read().decode())
