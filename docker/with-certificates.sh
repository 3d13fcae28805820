#!/bin/sh
# Run a command that trusts the certificate bundle of the build secret, if there is one.
set -eu
bundle=/run/secrets/ca-certificates
if [ -s "$bundle" ]; then
    export PIP_CERT="$bundle" SSL_CERT_FILE="$bundle" REQUESTS_CA_BUNDLE="$bundle"
    export GIT_SSL_CAINFO="$bundle" CARGO_HTTP_CAINFO="$bundle"
fi
exec "$@"
