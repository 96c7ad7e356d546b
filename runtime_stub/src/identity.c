/* The program's own file: /proc/self/exe and its kin answer with the original's path and file, not with the rewritten one.
 *
 * In: path calls of the application, most of them after the kernel has made them; execs, before. Out: the result that the original's file gives, and
 * the path that an exec takes. Own stack, signals deferred (or masked, from translate); any thread; no locks.
 *
 * "Kin" is every way to name the link: own and other pids that run the same file, threads, thread-self, any mount of proc,
 * relative to a directory or to a descriptor. So the test is what the path leads to, not how it is spelled: its last component is `exe`,
 * it is a link of a size of 0 on a file system without a device, which proc's links are (fs/proc/base.c), and the file behind it is
 * the one that this process was started from.
 *
 * The kernel is asked first because it checks the pointer on the way: a path that it has just taken can be read at full speed,
 * and a bad one has its EFAULT. What is decided is decided on a copy, and only our own path is passed on.
 *
 * An exec of the link runs the rewritten file, as the kernel would. So does an exec of the original: a program that asks who it is
 * and starts the answer must not leave its hook behind.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define NR_OPENAT2 437
#define NR_FACCESSAT2 439
#define AT_FDCWD (-100)
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_SYMLINK_FOLLOW 0x400
#define AT_EMPTY_PATH 0x1000
#define O_ACCMODE 3
#define O_CREAT 0100
#define O_TRUNC 01000
#define O_DIRECTORY 0200000
#define O_NOFOLLOW 0400000
#define PAGE 4096ul
#define ENOENT 2
#define EACCES 13
#define EFAULT 14
#define EINVAL 22
#define EROFS 30
#define EOVERFLOW 75
#define S_IFMT 0170000u
#define S_IFREG 0100000u
#define S_IFLNK 0120000u
#define OVERLAP_BYTES 8192 /* a path, and the largest result that is written beside it */

static const char own_link[] = "/proc/self/exe";

enum action { PASS, OPEN, OPEN_HOW, LINK, HANDLE, ANSWER };

struct path_call {
    u8 action;
    u8 path;       /* which argument is the path; a descriptor stands before it where that is not the first */
    u8 out, flags; /* which argument says where the kernel writes to, and which has flags; 0: none (neither is ever the first) */
    u32 stays;     /* flags with which it is a call on the link itself, or may change the file: left to the kernel */
};

#define OPEN_STAYS (O_ACCMODE | O_TRUNC | O_NOFOLLOW | O_DIRECTORY)

static struct path_call call_of(u32 nr) {
    switch (nr) {
    case __NR_open:
        return (struct path_call){OPEN, 0, 0, 1, OPEN_STAYS};
    case __NR_openat:
        return (struct path_call){OPEN, 1, 0, 2, OPEN_STAYS};
    case NR_OPENAT2:
        return (struct path_call){OPEN_HOW, 1, 0, 2, 0};
    case __NR_readlink:
        return (struct path_call){LINK, 0, 1, 2, 0};
    case __NR_readlinkat:
        return (struct path_call){LINK, 1, 2, 3, 0};
    case __NR_stat:
    case __NR_statfs:
        return (struct path_call){ANSWER, 0, 1, 0, 0};
    case __NR_newfstatat:
        return (struct path_call){ANSWER, 1, 2, 3, AT_SYMLINK_NOFOLLOW};
    case __NR_statx:
        return (struct path_call){ANSWER, 1, 4, 2, AT_SYMLINK_NOFOLLOW};
    case __NR_access:
        return (struct path_call){ANSWER, 0, 0, 0, 0};
    case __NR_faccessat:
        return (struct path_call){ANSWER, 1, 0, 0, 0};
    case NR_FACCESSAT2:
        return (struct path_call){ANSWER, 1, 0, 3, AT_SYMLINK_NOFOLLOW};
    case __NR_name_to_handle_at:
        return (struct path_call){HANDLE, 1, 2, 4, 0};
    default:
        return (struct path_call){PASS, 0, 0, 0, 0};
    }
}

static i64 stat_at(i64 dir, const char *path, struct kstat *st, i64 flags) {
    return SYS4(__NR_newfstatat, dir, path, st, flags);
}

/* The file that runs. Asked once: a program may give itself another one later (PR_SET_MM_EXE_FILE), and is then told of that. */
static int own_file(struct kstat *out) {
    if (!__atomic_load_n(&flk_rt.exe_known, __ATOMIC_ACQUIRE)) {
        if (stat_at(AT_FDCWD, own_link, out, 0))
            return 0;
        flk_rt.exe_dev = out->dev;
        flk_rt.exe_ino = out->ino;
        __atomic_store_n(&flk_rt.exe_known, 1, __ATOMIC_RELEASE);
    }
    out->dev = flk_rt.exe_dev;
    out->ino = flk_rt.exe_ino;
    return 1;
}

static int same(const struct kstat *a, const struct kstat *b) { return a->dev == b->dev && a->ino == b->ino; }

int identity_is_own(const struct kstat *st) {
    struct kstat own;
    return own_file(&own) && same(st, &own);
}

static int is_proc_link(const struct kstat *st) {
    return (st->mode & S_IFMT) == S_IFLNK && !st->size && !(st->dev >> 8 & 0xfff);
}

/* Does the link at `path` say what our own says? An empty path is that of the descriptor `dir`. */
static int __attribute__((noinline)) says_own(i64 dir, const char *path) {
    char theirs[PATH_BYTES], own[PATH_BYTES];
    i64 n = SYS4(__NR_readlinkat, dir, path, theirs, sizeof theirs);
    if (n <= 0 || SYS4(__NR_readlinkat, AT_FDCWD, own_link, own, sizeof own) != n)
        return 0;
    while (n && theirs[n - 1] == own[n - 1])
        n--;
    return !n;
}

/* The descriptor of a link has no other name that could be followed, and where a filter forbids to ask for files there is only the text. */
static int __attribute__((noinline)) leads_to_own(i64 dir, const char *path) {
    char copy[PATH_BYTES];
    struct kstat st;
    i64 n = user_string(copy, path, sizeof copy);
    if (n < 0)
        return 0;
    if (may_call(OWN_STAT)) {
        if (stat_at(dir, copy, &st, n ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH) || !is_proc_link(&st))
            return 0;
        if (n)
            return !stat_at(dir, copy, &st, 0) && identity_is_own(&st);
    }
    return may_call(OWN_READLINK) && says_own(dir, copy);
}

/* Cheap: all that most paths cost. A string that the kernel has read a moment ago: it is not there any more only where another
 * thread of a program unmaps it during the call, which then ends as a fault in the program would. */
static int names_exe(const char *path, int empty_counts) {
    i64 n = flk_length(path);
    if (n < 4)
        return n == 3 ? path[0] == 'e' && path[1] == 'x' && path[2] == 'e' : n == 0 && empty_counts;
    u32 tail;
    __builtin_memcpy(&tail, path + n - 4, sizeof tail);
    return tail == ('/' | 'e' << 8 | 'x' << 16 | 'e' << 24);
}

static i64 directory_of(const struct path_call *c, const i64 *args) { return c->path ? args[0] : AT_FDCWD; }

static i64 open_original(i64 fd, const struct path_call *c, const i64 *args) {
    i64 flags = args[c->flags];
    if (c->action == OPEN_HOW && user_read(&flags, (const void *)flags, sizeof flags))
        return fd;
    if (flags & OPEN_STAYS || !may_call(OWN_OPENAT) || !may_call(OWN_CLOSE))
        return fd;
    flags &= ~O_CREAT;
    SYS2(__NR_close, fd, 0); /* so that the new one has its number */
    i64 r = SYS4(__NR_openat, AT_FDCWD, flk_rt.exe_path, flags, 0);
    return r >= 0 ? r : SYS4(__NR_openat, AT_FDCWD, own_link, flags, 0);
}

static i64 link_text(const struct path_call *c, const i64 *args) {
    int size = (int)args[c->flags], length = (int)flk_rt.exe_size, n = length < size ? length : size;
    if (size <= 0)
        return -EINVAL;
    return user_write((void *)args[c->out], flk_rt.exe_path, (u64)n) ? -EFAULT : n;
}

/* `result`: the kernel's, which stays where the path does not lead to the original any more: it is gone, or out of reach, which the
 * link never is. */
static i64 __attribute__((noinline)) answer_with_original(i64 nr, i64 result, const struct path_call *c, const i64 *args) {
    if (c->action == OPEN || c->action == OPEN_HOW)
        return open_original(result, c, args);
    if (c->action == LINK)
        return link_text(c, args);
    i64 a[6];
    for (u32 i = 0; i < 6; i++)
        a[i] = args[i];
    a[c->path] = (i64)flk_rt.exe_path;
    i64 r = flk_sys(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    return r >= 0 || r == -EROFS || r == -EOVERFLOW || r == -EFAULT ? r : result;
}

/* names_exe for a path that the kernel has not taken yet. */
static int will_name_exe(const char *path, int empty_counts) {
    if (!may_call(OWN_SIGPROCMASK))
        return 1;
    for (u64 at = ADDR(path);; at = (at & -PAGE) + PAGE) {
        if (!page_is_readable(at))
            return 0;
        for (u64 end = (at & -PAGE) + PAGE, p = at; p < end; p++)
            if (!*(const volatile char *)p)
                return names_exe(path, empty_counts);
        if (at - ADDR(path) >= PATH_BYTES)
            return 0;
    }
}

/* The kernel is not asked where its answer would be in the way: over the path, or with bytes of a handle behind its end. */
static int __attribute__((noinline)) before(struct frame *f, const struct path_call *c) {
    const char *path = (const char *)f->args[c->path];
    if (!will_name_exe(path, c->action == LINK && c->path) || !leads_to_own(directory_of(c, f->args), path))
        return 0;
    i64 r = answer_with_original(f->rax, -ENOENT, c, f->args);
    if (r == -ENOENT)
        return 0;
    f->rax = r;
    return 1;
}

enum identity identity_call(struct blk *b, struct frame *f) {
    if (!flk_rt.exe_size)
        return IDENTITY_PASS;
    struct path_call c = call_of((u32)f->rax);
    u64 flags = c.flags ? (u64)f->args[c.flags] : 0, distance = (u64)(f->args[c.out] - f->args[c.path]);
    if ((c.action == HANDLE && !(flags & AT_SYMLINK_FOLLOW)) || flags & c.stays)
        return IDENTITY_PASS;
    if (c.action == ANSWER && flags & AT_EMPTY_PATH && (int)f->args[0] >= 0) /* fstat, in its newer form */
        return IDENTITY_PASS;
    if (c.action == HANDLE || (c.out && distance + OVERLAP_BYTES < 2 * OVERLAP_BYTES))
        return before(f, &c) ? IDENTITY_ANSWERED : IDENTITY_PASS;
    b->sp_arg = c.flags;
    b->sp_value = f->args[c.flags];
    /* A link's text is first asked for up to the length of ours, so that nothing of a longer one stays behind it. */
    if (c.action == LINK && (int)flags > (int)flk_rt.exe_size)
        f->args[c.flags] = flk_rt.exe_size;
    return IDENTITY_SEES;
}

i64 identity_result(const struct blk *b, i64 result, i64 *args) {
    struct path_call c = call_of((u32)b->call_nr);
    i64 asked = args[c.flags];
    if (c.action == LINK)
        args[c.flags] = b->sp_value;
    /* With these errors, too, the kernel has read the path. */
    if (result < 0 && result != -EACCES && result != -EROFS)
        return result;
    const char *path = (const char *)args[c.path];
    if (names_exe(path, c.action == LINK && c.path) && leads_to_own(directory_of(&c, args), path))
        return answer_with_original(b->call_nr, result, &c, args);
    if (result == asked && asked != args[c.flags]) /* a longer link of somebody else's */
        return SYS4(b->call_nr, args[0], args[1], args[2], args[3]);
    return result;
}

/* The path that an exec takes is a copy, which another thread cannot change between this decision and the kernel's reading. */
void identity_exec(struct blk *b, struct frame *f) {
    u32 at = (u32)f->rax == __NR_execveat;
    i64 dir = at ? f->args[0] : AT_FDCWD, flags = at ? f->args[4] & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) : 0;
    struct kstat target, original;
    b->sp_arg = at;
    b->sp_value = f->args[at];
    if (!flk_rt.exe_size || user_string(b->exec_path, (const char *)f->args[at], sizeof b->exec_path) < 0)
        return; /* the kernel finds the same error */
    f->args[at] = (i64)ADDR(b->exec_path);
    if (!may_call(OWN_STAT) || stat_at(dir, b->exec_path, &target, flags) || (target.mode & S_IFMT) != S_IFREG ||
        stat_at(AT_FDCWD, flk_rt.exe_path, &original, 0) || !same(&target, &original) || identity_is_own(&target))
        return;
    i64 n = may_call(OWN_READLINK) ? SYS4(__NR_readlinkat, AT_FDCWD, own_link, b->exec_path, sizeof b->exec_path - 1) : 0;
    if (n > 0) {
        b->exec_path[n] = 0;
        if (!stat_at(AT_FDCWD, b->exec_path, &target, 0) && identity_is_own(&target))
            return;
    }
    /* Renamed, deleted, or out of reach. */
    __builtin_memcpy(b->exec_path, own_link, sizeof own_link);
}
