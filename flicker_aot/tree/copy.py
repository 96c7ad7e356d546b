"""Faithful copies. In: an entry of a tree. Out: the same thing at another path: contents with their holes, attributes.

Attributes are owner, extended attributes (access control lists among them), mode, times, in the order in which the
kernel does not undo one by the next (chown clears setuid and capabilities). Inode flags (chattr) are not copied.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..model.tree import Entry

_BLOCK: Final = 1 << 20
_CAPABILITY: Final = "security.capability"
_OF_CONTENTS: Final = ("security.ima", "security.evm")  # signatures: wrong for other contents
_PRIVILEGE: Final = stat.S_ISUID | stat.S_ISGID
_IN_KERNEL_FAILURES: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY)


def copy_contents(source: Path, destination: Path) -> None:
    """The bytes of a regular file into a new file; holes stay holes. OSError."""
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(read).st_size
        write = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for start, end in _extents(read, size):
                _copy_range(read, write, start, end)
            os.ftruncate(write, size)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """[start, end) of what is not a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
            end = os.lseek(handle, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            start, end = at, size  # a file system that does not know
        yield start, end
        at = end


def _copy_range(read: int, write: int, start: int, end: int) -> None:
    in_kernel = True
    while start < end:
        count = min(end - start, 1 << 30)
        if in_kernel:
            try:
                done = os.copy_file_range(read, write, count, start, start)
            except OSError as error:
                if error.errno not in _IN_KERNEL_FAILURES:
                    raise
                done = 0
            if done == 0:  # also what some kernels say of files that are made up while they are read (/proc)
                in_kernel = False
                continue
        else:
            block = os.pread(read, min(count, _BLOCK), start)
            if not block:
                return  # it shrank meanwhile
            done = os.pwrite(write, block, start)
        start += done


def make_special(entry: Entry, destination: Path) -> None:
    """A symbolic link, FIFO, socket or device, without its attributes. OSError, as where devices are not allowed."""
    if entry.type == stat.S_IFLNK:
        destination.symlink_to(entry.target or "")
    elif entry.type == stat.S_IFIFO:
        os.mkfifo(destination, 0o600)
    else:
        os.mknod(destination, entry.type | 0o600, entry.rdev)


def set_attributes(
    entry: Entry, source: Path, destination: Path, *, is_rewritten: bool = False, drop_privilege: bool = False
) -> tuple[str, ...]:
    """Gives ``destination`` what ``source`` has. Returns what could not be given, a line each.

    ``is_rewritten``: the contents are not the source's, so neither are signatures of them. ``drop_privilege``: without
    setuid, setgid and file capabilities. OSError where the mode or the times cannot be set.
    """
    failed: list[str] = []
    is_link = entry.type == stat.S_IFLNK
    status = destination.lstat()
    is_owned = (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
    if not is_owned:
        try:
            os.chown(destination, entry.uid, entry.gid, follow_symlinks=False)
            is_owned = True
        except OSError:
            failed.append(f"owner {entry.uid}:{entry.gid}")
    failed += _copy_xattrs(source, destination, is_rewritten=is_rewritten, drop_privilege=drop_privilege)
    if not is_link:
        mode = entry.mode
        if drop_privilege or not is_owned:  # never setuid for another owner than it was
            mode &= ~_PRIVILEGE
        destination.chmod(mode)
    os.utime(destination, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
    return tuple(failed)


def _copy_xattrs(source: Path, destination: Path, *, is_rewritten: bool, drop_privilege: bool) -> list[str]:
    failed = []
    for name in xattrs_of(source):
        if (drop_privilege and name == _CAPABILITY) or (is_rewritten and name in _OF_CONTENTS):
            continue
        try:
            os.setxattr(destination, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError:
            failed.append(f"attribute {name}")
    return failed


def xattrs_of(path: Path) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def privileges_of(entry: Entry, source: Path) -> tuple[str, ...]:
    """What a regular file that is executed gives its process: "setuid", "setgid", "capabilities"."""
    found = []
    if entry.mode & stat.S_ISUID:
        found.append("setuid")
    if entry.mode & stat.S_ISGID and entry.mode & stat.S_IXGRP:
        found.append("setgid")
    if _CAPABILITY in xattrs_of(source):
        found.append("capabilities")
    return tuple(found)
