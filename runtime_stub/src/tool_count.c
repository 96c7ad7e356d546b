/* Tool `count`, off the hot path: one JSON line when a process ends or execs.
 *
 * In: the blocks' counters. Out: a line appended to FLICKER_AOT_OUTPUT (%p is the pid), or to standard error. The environment is
 * read once, at start: the application may overwrite it later. Not in a process with more rights than its caller (AT_SECURE): there
 * it would let the caller append to any file.
 * A line is one write(2) to a file opened with O_APPEND, so lines of several processes do not mix.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"
#include "syscall_names.h" /* from tools/pack_names.c */

#define NAME_BYTES 32
#define NO_NAME ('@' ^ 0x20)
#define LINE_BYTES 24576 /* 512 names of at most 24 characters with their counts would not all fit: see finish */
#define O_WRONLY 1
#define O_CREAT 0100
#define O_APPEND 02000
#define O_CLOEXEC 02000000
#define AT_FDCWD (-100)
#define AT_EACCESS 0x200
#define AT_EMPTY_PATH 0x1000
#define AT_SECURE 23
#define AT_EXECFN 31
#define X_OK 1
#define SEEK_CUR 1
#define SEEK_END 2
#define S_IFMT 0170000u
#define S_IFREG 0100000u

static struct {
    char path[PATH_BYTES]; /* empty: standard error */
    char exe[PATH_BYTES];
    char line[LINE_BYTES];
    u32 lock; /* one writer of `line` at a time */
    u32 closed; /* standard error is the program's own business now: what has its number may be any file */
    /* The line before an exec: where it ends and how long it is, to be taken back if the exec fails. 0: none. */
    i64 exec_end, exec_bytes;
    i64 int80[COUNTED + 2]; /* of the process, by i386 number; behind them those that are none, and whether there are any */
} count;

static u64 copy_string(char *to, const char *from, u64 size) {
    u64 n = 0;
    while (from[n] && n + 1 < size) {
        to[n] = from[n];
        n++;
    }
    to[n] = 0;
    return n;
}

static char *put(char *p, const char *s) {
    while (*s)
        *p++ = *s++;
    return p;
}

static char *put_number(char *p, u64 v) {
    char digits[20];
    u32 n = 0;
    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    while (n)
        *p++ = digits[--n];
    return p;
}

static char *put_pid(char *p) { return put_number(p, may_call(OWN_GETPID) ? (u64)SYS0(__NR_getpid) : 0); }

/* A JSON string; bytes above 0x7f pass, a path need not be UTF-8. */
static char *put_json(char *p, const char *s) {
    static const char hex[] = "0123456789abcdef";
    *p++ = '"';
    for (; *s; s++) {
        u8 c = (u8)*s;
        if (c < 0x20 || c == '"' || c == '\\') {
            p = put(p, "\\u00");
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        } else {
            *p++ = (char)c;
        }
    }
    *p++ = '"';
    return p;
}

static const char *after_equals(const char *s, const char *name) {
    while (*name && *s == *name)
        s++, name++;
    return !*name && *s == '=' ? s + 1 : 0;
}

static u64 auxv_value(const u64 *auxv, u64 type) {
    while (auxv[0] && auxv[0] != type)
        auxv += 2;
    return auxv[0] ? auxv[1] : 0;
}

void tool_start(u64 *stack) {
    u64 *env = stack + 1 + *stack + 1, *end = env;
    while (*end)
        end++;
    if (!flk_rt.exe_size) { /* an interpreter's host: the path is the program's */
        i64 n = SYS3(__NR_readlink, "/proc/self/exe", count.exe, PATH_BYTES - 1);
        if (n > 0)
            count.exe[n] = 0;
        else /* no /proc */
            copy_string(count.exe, (const char *)auxv_value(end + 1, AT_EXECFN), PATH_BYTES);
    }
    if (auxv_value(end + 1, AT_SECURE))
        return;
    for (; env < end; env++) {
        const char *value = after_equals((const char *)*env, "FLICKER_AOT_OUTPUT");
        if (value)
            copy_string(count.path, value, PATH_BYTES);
    }
}

static int same_process(const struct blk *b, const struct blk *mine) { return b->in_use && b->process == mine->process; }

static u64 sum(struct blk *mine, u64 offset_bytes) {
    u64 total = 0;
    for (struct blk *b = flk_rt.all; b; b = b->all_next)
        if (same_process(b, mine))
            total += *(u64 *)((u8 *)b + offset_bytes);
    return total;
}

#define OFFSET(field) __builtin_offsetof(struct blk, field)

/* A counter behind which stands that of the threads that ended. */
static u64 sum_all(struct blk *mine, u64 offset_bytes) {
    return sum(mine, offset_bytes) + *(u64 *)((u8 *)mine->process + offset_bytes + 8);
}

enum end { AT_EXIT, AT_EXEC, AT_CLOSE };

/* What the symbol stands for (tools/pack_names.c). */
static char *expand(char *to, u8 symbol) {
    for (u8 pair; (pair = (u8)(symbol - 128)) < NAMES_PAIRS; symbol = name_pairs[pair][1])
        to = expand(to, name_pairs[pair][0]);
    *to = (char)((u8)(symbol - '@') < 27 || symbol > 'z' ? symbol ^ 0x20 : symbol);
    return to + 1;
}

static int begins_name(u8 symbol) {
    u8 pair = (u8)(symbol - 128);
    return pair < NAMES_PAIRS ? pair >= NAMES_FIRST_START : (u8)(symbol - '@') < 27 || symbol > 'z';
}

/* The name that begins at `at`, empty where there is none; -> the next one. Stays at the end. */
static const u8 *next_name(const u8 *at, char *name) {
    const u8 *end = syscall_names + sizeof syscall_names;
    char *to = name;
    if (at < end)
        do
            to = expand(to, *at++);
        while (at < end && !begins_name(*at));
    *to = 0;
    if (*name == NO_NAME)
        *name = 0;
    return at;
}

/* A member of the object that has begun; none where it is 0, or where the line is too long. Without a name its number serves. */
static char *put_count(char *p, const char *name, u64 nr, u64 n) {
    if (!n || p > count.line + LINE_BYTES - 256)
        return p;
    if (p[-1] != '{')
        *p++ = ',';
    *p++ = '"';
    p = *name ? put(p, name) : put_number(p, nr);
    p = put(p, "\":");
    return put_number(p, n);
}

static char *format(struct blk *mine, enum end at) {
    struct blk *process = mine->process;
    char *p = put(count.line, "{\"pid\":");
    p = put_pid(p);
    p = put(p, ",\"exe\":");
    p = put_json(p, flk_rt.exe_size ? flk_rt.exe_path : count.exe);
    p = put(p, ",\"total\":");
    u64 x32 = sum_all(mine, OFFSET(count_x32)), total = x32;
    char *at_total = p; /* the number is known after the list: room for it, closed up below */
    p += 20;
    char *list = p;
    p = put(p, ",\"calls\":{");
    const u8 *names = syscall_names;
    char name[NAME_BYTES];
    for (u32 nr = 0; nr <= COUNTED; nr++) {
        if (nr < NAMES_GAP || nr >= NAMES_GAP_END)
            names = next_name(names, name);
        else
            *name = 0;
        u64 n = nr < COUNTED ? sum(mine, OFFSET(counts) + 8ul * nr) + process->ended_counts[nr]
                             : sum_all(mine, OFFSET(count_other));
        p = put_count(p, nr < COUNTED ? name : "other", nr, n);
        total += n;
    }
    p = put_count(p, "x32", 0, x32);
    p = put(p, "},\"vdso\":{");
    for (u32 i = 0; i < VDSO_EXPORTS; i++)
        p = put_count(p, vdso_export_names[i], 0, sum(mine, OFFSET(vdso_counts) + 8ul * i) + process->ended_vdso[i]);
    p = put(p, "},\"traps\":");
    p = put_number(p, sum_all(mine, OFFSET(traps)));
    p = put(p, ",\"guard_traps\":");
    p = put_number(p, sum_all(mine, OFFSET(guard_traps)));
    if (count.int80[COUNTED + 1]) {
        p = put(p, ",\"int80\":{");
        for (u32 nr = 0; nr <= COUNTED; nr++)
            p = put_count(p, "", nr, (u64)count.int80[nr]);
        *p++ = '}';
    }
#ifdef IN_SINGLE
    if (promoted_count()) {
        p = put(p, ",\"promoted\":");
        p = put_number(p, promoted_count());
    }
#endif
    if (guard_by_filter())
        p = put(p, ",\"guard\":\"seccomp\"");
    if (guard_missing()) {
        p = put(p, ",\"unguarded\":");
        p = put_json(p, guard_missing());
    }
#ifdef IN_BUNDLE
    if (bundle_folder()) {
        p = put(p, ",\"escapes\":[");
        int first = 1;
        for (const char *path = bundle_escape(0); path; path = bundle_escape(path)) {
            if (p + 6 * flk_length(path) + 32 > count.line + LINE_BYTES) /* every byte as \u00xx */
                continue;
            if (!first)
                *p++ = ',';
            first = 0;
            p = put_json(p, path);
        }
        *p++ = ']';
    }
#endif
    p = put(p, at == AT_CLOSE ? ",\"until\":\"close\"}\n" : "}\n");
    char *end = put_number(at_total, total);
    while (list < p)
        *end++ = *list++;
    return end;
}

static i64 open_output(char *path) {
    if (!may_call(OWN_WRITE))
        return -1;
    if (!count.path[0])
        return count.closed ? -1 : 2;
    if (!may_call(OWN_OPENAT) || !may_call(OWN_CLOSE))
        return -1;
    char *to = path;
    for (const char *s = count.path; *s && to < path + PATH_BYTES - 24; s++) {
        if (s[0] == '%' && s[1] == 'p') {
            to = put_pid(to);
            s++;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
    return SYS4(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void write_line(struct blk *mine, enum end at) {
    char path[PATH_BYTES];
    while (__atomic_exchange_n(&count.lock, 1, __ATOMIC_ACQUIRE))
        if (may_call(OWN_YIELD))
            SYS0(__NR_sched_yield);
    char *end = format(mine, at);
    i64 fd = open_output(path);
    if (fd >= 0) {
        i64 n = SYS3(__NR_write, fd, count.line, end - count.line);
        count.exec_end = at == AT_EXEC && may_call(OWN_SEEK) ? SYS3(__NR_lseek, fd, 0, SEEK_CUR) : 0;
        count.exec_bytes = n;
        if (fd != 2)
            SYS2(__NR_close, fd, 0);
    }
    __atomic_store_n(&count.lock, 0, __ATOMIC_RELEASE);
}

void tool_process_end(struct blk *b) { write_line(b, AT_EXIT); }

/* Who asks at its end whether all of its output was written closes standard error then, as coreutils do: no line could follow. What is
 * called afterwards is not in it, usually exit_group alone. */
void tool_close(struct blk *b, const struct frame *f) {
    if ((u32)f->args[0] == 2 && !count.path[0]) {
        write_line(b, AT_CLOSE);
        count.closed = 1;
    }
}

static void hand_over(u64 *from, u64 *to) {
    if (!*from) /* an untouched page stays untouched */
        return;
    __atomic_add_fetch(to, *from, __ATOMIC_RELAXED);
    *from = 0;
}

void tool_thread_end(struct blk *b) {
    struct blk *process = b->process;
    if (b == process)
        return; /* stays, with its counters */
    for (u32 nr = 0; nr < COUNTED; nr++)
        hand_over(&b->counts[nr], &process->ended_counts[nr]);
    u64 *ended = &process->ended_other;
    for (u64 *counter = &b->count_other; counter < b->ended_vdso; counter += 2, ended += 2)
        hand_over(counter, ended);
    for (u32 i = 0; i < VDSO_EXPORTS; i++)
        hand_over(&b->vdso_counts[i], &process->ended_vdso[i]);
}

int tool_counts_vdso(void) { return 1; }

/* Most failing execs are a search along PATH: a look at the file first keeps them from writing a line that would be wrong. */
static int exec_will_start(const struct frame *f) {
    struct {
        u64 dev, ino, nlink;
        u32 mode, rest[27];
    } st;
    int at = (u32)f->rax == __NR_execveat;
    if (!may_call(OWN_STAT) || !may_call(OWN_ACCESS))
        return 1;
    i64 dir = at ? f->args[0] : AT_FDCWD, path = f->args[at ? 1 : 0], flags = at ? f->args[4] : 0;
    if (SYS4(__NR_newfstatat, dir, path, &st, flags & AT_EMPTY_PATH) || (st.mode & S_IFMT) != S_IFREG)
        return 0;
    i64 r = SYS4(439 /* faccessat2 */, dir, path, X_OK, AT_EACCESS | (flags & AT_EMPTY_PATH));
    return r == 0 || r == -38;
}

void tool_exec(struct blk *b, struct frame *f) {
    if (exec_will_start(f))
        write_line(b, AT_EXEC);
}

/* The process goes on: its line comes at its end. Where others appended since, or the output is a pipe, it stays. */
void tool_exec_failed(struct blk *b) {
    char path[PATH_BYTES];
    (void)b;
    if (count.exec_end <= 0 || count.exec_bytes <= 0)
        return;
    i64 fd = open_output(path);
    if (fd < 0)
        return;
    if (may_call(OWN_TRUNCATE) && SYS3(__NR_lseek, fd, 0, SEEK_END) == count.exec_end)
        SYS2(__NR_ftruncate, fd, count.exec_end - count.exec_bytes);
    if (fd != 2)
        SYS2(__NR_close, fd, 0);
    count.exec_end = 0;
}

int tool_int80(struct blk *b, struct kucontext *uc, u32 was_seen) {
    u32 nr = (u32)uc->rax;
    (void)b;
    if (!was_seen) {
        __atomic_add_fetch(&count.int80[nr < COUNTED ? nr : COUNTED], 1, __ATOMIC_RELAXED);
        count.int80[COUNTED + 1] = 1;
    }
    return 1;
}

int tool_fault(struct blk *b, u32 sig, struct sigframe *f) { return (void)b, (void)sig, (void)f, 0; }
void tool_int80_shown(struct blk *b, struct kucontext *uc, int is_before) { (void)b, (void)uc, (void)is_before; }

void tool_forked(struct blk *b) {
    block_clear_counters(b);
    for (u32 nr = 0; nr < COUNTED + 2; nr++)
        if (count.int80[nr]) /* an untouched page stays untouched */
            count.int80[nr] = 0;
    count.lock = 0;
}
int tool_guards_stack(void) { return 0; }
