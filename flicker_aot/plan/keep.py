"""Sites that stay as they are because nobody asked for them (--only, --except). In: a site. Out: a reason or None."""

from __future__ import annotations

from typing import Final

from ..model.code import Site
from ..model.options import Options

# The runtime cannot do without these whatever the user is interested in: they decide which stack and which gs a thread
# has, which handlers, masks and filters are installed, what is mapped where, and when a process ends.
ALWAYS_HOOKED: Final = frozenset(
    (
        *(9, 10, 11, 25, 28),  # mmap, mprotect, munmap, mremap, madvise
        *(13, 14, 15, 128, 130, 131),  # rt_sigaction, _sigprocmask, _sigreturn, _sigtimedwait, _sigsuspend, sigaltstack
        *(56, 57, 58, 435),  # clone, fork, vfork, clone3
        *(59, 322, 60, 231),  # execve, execveat, exit, exit_group
        *(157, 158, 317),  # prctl, arch_prctl, seccomp
        *(270, 271, 281, 441, 333, 282, 289),  # pselect6, ppoll, epoll_pwait(2), io_pgetevents, signalfd(4)
        *(216, 329, 462),  # remap_file_pages, pkey_mprotect, mseal
        *(30, 67, 127),  # shmat, shmdt, rt_sigpending
    )
)


def reason_to_keep(site: Site, options: Options) -> str | None:
    """Why ``site`` needs no patch; None where its number is unknown, wanted, or one that the runtime must see."""
    if options.only is None or not site.numbers:
        return None
    wanted = options.only | ALWAYS_HOOKED
    if any(number in wanted for number in site.numbers):
        return None
    return f"system call {', '.join(map(str, site.numbers))}: not asked for"
