/* --follow-exec: an exec of a file that the bundle has a copy of runs the copy.
 *
 * In: the frame of an exec, before it goes to the kernel. Out: its arguments, changed, in memory mapped for them; or as they were, and what
 * will run is in the list of what runs unhooked. Own stack, signals deferred; any thread, vfork children among them: their parent frees the memory
 * (bundle_exec_over). No locks.
 *
 * What the kernel does with a `#!` line is done here, since the interpreter that it names is to be another file (fs/binfmt_script.c).
 * Whatever the kernel would refuse goes to the kernel as it is. The new program's AT_EXECFN and name would be the copy's: the path that was
 * asked for travels as the last string of the environment, and the runtime in the new program takes it out again (bundle.c).
 */
#include <asm/unistd_64.h>

#include "../include/bundle.h"

#define AT_FDCWD (-100)
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_EACCESS 0x200
#define AT_EMPTY_PATH 0x1000
#define O_CLOEXEC 02000000
#define O_NOFOLLOW 0400000
#define X_OK 1
#define NR_FACCESSAT2 439
#define PAGE 4096ul
#define PROT_RW 3
#define MAP_PRIVATE_ANONYMOUS 0x22
#define S_IFMT 0170000u
#define S_IFREG 0100000u
#define LINE_BYTES 256     /* linux/binfmts.h, BINPRM_BUF_SIZE */
#define SCRIPTS_MAX 5      /* fs/exec.c, exec_binprm */
#define STRINGS_MAX (1u << 20) /* of an argument list; the kernel takes MAX_ARG_STRINGS, but never so many bytes */
#define CHUNK 64

struct script { /* what a `#!` line says; `line` holds both texts */
    char line[LINE_BYTES];
    const char *interpreter, *argument; /* the second may be 0 */
};

struct place { /* a file as execveat names it */
    i64 dir, flags;
    const char *path;
};

struct target {
    struct place at;
    char name[PATH_BYTES + 32]; /* what the kernel would call it: AT_EXECFN, and a script's argument */
    struct script scripts[SCRIPTS_MAX + 1]; /* the last one is not read */
    u32 script_count;
};

/* In the memory mapped for an exec, whose arguments follow it. */
struct area {
    u64 bytes;
    i64 args[6]; /* the application's */
};

static char *put(char *to, const char *s) {
    while ((*to = *s++))
        to++;
    return to;
}

static char *put_number(char *to, u32 v) {
    u32 digits = 1;
    for (u32 rest = v / 10; rest; rest /= 10)
        digits++;
    for (u32 i = digits; i; v /= 10)
        to[--i] = (char)('0' + v % 10);
    to[digits] = 0;
    return to + digits;
}

/* fs/exec.c, alloc_bprm */
static void name_target(struct target *t) {
    char *p = t->name;
    if ((int)t->at.dir != AT_FDCWD && t->at.path[0] != '/') {
        p = put_number(put(p, "/dev/fd/"), (u32)t->at.dir);
        if (t->at.path[0])
            p = put(p, "/");
    }
    put(p, t->at.path);
}

static i64 open_place(const struct place *p) {
    char descriptor[32];
    if (p->path[0])
        return SYS4(__NR_openat, p->dir, p->path, O_CLOEXEC | (p->flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0), 0);
    put_number(put(descriptor, "/proc/self/fd/"), (u32)p->dir);
    return SYS4(__NR_openat, AT_FDCWD, descriptor, O_CLOEXEC, 0);
}

/* Whether the kernel would go on with it. */
static int is_executable(const struct place *p, struct kstat *st) {
    if (SYS4(__NR_newfstatat, p->dir, p->path, st, p->flags) || (st->mode & S_IFMT) != S_IFREG)
        return 0;
    return !SYS4(NR_FACCESSAT2, p->dir, p->path, X_OK, AT_EACCESS | p->flags);
}

static int is_blank(char c) { return c == ' ' || c == '\t'; }

static char *not_blank(char *p, char *last) {
    while (p <= last && is_blank(*p))
        p++;
    return p <= last ? p : 0;
}

static char *blank_or_end(char *p, char *last) {
    while (p <= last && !is_blank(*p) && *p)
        p++;
    return p <= last ? p : 0;
}

/* 1: `s` is filled. As fs/binfmt_script.c reads the line, load_script. */
static int read_script(struct script *s, i64 fd) {
    i64 n = SYS4(__NR_pread64, fd, s->line, LINE_BYTES, 0);
    char *start = s->line + 2, *last = s->line + LINE_BYTES - 1, *end = s->line;
    if (n < 2 || s->line[0] != '#' || s->line[1] != '!')
        return 0;
    for (; n < LINE_BYTES; n++)
        s->line[n] = 0;
    while (end <= last && *end && *end != '\n')
        end++;
    if (end > last || !*end) { /* no end of line: the interpreter's name must be whole */
        char *name = not_blank(start, last);
        if (!name || !blank_or_end(name, last))
            return 0;
        end = last;
    }
    while (is_blank(end[-1]))
        end--;
    *end = 0;
    char *name = not_blank(start, end);
    if (!name || name == end)
        return 0;
    char *behind = blank_or_end(name, end);
    s->argument = behind && *behind ? not_blank(behind, end) : 0;
    if (behind)
        *behind = 0;
    s->interpreter = name;
    return 1;
}

static int is_elf(i64 fd) {
    u32 magic;
    return SYS4(__NR_pread64, fd, &magic, sizeof magic, 0) == sizeof magic && magic == 0x464c457f;
}

/* The copy that is to run; 0: none, and what would run is in the list. */
static const struct flk_file *find_target(struct target *t) {
    struct place at = t->at;
    for (;;) {
        struct kstat st;
        if (!is_executable(&at, &st))
            return 0;
        i64 fd = open_place(&at);
        const struct flk_file *file = bundle_find(&st, fd);
        struct script *s = &t->scripts[t->script_count];
        int is_script = !file && fd >= 0 && t->script_count < SCRIPTS_MAX && read_script(s, fd);
        int is_copied = file && file->flags & FLK_FILE_RUN;
        if (!is_script && !is_copied && fd >= 0 && is_elf(fd)) /* of others the kernel says ENOEXEC */
            bundle_unhooked(fd);
        else if (!is_script && !is_copied && fd < 0)
            escape_add(t->name);
        if (fd >= 0)
            SYS2(__NR_close, fd, 0);
        if (!is_script)
            return is_copied ? file : 0;
        t->script_count++;
        at = (struct place){.dir = AT_FDCWD, .path = s->interpreter};
    }
}

/* How many strings an array of the application's has before its NULL; -1: unreadable, or too many. */
static i64 count_strings(const u64 *array) {
    u64 chunk[CHUNK];
    i64 n = 0;
    if (!array)
        return 0;
    for (;;) {
        u64 left = (PAGE - (ADDR(array + n) & (PAGE - 1))) / 8, size = left && left < CHUNK ? left : CHUNK;
        if (ADDR(array) % 8)
            size = 1;
        if (n > STRINGS_MAX || user_read(chunk, array + n, size * 8))
            return -1;
        for (u64 i = 0; i < size; i++)
            if (!chunk[i])
                return n + (i64)i;
        n += (i64)size;
    }
}

/* Another thread may have changed the array since it was counted: what is there now, as long as there is room. */
static u64 *copy_strings(u64 *to, const u64 *array, i64 count) {
    if (count <= 0 || user_read(to, array, (u64)count * 8))
        return to;
    for (i64 i = 0; i < count && *to; i++)
        to++;
    return to;
}

/* argv as the kernel makes it for scripts: the last interpreter, its argument, ..., the first, its argument, the script, the rest. */
static u64 *script_arguments(u64 *to, const struct target *t, char **strings, const u64 *argv, i64 argc) {
    for (u32 i = t->script_count; i--;) {
        *to++ = ADDR(*strings);
        *strings = put(*strings, t->scripts[i].interpreter) + 1;
        if (!t->scripts[i].argument)
            continue;
        *to++ = ADDR(*strings);
        *strings = put(*strings, t->scripts[i].argument) + 1;
    }
    *to++ = ADDR(*strings);
    *strings = put(*strings, t->name) + 1;
    return copy_strings(to, argv + 1, argc - 1);
}

static int prepare(struct blk *b, struct frame *f, const struct target *t, u32 at) {
    const u64 *argv = (const u64 *)f->args[at + 1], *envp = (const u64 *)f->args[at + 2];
    i64 argc = count_strings(argv), envc = count_strings(envp);
    if (argc < 0 || envc < 0)
        return 0;
    u64 pointers = (u64)(argc + envc) + 2 * SCRIPTS_MAX + 4, strings_bytes = (SCRIPTS_MAX + 2) * LINE_BYTES + 2 * sizeof t->name;
    u64 bytes = (sizeof(struct area) + 8 * pointers + strings_bytes + PAGE - 1) & -PAGE;
    i64 r = flk_sys(__NR_mmap, 0, (i64)bytes, PROT_RW, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (r < 0 && r > -4096)
        return 0;
    struct area *area = (struct area *)r;
    area->bytes = bytes;
    for (u32 i = 0; i < 6; i++)
        area->args[i] = f->args[i];
    area->args[at] = b->sp_value;
    b->exec_area = area;
    u64 *p = (u64 *)(area + 1);
    char *strings = (char *)(p + pointers);
    if (t->script_count) {
        f->args[at + 1] = (i64)ADDR(p);
        p = script_arguments(p, t, &strings, argv, argc) + 1;
    }
    f->args[at + 2] = (i64)ADDR(p);
    p = copy_strings(p, envp, envc);
    *p = ADDR(strings);
    put(put(strings, BUNDLE_EXECFN), t->name);
    return 1;
}

int bundle_exec(struct blk *b, struct frame *f) {
    struct target t;
    struct kstat st;
    u32 at = (u32)f->rax == __NR_execveat;
    t.at = (struct place){.dir = at ? (int)f->args[0] : AT_FDCWD, .flags = at ? f->args[4] : 0, .path = b->exec_path};
    t.script_count = 0;
    if (!bundle_folder() || !(flk_config.flags & FLK_F_FOLLOW) || t.at.flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ||
        user_string(b->exec_path, (const char *)f->args[at], sizeof b->exec_path) < 0 ||
        (!b->exec_path[0] && !(t.at.flags & AT_EMPTY_PATH)))
        return 0;
    name_target(&t);
    if (flk_rt.forbidden) { /* a filter may end the process for what it takes to find the copy */
        escape_add(t.name);
        return 0;
    }
    const struct flk_file *file = find_target(&t);
    if (!file)
        return 0;
    b->sp_arg = at;
    b->sp_value = f->args[at];
    struct place copy = {.dir = AT_FDCWD, .path = b->exec_path};
    if (bundle_path(b->exec_path, bundle_string(file->copy)) < 0 || !is_executable(&copy, &st)) {
        tell("flicker-aot: ");
        tell(b->exec_path);
        tell(": cannot be run: the bundle is not whole\n");
        escape_add(bundle_string(file->original));
        return 0;
    }
    if (!prepare(b, f, &t, at))
        return 0;
    f->args[at] = (i64)ADDR(b->exec_path);
    return 1;
}

void bundle_exec_over(struct blk *b, i64 *args) {
    struct area *area = b->exec_area;
    if (!area)
        return;
    b->exec_area = 0;
    for (u32 i = 0; i < 6 && args; i++)
        args[i] = area->args[i];
    SYS2(__NR_munmap, area, area->bytes);
}
