#!/usr/bin/env bash
# Checks licences, sources and known vulnerabilities of all dependencies.
set -euo pipefail

cd "$(dirname "$0")/.."

# Unoptimised: it takes longer to build than to run.
cargo deny --version >/dev/null 2>&1 || cargo install --locked --debug cargo-deny
cargo deny --locked check bans licenses sources
# The database of vulnerabilities is fetched from the network; a machine without it is no reason to fail.
if cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check advisories
else
    echo "deny: the advisory database cannot be reached: vulnerabilities not checked"
fi
