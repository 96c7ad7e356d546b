"""Which system calls a program makes, and from where. In: a command. Out: how it ended, and a count for each place.

ptrace(2): every process and thread of the command stops at each entry of the kernel, which says from which instruction
(PTRACE_GET_SYSCALL_INFO, Linux 5.3). A child of the caller's own that ends meanwhile is reaped along with them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import InternalError

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_GETEVENTMSG: Final = 0x4201
_EVENT_EXEC: Final = 4
_EVENTS_NEW: Final = (1, 2, 3)  # FORK, VFORK, CLONE
# TRACESYSGOOD, FORK, VFORK, CLONE, EXEC, EXITKILL: children are traced, and die with the tracer.
_OPTIONS: Final = 1 | 2 | 4 | 8 | 16 | 0x100000
_STOP_AT_CALL: Final = signal.SIGTRAP | 0x80
_INFO: Final = struct.Struct("<B3xIQQQ")  # op, arch, instruction pointer, stack pointer, number
_ENTRY: Final = 1
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_SYSCALL_SIZE: Final = 2
_WALL: Final = 0x40000000


class Place(NamedTuple):
    """A system call instruction: in which mapping, at which file offset, and the call's number."""

    mapping: str
    offset: int
    number: int


@dataclass(frozen=True, slots=True)
class Traced:
    """``status``: exit code, or -n for signal n. Of processes whose executable is the program: ``hooked``: calls from
    the allowed place; ``others``: from elsewhere."""

    status: int
    hooked: int
    others: Counter[Place]


@dataclass(slots=True)
class _Process:
    is_program: bool
    hooked: range | None = None  # addresses of the appended code, once it was seen
    places: dict[int, Place] = field(default_factory=dict)


def trace(
    command: Sequence[str],
    *,
    executable: Path,
    allowed: range,
    env: Mapping[str, str],
    folder: Path,
    output: int,
    errors: int,
) -> Traced:
    """Runs ``command`` in ``folder``, its output to descriptors. ``allowed``: file offsets of ``executable``, which is
    its own real path. InternalError where the kernel does not let itself be asked."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ptrace(request: int, pid: int, address: int = 0, data: int | ctypes.Array[ctypes.c_char] = 0) -> int:
        ctypes.set_errno(0)
        pointer = ctypes.cast(data, ctypes.c_void_p) if not isinstance(data, int) else ctypes.c_void_p(data)
        return int(libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), pointer))

    message = ctypes.create_string_buffer(8)

    def told(pid: int) -> int:
        """The number that an event comes with; 0 of a task that is gone."""
        return int.from_bytes(message.raw, "little") if ptrace(_GETEVENTMSG, pid, 0, message) == 0 else 0

    child = os.fork()
    if child == 0:
        _become(command, executable, env, folder, output, errors, ptrace)
    _, status = os.waitpid(child, _WALL)
    if not os.WIFSTOPPED(status):
        raise InternalError(f"{executable}: cannot be traced: it ended before it began, status {status:#x}")
    if ptrace(_SETOPTIONS, child, 0, _OPTIONS) < 0:
        raise InternalError(f"{executable}: cannot be traced: {os.strerror(ctypes.get_errno())}")
    buffer = ctypes.create_string_buffer(88)
    processes: dict[int, _Process] = {}
    others: Counter[Place] = Counter()
    hooked = ended = 0
    tasks, announced = {child}, {child}  # what is traced; the caller may have children of its own, which go on
    ptrace(_SYSCALL, child)
    while tasks:
        try:
            thread, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            break
        if os.WIFSTOPPED(status):
            tasks.add(thread)
            announced.add(thread)
        else:
            tasks.discard(thread)
            processes.pop(thread, None)
            if thread == child:
                ended = os.waitstatus_to_exitcode(status)
            continue
        stop, event, given = os.WSTOPSIG(status), status >> 16, 0
        if stop == _STOP_AT_CALL:
            if ptrace(_GET_SYSCALL_INFO, thread, len(buffer), buffer) < 0:
                continue  # killed meanwhile
            op, arch, address, _, number = _INFO.unpack_from(buffer)
            if op == _ENTRY and arch == _AUDIT_ARCH_X86_64:
                process = processes.get(thread)
                if process is None:
                    process = processes[thread] = _Process(_executable_of(thread) == str(executable))
                if process.is_program:
                    at = address - _SYSCALL_SIZE
                    if process.hooked is not None and at in process.hooked:
                        hooked += 1
                    else:
                        place = _place(thread, at, number)
                        if place.mapping == str(executable) and place.offset in allowed:
                            process.hooked = range(
                                at - (place.offset - allowed.start), at + allowed.stop - place.offset
                            )
                            hooked += 1
                        else:
                            others[place] += 1
        elif event == _EVENT_EXEC:
            processes.pop(thread, None)
            if (
                told(thread) != thread
            ):  # the thread that called exec has taken the first one's number, and its own never ends
                tasks.discard(told(thread))
        elif event in _EVENTS_NEW:
            # The new one may have been seen before its parent's event, and be gone by now.
            tasks |= {told(thread)} - announced - {0}
            announced.add(told(thread))
        elif event == 0 and stop not in (signal.SIGTRAP, signal.SIGSTOP):
            given = stop
        ptrace(_SYSCALL, thread, 0, given)
    return Traced(ended, hooked, others)


def _become(
    command: Sequence[str],
    executable: Path,
    env: Mapping[str, str],
    folder: Path,
    output: int,
    errors: int,
    ptrace: object,
) -> None:
    """The child: the program, traced from its first instruction. Never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (errors, 2)):
            os.dup2(source, target)
        os.closerange(3, 1 << 16)
        os.chdir(folder)
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        assert callable(ptrace)
        ptrace(_TRACEME, 0)
        os.execve(executable, list(command), env)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _executable_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    except OSError:
        return ""


def _place(pid: int, address: int, number: int) -> Place:
    try:
        with Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                start, end, rest = *line.split(" ", 1)[0].split("-"), line.split(None, 5)
                if int(start, 16) <= address < int(end, 16):
                    name = rest[5].rstrip("\n") if len(rest) > 5 else ""
                    return Place(name, int(rest[2], 16) + address - int(start, 16), number)
    except OSError:
        pass
    return Place("", address, number)
