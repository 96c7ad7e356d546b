"""System call names, numbers and classes of x86-64 Linux. In: a name, a number or a set as written. Out: numbers.

Numbers are those of arch/x86/entry/syscalls/syscall_64.tbl up to Linux 6.18 (entries "common" and "64"). Classes
follow strace's %file, %network and so on: a call may be in several, and in none.
"""

from __future__ import annotations

from typing import Final

from .errors import UsageError

# Names in the order of their numbers, from the number that stands beside them.
_FROM_0: Final = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise
    shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept
    sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt
    getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv
    msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat
    link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo
    times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid
    setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget
    capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib
    personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    mlock munlock mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit
    chroot sync acct settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm
    create_module init_module delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg
    afs_syscall tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity
    sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area
    lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address
    restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
    mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat
    unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
    get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create
    eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2
    inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark
    prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv
    process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create
    kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
    pkey_alloc pkey_free statx io_pgetevents rseq uretprobe uprobe
"""
_FROM_424: Final = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
"""

_CLASSES: Final = {
    "file": """
        open stat lstat access execve truncate getcwd chdir rename mkdir rmdir creat link unlink symlink readlink
        chmod chown lchown utime mknod uselib statfs pivot_root chroot acct mount umount2 swapon swapoff quotactl
        setxattr lsetxattr getxattr lgetxattr listxattr llistxattr removexattr lremovexattr utimes inotify_add_watch
        openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
        faccessat utimensat fanotify_mark name_to_handle_at renameat2 execveat statx open_tree move_mount fspick
        openat2 faccessat2 mount_setattr fchmodat2 setxattrat getxattrat listxattrat removexattrat open_tree_attr
        file_getattr file_setattr
    """,
    "network": """
        sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername
        socketpair setsockopt getsockopt getpmsg putpmsg accept4 recvmmsg sendmmsg
    """,
    "process": """
        clone fork vfork execve exit wait4 kill rt_sigqueueinfo arch_prctl tkill exit_group tgkill waitid unshare
        rt_tgsigqueueinfo execveat pidfd_send_signal pidfd_open clone3
    """,
    "memory": """
        mmap mprotect munmap brk mremap msync mincore madvise shmat shmdt mlock munlock mlockall munlockall swapon
        swapoff io_setup io_destroy remap_file_pages mbind set_mempolicy get_mempolicy migrate_pages move_pages
        mlock2 pkey_mprotect process_madvise process_mrelease set_mempolicy_home_node cachestat map_shadow_stack
        mseal
    """,
    "signal": """
        rt_sigaction rt_sigprocmask rt_sigreturn pause kill rt_sigpending rt_sigtimedwait rt_sigqueueinfo
        rt_sigsuspend sigaltstack tkill tgkill signalfd signalfd4 rt_tgsigqueueinfo pidfd_send_signal
    """,
    "time": """
        nanosleep getitimer alarm setitimer gettimeofday times adjtimex settimeofday time timer_create timer_settime
        timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
        timerfd_create timerfd_settime timerfd_gettime clock_adjtime
    """,
    "ipc": """
        shmget shmat shmctl semget semop semctl shmdt msgget msgsnd msgrcv msgctl semtimedop
    """,
    "desc": """
        read write open close fstat poll lseek mmap ioctl pread64 pwrite64 readv writev pipe select dup dup2
        sendfile fcntl flock fsync fdatasync ftruncate getdents fchdir creat fchmod fchown fstatfs readahead
        fsetxattr fgetxattr flistxattr fremovexattr epoll_create getdents64 fadvise64 epoll_wait epoll_ctl mq_open
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr inotify_init inotify_add_watch inotify_rm_watch openat
        mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
        faccessat pselect6 ppoll splice tee sync_file_range vmsplice utimensat epoll_pwait signalfd timerfd_create
        eventfd fallocate timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1
        preadv pwritev perf_event_open fanotify_init fanotify_mark name_to_handle_at open_by_handle_at syncfs setns
        finit_module renameat2 memfd_create kexec_file_load bpf execveat userfaultfd copy_file_range preadv2
        pwritev2 statx pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
        fsconfig fsmount fspick pidfd_open close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
        mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
        process_mrelease cachestat fchmodat2 setxattrat getxattrat listxattrat removexattrat open_tree_attr
        file_getattr file_setattr
    """,
}

NAME_OF: Final[dict[int, str]] = dict(enumerate(_FROM_0.split())) | dict(enumerate(_FROM_424.split(), 424))
NUMBER_OF: Final[dict[str, int]] = {name: number for number, name in NAME_OF.items()}
CLASSES: Final[dict[str, frozenset[int]]] = {
    name: frozenset(NUMBER_OF[member] for member in members.split()) for name, members in _CLASSES.items()
}


def name_of(number: int) -> str:
    """The name of ``number``, or "syscall_N" where the table has none."""
    return NAME_OF.get(number, f"syscall_{number}")


def parse_set(text: str) -> frozenset[int]:
    """Numbers of a comma-separated set of names ("openat"), numbers ("257", "0x101") and classes ("@file").

    Raises UsageError for an element that is none of these, and for an empty set.
    """
    numbers: set[int] = set()
    for element in text.split(","):
        word = element.strip()
        if word.startswith("@"):
            if word[1:] not in CLASSES:
                known = ", ".join(f"@{name}" for name in CLASSES)
                raise UsageError(f"unknown class of system calls {word!r}; known: {known}")
            numbers |= CLASSES[word[1:]]
        elif word in NUMBER_OF:
            numbers.add(NUMBER_OF[word])
        else:
            numbers.add(_parse_number(word))
    return frozenset(numbers)


def _parse_number(word: str) -> int:
    try:
        number = int(word, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise UsageError(f"unknown system call {word!r}: neither a name, nor a number, nor a class such as @file")
    return number
