/* Names of the x86-64 system calls: linux/arch/x86/entry/syscalls/syscall_64.tbl as of Linux 6.18.
 * One string and no pointers: the runtime has no relocations. A name begins with a capital (of `_` that is DEL), or with 128 + n where its first
 * n characters are those of the name before; a space stands where there is none. A NUL behind each would take 700 bytes more. */
#ifndef SYSCALL_NAMES_H
#define SYSCALL_NAMES_H

/* By number, from 0; those of the gap have no place. */
#define NAMES_GAP 337
#define NAMES_GAP_END 424
static const char syscall_names[] =
    "Read" "Write" "Open" "Close" "Stat" "Fstat" "Lstat" "Poll" "Lseek" "Mmap" "Mprotect" "Munmap" "Brk"
    "Rt_sigaction" "\206procmask" "\206return" "Ioctl" "Pread64" "Pwrite64" "Readv" "Writev" "Access" "Pipe"
    "Select" "Sched_yield" "Mremap" "Msync" "Mincore" "Madvise" "Shmget" "\203at" "\203ctl" "Dup" "\2032" "Pause"
    "Nanosleep" "Getitimer" "Alarm" "Setitimer" "Getpid" "Sendfile" "Socket" "Connect" "Accept" "Sendto" "Recvfrom"
    "Sendmsg" "Recvmsg" "Shutdown" "Bind" "Listen" "Getsockname" "\203peername" "Socketpair" "Setsockopt"
    "Getsockopt" "Clone" "Fork" "Vfork" "Execve" "Exit" "Wait4" "Kill" "Uname" "Semget" "\203op" "\203ctl" "Shmdt"
    "Msgget" "\203snd" "\203rcv" "\203ctl" "Fcntl" "Flock" "Fsync" "Fdatasync" "Truncate" "Ftruncate" "Getdents"
    "\203cwd" "Chdir" "Fchdir" "Rename" "Mkdir" "Rmdir" "Creat" "Link" "Unlink" "Symlink" "Readlink" "Chmod"
    "Fchmod" "Chown" "Fchown" "Lchown" "Umask" "Gettimeofday" "\203rlimit" "\204usage" "Sysinfo" "Times" "Ptrace"
    "Getuid" "Syslog" "Getgid" "Setuid" "\203gid" "Geteuid" "\204gid" "Setpgid" "Getppid" "\204grp" "Setsid"
    "\203reuid" "\205gid" "Getgroups" "Setgroups" "\203resuid" "Getresuid" "Setresgid" "Getresgid" "\203pgid"
    "Setfsuid" "\205gid" "Getsid" "Capget" "\203set" "Rt_sigpending" "\206timedwait" "\206queueinfo" "\206suspend"
    "Sigaltstack" "Utime" "Mknod" "Uselib" "Personality" "Ustat" "Statfs" "Fstatfs" "Sysfs" "Getpriority"
    "Setpriority" "Sched_setparam" "\206getparam" "\206setscheduler" "\206getscheduler" "\211_priority_max" "\224in"
    "\206rr_get_interval" "Mlock" "Munlock" "Mlockall" "Munlockall" "Vhangup" "Modify_ldt" "Pivot_root" "\177sysctl"
    "Prctl" "Arch_prctl" "Adjtimex" "Setrlimit" "Chroot" "Sync" "Acct" "Settimeofday" "Mount" "Umount2" "Swapon"
    "\205ff" "Reboot" "Sethostname" "\203domainname" "Iopl" "\203erm" "Create_module" "Init_module" "Delete_module"
    "Get_kernel_syms" "Query_module" "Quotactl" "Nfsservctl" "Getpmsg" "Putpmsg" "Afs_syscall" "Tuxcall" "Security"
    "Gettid" "Readahead" "Setxattr" "Lsetxattr" "Fsetxattr" "Getxattr" "Lgetxattr" "Fgetxattr" "Listxattr"
    "Llistxattr" "Flistxattr" "Removexattr" "Lremovexattr" "Fremovexattr" "Tkill" "Time" "Futex" "Sched_setaffinity"
    "\206getaffinity" "Set_thread_area" "Io_setup" "\203destroy" "\203getevents" "\203submit" "\203cancel"
    "Get_thread_area" "Lookup_dcookie" "Epoll_create" "\207tl_old" "\206wait_old" "Remap_file_pages" "Getdents64"
    "Set_tid_address" "Restart_syscall" "Semtimedop" "Fadvise64" "Timer_create" "\206settime" "\206gettime"
    "\211overrun" "\206delete" "Clock_settime" "\206gettime" "\211res" "\206nanosleep" "Exit_group" "Epoll_wait"
    "\206ctl" "Tgkill" "Utimes" "Vserver" "Mbind" "Set_mempolicy" "Get_mempolicy" "Mq_open" "\203unlink"
    "\203timedsend" "\210receive" "\203notify" "\203getsetattr" "Kexec_load" "Waitid" "Add_key" "Request_key"
    "Keyctl" "Ioprio_set" "\207get" "Inotify_init" "\210add_watch" "\210rm_watch" "Migrate_pages" "Openat" "Mkdirat"
    "Mknodat" "Fchownat" "Futimesat" "Newfstatat" "Unlinkat" "Renameat" "Linkat" "Symlinkat" "Readlinkat" "Fchmodat"
    "Faccessat" "Pselect6" "Ppoll" "Unshare" "Set_robust_list" "Get_robust_list" "Splice" "Tee" "Sync_file_range"
    "Vmsplice" "Move_pages" "Utimensat" "Epoll_pwait" "Signalfd" "Timerfd_create" "Eventfd" "Fallocate"
    "Timerfd_settime" "\210gettime" "Accept4" "Signalfd4" "Eventfd2" "Epoll_create1" "Dup3" "Pipe2" "Inotify_init1"
    "Preadv" "Pwritev" "Rt_tgsigqueueinfo" "Perf_event_open" "Recvmmsg" "Fanotify_init" "\211mark" "Prlimit64"
    "Name_to_handle_at" "Open_by_handle_at" "Clock_adjtime" "Syncfs" "Sendmmsg" "Setns" "Getcpu" "Process_vm_readv"
    "\213writev" "Kcmp" "Finit_module" "Sched_setattr" "\206getattr" "Renameat2" "Seccomp" "Getrandom"
    "Memfd_create" "Kexec_file_load" "Bpf" "Execveat" "Userfaultfd" "Membarrier" "Mlock2" "Copy_file_range"
    "Preadv2" "Pwritev2" "Pkey_mprotect" "\205alloc" "\205free" "Statx" "Io_pgetevents" "Rseq" "Uretprobe" "Uprobe"
    "Pidfd_send_signal" "Io_uring_setup" "\211enter" "\211register" "Open_tree" "Move_mount" "Fsopen" "Fsconfig"
    "Fsmount" "Fspick" "Pidfd_open" "Clone3" "\203se_range" "Openat2" "Pidfd_getfd" "Faccessat2" "Process_madvise"
    "Epoll_pwait2" "Mount_setattr" "Quotactl_fd" "Landlock_create_ruleset" "\211add_rule" "\211restrict_self"
    "Memfd_secret" "Process_mrelease" "Futex_waitv" "Set_mempolicy_home_node" "Cachestat" "Fchmodat2"
    "Map_shadow_stack" "Futex_wake" "\210it" "\206requeue" "Statmount" "Listmount" "Lsm_get_self_attr"
    "\204set_self_attr" "\204list_modules" "Mseal" "Setxattrat" "Getxattrat" "Listxattrat" "Removexattrat"
    "Open_tree_attr" "File_getattr" "\205setattr";

#endif
