#!/bin/sh
# install-wheel WHEELS PACKAGE VENV: install mlc_llm, and what it requires, into VENV.
# The wheel comes from the folder WHEELS; where that is empty, it is built from PACKAGE.
set -eu
wheels=$1 package=$2 venv=$3
chosen=$(mktemp -d)
if ls "$wheels"/*.whl >/dev/null 2>&1; then
    # Only from the folder: a name that the public index has too must not be taken there.
    python3 -m pip download --no-index --no-deps --pre --quiet \
        --find-links "$wheels" --dest "$chosen" mlc_llm
else
    echo "no built wheel was handed in: building the stand-in package"
    python3 -m pip wheel --cache-dir /var/cache/pip --no-deps --wheel-dir "$chosen" "$package"
fi
python3 -m pip --python "$venv" install --cache-dir /var/cache/pip --no-compile "$chosen"/*.whl
python3 -m pip --python "$venv" check
# Compiled here, with hashes in place of times: the file system is read-only later, and
# the same wheel gives the same files.
"$venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$venv/lib"
rm -r "$chosen"
