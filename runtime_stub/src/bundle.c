/* The bundle that the program runs from: the loader gets the copies of the files that it opens.
 *
 * In: the bundle's index (abi.h), found from the program's own file; what the program's loader opened, and the rest mapped as code.
 * Out: descriptors of the copies. Own stack, signals deferred; any thread; no locks: the index is read-only.
 *
 * A file is known by what it is: device, inode, size and time of its last change, then build-id. Not by its path, since aliases would load it a
 * second time, once hooked and once not. By path goes only what is not there any more, or not the same any more.
 * Only the loader is led elsewhere: a call counts as its own if it came from a trampoline of the interpreter, whose runtime this is. An
 * interpreter that is the C library as well (musl) makes the program's calls, too: there it holds until the program starts.
 */
#include <asm/unistd_64.h>

#include "../include/bundle.h"
#include "../include/elf64.h"

#define AT_NULL 0
#define PR_SET_NAME 15
#define AT_ENTRY 9
#define AT_EXECFN 31
#define AT_FDCWD (-100)
#define O_ACCMODE 3
#define O_CLOEXEC 02000000
#define O_DIRECTORY 0200000
#define O_PATH 010000000
#define ENOENT 2
#define ENOTDIR 20
#define ENAMETOOLONG 36
#define PAGE 4096ul
#define PROT_READ 1
#define MAP_PRIVATE 2
#define INDEX_BYTES_MAX (64ul << 20)
#define EXIT_NOT_STARTED 127

static struct {
    char folder[PATH_BYTES]; /* empty: not in a bundle */
    const struct flk_index *index;
    const struct flk_file *files;
    const struct flk_alias *aliases;
    const char *strings;
    const struct flk_config *program; /* the program's, where the interpreter hosts the runtime */
    u64 program_bias;
    u32 started; /* bundle_start is done: what is mapped from now on is no program */
} bundle;

u64 flk_program_entry, *flk_entry_slot, flk_debug_state;

static void __attribute__((noreturn)) fail(const char *why) {
    tell("flicker-aot: ");
    tell(bundle.folder);
    tell(why);
    for (;;)
        SYS2(__NR_exit_group, EXIT_NOT_STARTED, 0);
}

/* ---- Start ---- */

void bundle_program(const struct flk_config *program, u64 bias) {
    if (bundle.started)
        return;
    bundle.program = program;
    bundle.program_bias = bias;
    flk_debug_state = ADDR(program + 1); /* loader.S: right behind */
}

static void find_folder(const char *execfn, u32 depth) {
    i64 n = SYS4(__NR_readlinkat, AT_FDCWD, "/proc/self/exe", bundle.folder, PATH_BYTES - 1);
    if (n < 0) /* no /proc */
        for (n = 0; n < PATH_BYTES - 1 && execfn[n]; n++)
            bundle.folder[n] = execfn[n];
    while (n && depth)
        if (bundle.folder[--n] == '/')
            depth--;
    bundle.folder[n] = 0;
    if (depth) {
        bundle.folder[0] = 0;
        fail("the bundle is not found without /proc\n");
    }
}

static int is_whole(const struct flk_index *x, u64 bytes) {
    u64 tables = sizeof *x + (u64)x->file_count * sizeof(struct flk_file) + (u64)x->alias_count * sizeof(struct flk_alias);
    return x->magic == FLK_INDEX_MAGIC && x->abi_version == FLK_ABI_VERSION && tables + x->string_bytes == bytes &&
           x->string_bytes && !((const char *)x)[bytes - 1];
}

static void map_index(void) {
    char path[PATH_BYTES];
    struct kstat st;
    i64 fd = bundle_path(path, FLK_INDEX_NAME);
    if (fd >= 0)
        fd = SYS4(__NR_openat, AT_FDCWD, path, O_CLOEXEC, 0);
    if (fd < 0 || SYS2(__NR_fstat, fd, &st) || (u64)st.size < sizeof(struct flk_index) || (u64)st.size > INDEX_BYTES_MAX)
        fail("/" FLK_INDEX_NAME ": cannot be read: the bundle is not whole\n");
    i64 at = flk_sys(__NR_mmap, 0, st.size, PROT_READ, MAP_PRIVATE, fd, 0);
    SYS2(__NR_close, fd, 0);
    if (at < 0 && at > -4096)
        fail("/" FLK_INDEX_NAME ": cannot be mapped\n");
    bundle.index = (const struct flk_index *)at;
    if (!is_whole(bundle.index, (u64)st.size))
        fail("/" FLK_INDEX_NAME ": is damaged, or of another version of flicker-aot\n");
    bundle.files = (const struct flk_file *)(bundle.index + 1);
    bundle.aliases = (const struct flk_alias *)(bundle.files + bundle.index->file_count);
    bundle.strings = (const char *)(bundle.aliases + bundle.index->alias_count);
    flk_rt.tables = (u64)at;
    flk_rt.tables_end = ((u64)at + (u64)st.size + PAGE - 1) & -PAGE;
    own_pages_add(flk_rt.tables, flk_rt.tables_end);
}

/* The path that an exec asked for, which follow.c has put behind the environment; 0: none. It is taken out, and auxv moves up to
 * the environment's new end. */
static const char *take_execfn(u64 *envp) {
    u64 *end = envp;
    while (*end)
        end++;
    if (!(flk_config.flags & FLK_F_FOLLOW) || end == envp || !begins_with((const char *)end[-1], BUNDLE_EXECFN))
        return 0;
    const char *execfn = (const char *)end[-1] + sizeof BUNDLE_EXECFN - 1;
    u64 *a = end + 1;
    end[-1] = 0;
    for (; a[0] != AT_NULL; a += 2) {
        a[-1] = a[0];
        a[0] = a[1];
    }
    a[-1] = a[0] = AT_NULL;
    return execfn;
}

/* As fs/exec.c, begin_new_exec, does it: from the path that was asked for, or of a descriptor from its file, as it has been done. */
static void name_process(const char *execfn) {
    static const char descriptors[] = "/dev/fd/";
    const char *name = execfn;
    for (const char *s = execfn; *s; s++)
        if (*s == '/')
            name = s + 1;
    if (name == execfn + sizeof descriptors - 1 && begins_with(execfn, descriptors))
        return;
    SYS2(__NR_prctl, PR_SET_NAME, name);
}

void bundle_start(u64 *stack, u64 rdx, u64 at_entry) {
    (void)rdx, (void)at_entry;
    const struct flk_config *c = bundle.program ? bundle.program : &flk_config;
    u64 *p = stack + 1 + *stack + 1;
    struct auxv *a;
    const char *execfn = "", *asked = c->depth ? take_execfn(p) : 0;
    while (*p++)
        ;
    for (a = (struct auxv *)p; a->type != AT_NULL; a++)
        if (a->type == AT_EXECFN) {
            execfn = (const char *)a->value;
            if (asked)
                a->value = ADDR(asked);
        } else if (a->type == AT_ENTRY && bundle.program && flk_config.flags & FLK_F_LIBC) {
            flk_program_entry = a->value;
            flk_entry_slot = &a->value;
            a->value = ADDR(flk_entered);
        }
    bundle.started = 1;
    if (!c->depth)
        return;
    if (bundle.program) {
        flk_rt.exe_path = (const char *)(c->exe_vaddr + bundle.program_bias);
        flk_rt.exe_size = c->exe_size;
    }
    if (asked)
        name_process(asked);
    find_folder(execfn, c->depth);
    map_index();
}

const char *bundle_folder(void) { return bundle.folder[0] ? bundle.folder : 0; }

i64 bundle_path(char *to, const char *name) {
    u64 n = 0;
    for (const char *s = bundle.folder; *s; s++)
        to[n++] = *s;
    to[n++] = '/';
    for (; *name; name++) {
        if (n >= PATH_BYTES - 1)
            return -ENAMETOOLONG;
        to[n++] = *name;
    }
    to[n] = 0;
    return (i64)n;
}

/* ---- The index ---- */

const char *bundle_string(u32 offset) { return offset < bundle.index->string_bytes ? bundle.strings + offset : ""; }

static int order(u64 a, u64 b) { return a < b ? -1 : a > b; }

static const struct flk_file *find_identity(const struct kstat *st) {
    u32 lo = 0, hi = bundle.index->file_count;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        const struct flk_file *f = &bundle.files[mid];
        int c = order(f->device, st->dev);
        if (!c)
            c = order(f->inode, st->ino);
        if (!c) /* inodes are used again */
            return f->size_bytes == (u64)st->size && f->mtime_ns == st->mtime * 1000000000 + st->mtime_ns ? f : 0;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* The same file on another machine, or installed anew. */
static const struct flk_file *find_build_id(u64 size_bytes, i64 fd) {
    u8 id[FLK_BUILD_ID_BYTES];
    u32 bytes = 0, asked = 0;
    for (u32 i = 0; i < bundle.index->file_count; i++) {
        const struct flk_file *f = &bundle.files[i];
        if (f->size_bytes != size_bytes || !f->build_id_bytes)
            continue;
        if (!asked)
            bytes = build_id_of(fd, id);
        asked = 1;
        u32 same = 0;
        while (same < bytes && f->build_id[same] == id[same])
            same++;
        if (bytes && bytes == f->build_id_bytes && same == bytes)
            return f;
    }
    return 0;
}

const struct flk_file *bundle_find(const struct kstat *st, i64 fd) {
    const struct flk_file *f = find_identity(st);
    return f || fd < 0 ? f : find_build_id((u64)st->size, fd);
}

const struct flk_file *bundle_find_path(const char *path) {
    u32 lo = 0, hi = bundle.index->alias_count;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        const char *a = bundle_string(bundle.aliases[mid].path), *b = path;
        while (*a && *a == *b)
            a++, b++;
        int c = order((u8)*a, (u8)*b);
        if (!c)
            return bundle.aliases[mid].file < bundle.index->file_count ? &bundle.files[bundle.aliases[mid].file] : 0;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* ---- The loader's opens ---- */

static int is_loaders(const struct blk *b, i64 flags) {
    if (!(flk_config.flags & FLK_F_INTERP) || !bundle.folder[0] ||
        (flk_config.flags & FLK_F_LIBC && !flk_entry_slot && !(flags & FLK_LOADERS_OPEN)))
        return 0;
    return b->sp_entry - (flk_config.tramp_vaddr + flk_rt.bias) < flk_config.tramp_size;
}

static i64 open_copy(const struct flk_file *file, i64 flags) {
    char path[PATH_BYTES];
    i64 fd = bundle_path(path, bundle_string(file->copy));
    if (fd >= 0)
        fd = SYS4(__NR_openat, AT_FDCWD, path, flags, 0);
    if (fd < 0) {
        tell("flicker-aot: ");
        tell(path);
        tell(": cannot be opened: the bundle is not whole\n");
    }
    return fd;
}

i64 bundle_opened(const struct blk *b, i64 result, const i64 *args) {
    char path[PATH_BYTES];
    struct kstat st;
    const struct flk_file *file = 0;
    u32 at = (u32)b->call_nr == __NR_openat;
    i64 flags = args[at + 1];
    if (!is_loaders(b, flags) || (!at && (u32)b->call_nr != __NR_open) || flags & (O_ACCMODE | O_PATH | O_DIRECTORY) ||
        !may_call(OWN_OPENAT) || !may_call(OWN_CLOSE) || !may_call(OWN_STAT))
        return result;
    if (result < 0 && result != -ENOENT && result != -ENOTDIR)
        return result;
    if (result >= 0 && !SYS4(__NR_newfstatat, result, "", &st, 0x1000 /* AT_EMPTY_PATH */))
        file = bundle_find(&st, result);
    if (!file && user_string(path, (const char *)args[at], sizeof path) >= 0) {
        file = bundle_find_path(path);
        if (file && file->flags & FLK_FILE_LOADED && result >= 0) {
            tell("flicker-aot: ");
            tell(path);
            tell(" has changed since it was bundled: the bundle's copy of the old one is used\n");
        }
    }
    if (!file || !(file->flags & FLK_FILE_LOADED))
        return result;
    if (result < 0) {
        i64 fd = open_copy(file, flags);
        return fd < 0 ? result : fd;
    }
    SYS2(__NR_close, result, 0); /* so that the copy has its number */
    i64 fd = open_copy(file, flags);
    return fd >= 0 ? fd : SYS4(__NR_openat, at ? args[0] : AT_FDCWD, args[at], flags, 0);
}

/* 1: it is one of the bundle's own files, of which those that have nothing to hook are no clients. */
static int is_own(const char *path) { return begins_with(path, bundle.folder) && path[flk_length(bundle.folder)] == '/'; }

int bundle_knows(u64 at, u64 bytes, const i64 *args) {
    char path[PATH_BYTES];
    int has_path = path_of_descriptor(path, args[4]) != 0;
    if ((has_path && is_own(path)) || file_has_no_calls(at, bytes, args))
        return 1;
    if (has_path)
        escape_add(path);
    return 0;
}

void bundle_unhooked(i64 fd) {
    char path[PATH_BYTES];
    if (bundle.folder[0] && path_of_descriptor(path, fd) && !is_own(path))
        escape_add(path);
}
