#!/bin/sh
# Run a command that trusts the certificate bundle of the build secret, if there is one, and
# takes packages from where the other secrets say (their addresses may hold passwords).
set -eu
bundle=/run/secrets/ca-certificates
if [ -s "$bundle" ]; then
    export PIP_CERT="$bundle" SSL_CERT_FILE="$bundle" REQUESTS_CA_BUNDLE="$bundle"
    export GIT_SSL_CAINFO="$bundle" CARGO_HTTP_CAINFO="$bundle"
fi
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS; do
    if [ -s "/run/secrets/$name" ]; then
        export "$name=$(cat "/run/secrets/$name")"
    fi
done
exec "$@"
