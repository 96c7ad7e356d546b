#!/usr/bin/env bash
# The Debian packages that the test suite needs, by name.
#   tools/apt-packages.sh list     print them
#   tools/apt-packages.sh missing  print those that are not installed
#   tools/apt-packages.sh install  install those that are missing (root); does nothing where none is
set -euo pipefail

packages=(
    gcc g++ make libc6-dev python3 python3-venv # to build the runtime and this package
    musl-tools clang lld mold                   # link modes of the test programs
    binutils gdb strace                         # second opinions: readelf, objdump, backtraces, call traces
    linux-perf valgrind                         # what else looks at programs
    stress-ng                                   # a busy machine for make soak
    busybox-static bash-static zsh-static       # real static programs
    libssl-dev                                  # a static program with tables in its text
    qemu-user-static                            # a large static program that runs others
    golang-go                                   # Go programs, and the Go toolchain's own static ones
    dpkg rpm cpio zstd xz-utils bzip2           # packages and archives, made by the programs that people use
    chromium                                    # the page that report --html writes
    luajit                                      # a just-in-time compiler
    rustc                                       # Rust with +crt-static
)

missing() {
    local p
    for p in "${packages[@]}"; do
        [ "$p" = rustc ] && command -v rustc >/dev/null && continue # rustup's serves as well
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
    done
}

case "${1:-list}" in
    list) printf '%s\n' "${packages[@]}" ;;
    missing) missing ;;
    install)
        mapfile -t need < <(missing)
        [ "${#need[@]}" -gt 0 ] || exit 0
        if [ "$(id -u)" != 0 ]; then
            echo "apt-packages.sh: not root, and these packages are missing: ${need[*]}" >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -q -y --no-install-recommends "${need[@]}"
        ;;
    *) echo "usage: $0 list|missing|install" >&2; exit 2 ;;
esac
