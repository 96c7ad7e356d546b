#!/usr/bin/env bash
# Rewrites three programs with the counting tool, runs them, and shows what they called.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
printf '#include <stdio.h>\nint main(void) { return puts("hello from a static C program") < 0; }\n' >"$directory/hello.c"
gcc -O2 -static -o "$directory/hello" "$directory/hello.c"
programs=("$directory/hello")
for candidate in /bin/busybox /bin/bash-static; do
    if [ -x "$candidate" ]; then
        programs+=("$candidate")
    else
        echo "demo: $candidate is not installed (Debian: busybox-static, bash-static); left out"
    fi
done
for program in "${programs[@]}"; do
    out="$directory/$(basename "$program").hooked"
    echo "--- flicker-aot rewrite $program --tool count"
    flicker-aot rewrite "$program" "$out" --tool count
    case "$program" in
        */busybox) arguments=(ls /) ;;
        */bash-static) arguments=(-c 'for i in 1 2 3; do echo "line $i"; done | { read -r x; echo "first: $x"; }') ;;
        *) arguments=() ;;
    esac
    FLICKER_AOT_OUTPUT="$directory/count.json" "$out" "${arguments[@]}"
    cat "$directory/count.json"
    rm -f "$directory/count.json"
done
