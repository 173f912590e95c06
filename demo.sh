#!/usr/bin/env bash
# Writes a small synthetic dump and runs commands on it. The argument is the xkdump to use.
set -euo pipefail
xkdump=$1
sample=$(mktemp -d)
trap 'rm -rf "$sample"' EXIT
run() {
    printf '\n$ xkdump'
    printf ' %s' "${@//$sample\//}"
    printf '\n'
    "$xkdump" "$@"
}
run sample "$sample/2006" --like 2006
run sys "$sample/2006/vmlinux" "$sample/2006/vmcore"
run bt -a "$sample/2006/vmlinux" "$sample/2006/vmcore"
run notes "$sample/2006/vmcore"
