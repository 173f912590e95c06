#!/usr/bin/env bash
# Writes a small synthetic dump into a folder and runs commands on it. The arguments are the xkdump
# to use and the folder, which is kept.
set -euo pipefail
xkdump=$(realpath "$1")
mkdir -p "$2"
cd "$2"
run() {
    printf '\n$ xkdump %s\n' "$*"
    "$xkdump" "$@"
}
run sample 2006 --like 2006 --force
run sys 2006/vmlinux 2006/vmcore
run bt -a 2006/vmlinux 2006/vmcore
run notes 2006/vmcore
printf '\nThe files are in %s.\n' "$2/2006"
