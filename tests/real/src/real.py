"""Threads, subprocess, asyncio, multiprocessing, ctypes, ssl, signals, mmap: nothing printed differs from run to run."""

import asyncio
import concurrent.futures
import ctypes
import decimal
import hashlib
import mmap
import multiprocessing
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time


def square(x):
    return x * x


async def tasks():
    server = await asyncio.start_server(lambda r, w: serve(r, w), "127.0.0.1", 7010)
    answers = await asyncio.gather(*(ask(i) for i in range(50)))
    process = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = await process.communicate(b"through cat")
    server.close()
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.1)
    except asyncio.TimeoutError:
        print("timeout")
    return sorted(answers), out, process.returncode


async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def ask(i):
    reader, writer = await asyncio.open_connection("127.0.0.1", 7010)
    writer.write(b"hello %d\n" % i)
    answer = await reader.read()
    writer.close()
    return answer


def main():
    lock, total = threading.Lock(), [0]

    def add():
        for _ in range(1000):
            with lock:
                total[0] += 1

    threads = [threading.Thread(target=add) for _ in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    print(total, sys.executable, os.readlink("/proc/self/exe"))
    print(subprocess.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"x", capture_output=True))
    print(subprocess.run("exit 5", shell=True).returncode, [subprocess.call(["false"]) for _ in range(10)])
    print(asyncio.run(tasks()))
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as pool:
            print(method, pool.map(square, range(20)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print(sum(pool.map(square, range(1000))))
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.getpid() == os.getpid(), libc.syscall(39) == os.getpid(), libc.open(b"/nowhere", 0), ctypes.get_errno())
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    array = (ctypes.c_int * 5)(5, 3, 1, 4, 2)
    libc.qsort(array, 5, 4, callback(lambda a, b: a[0] - b[0]))
    print(list(array))
    context = ssl.create_default_context()
    print(ssl.OPENSSL_VERSION, len(context.get_ca_certs()) > 50, hashlib.sha3_256(b"x").hexdigest())
    got = []
    signal.signal(signal.SIGUSR1, lambda n, f: got.append(n))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    signal.signal(signal.SIGALRM, lambda n, f: got.append(n))
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        time.sleep(0.05)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(got[0], len(got) > 5)
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 0) as m:
            m[1000:1005] = b"hello"
            print(m.find(b"hello"), os.pread(file.fileno(), 5, 1000))
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [1])
    print(socket.recv_fds(b, 10, 2)[0])
    database = sqlite3.connect(":memory:")
    database.execute("create table t(x)")
    database.executemany("insert into t values(?)", ((i,) for i in range(1000)))
    print(database.execute("select sum(x) from t").fetchone(), decimal.Decimal(2).sqrt())
    pid = os.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", "import os, sys; print(os.readlink('/proc/self/exe'), sys.argv); sys.exit(9)"])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGUSR1)


if __name__ == "__main__":
    main()
