"""Loops that a tracing JIT compiles, objects, threads, files, a child."""

import hashlib
import subprocess
import tempfile
import threading
from pathlib import Path


def sieve(n: int) -> int:
    composite = bytearray(n)
    found = 0
    for i in range(2, n):
        if composite[i]:
            continue
        found += 1
        for j in range(2 * i, n, i):
            composite[j] = 1
    return found


class Node:
    def __init__(self, depth: int) -> None:
        self.left = Node(depth - 1) if depth else None
        self.right = Node(depth - 1) if depth else None

    def count(self) -> int:
        return 1 + (self.left.count() if self.left else 0) + (self.right.count() if self.right else 0)


def main() -> None:
    print("sieve", sieve(20_000_000), "nodes", sum(Node(14).count() for _ in range(60)))
    results: dict[int, int] = {}

    def work(n: int) -> None:
        results[n] = sieve(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in (50_000, 100_000, 200_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("threads", sorted(results.items()))
    with tempfile.TemporaryDirectory() as folder:
        for i in range(300):
            Path(folder, f"f{i}").write_text("x" * i)
        print("files", sum(path.stat().st_size for path in Path(folder).iterdir()))
    print("digest", hashlib.sha256(b"x" * 1_000_000).hexdigest())
    print("child", subprocess.check_output(["/bin/echo", "hello"]))


main()
