#!/usr/bin/env bash
# Makes a minimal Debian tree with debootstrap, rewrites it whole with the counting tool, compares commands in both trees.
# Needs root, a network and flicker-aot in PATH. ROOTFS_TREE=DIR uses an existing tree instead.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(dirname "$(readlink -f "$0")")
tree=${ROOTFS_TREE:-$work/debian}
if [ ! -d "$tree" ]; then
    command -v debootstrap >/dev/null || { echo "rootfs_demo.sh: debootstrap is not installed" >&2; exit 1; }
    debootstrap --variant=minbase --include=python3-minimal bookworm "$tree" >"$work/log" || { tail "$work/log" >&2; exit 1; }
fi

echo "== flicker-aot rootfs $tree DST --tool count"
flicker-aot rootfs "$tree" "$work/hooked" --tool count
echo "== again, unchanged"
time flicker-aot rootfs "$tree" "$work/hooked" --tool count -q

commands=(
    'ls / | sort -r | head -n 3; for i in 1 2 3; do echo $((i * i)); done | while read -r x; do echo "square $x"; done'
    'find /usr/share/doc -name copyright | xargs grep -l GPL | wc -l'
    'perl -e "print join(q(,), map { \$_ ** 2 } 1 .. 9), qq(\n); print \`id -u\`"'
    'dpkg -l | wc -l; dpkg --verify coreutils'
    'apt-get update --print-uris; apt-get -s remove perl'
)
[ ! -e "$tree/usr/bin/python3" ] || commands+=(
    'python3 -c "import os, subprocess, threading; print(subprocess.check_output([\"ls\", \"/\"]), os.getuid())"'
)
for command in "${commands[@]}"; do
    echo "== $command"
    chroot "$tree" /bin/bash -c "$command" >"$work/expected" 2>&1 || true
    rm -f "$work/hooked/tmp/count.json"
    FLICKER_AOT_OUTPUT=/tmp/count.json chroot "$work/hooked" /bin/bash -c "$command" >"$work/actual" 2>&1 || true
    cmp "$work/expected" "$work/actual" || { diff "$work/expected" "$work/actual" | head; exit 1; }
    head -n 3 "$work/actual"
    python "$here/demo_table.py" "$work/hooked/tmp/count.json" | sed -n 1,8p
done
echo "the same output in both trees"
