#!/usr/bin/env bash
# Forges a small dump and looks at it. Takes the xkdump to use as its argument.
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
run sample "$sample/modern" --like modern
run sys "$sample/modern/vmlinux" "$sample/modern/vmcore"
run bt -a "$sample/modern/vmlinux" "$sample/modern/vmcore"
