/* The system calls that a program really makes, seen from outside: a second opinion on every count and every escape.
 *
 *   oracle -o OUT.json -- PROG ARGS...
 *
 * In: a command. It runs under PTRACE_SEIZE from its first instruction, with every process and thread that it makes; signals,
 * job-control stops and exit statuses pass through untouched. Out: a JSON object with, for each (exe, mapping, file
 * offset of the system call instruction, architecture, number), how often it was entered, and how many of these
 * entries were the kernel restarting an interrupted call. A mapping without a name is "[anon]", or "[block]" where it holds trampolines. Exit status: the program's, 128+n if signal n ended it, 125 if the
 * oracle itself failed.
 *
 * Not counted: the execve that starts PROG. Needs Linux 5.3 (PTRACE_GET_SYSCALL_INFO).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* In-kernel results that mean "interrupted, may be restarted" (include/linux/errno.h); only a tracer sees them. */
enum { ERESTARTSYS = 512, ERESTARTNOINTR = 513, ERESTARTNOHAND = 514, ERESTART_RESTARTBLOCK = 516 };

enum { MAX_PENDING = 32 };

/* An interrupted call. `armed`: the thread's next entry at this ip and rsp is the kernel's restart. A handler that runs in
 * between disarms it; the handler's return to the system call instruction itself (not behind it) arms it again. */
struct pending {
    uint64_t ip, sp;
    int armed;
};

struct map {
    uint64_t start, end, offset;
    int name;
};

struct process {
    pid_t tgid;
    int exe;
    struct map *maps;
    size_t map_count;
    int stale;
    struct process *next;
};

struct thread {
    pid_t tid;
    struct process *process;
    uint64_t nr, arg0, arg1, arg2; /* of the call that it is in */
    struct pending pending[MAX_PENDING];
    int pending_count;
    struct thread *next;
};

struct site {
    int exe, mapping, arch;
    uint64_t offset, nr, count, restarted;
    struct site *next;
};

enum { SITE_BUCKETS = 4096 };

static struct process *processes;
static struct thread *threads;
static struct site *sites[SITE_BUCKETS];
static char **strings;
static int string_count;
static int process_total, signal_total;

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("oracle: ", stderr);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (%s)\n", strerror(errno));
    exit(125);
}

static void *checked(void *memory)
{
    if (!memory)
        die("out of memory");
    return memory;
}

static int intern(const char *text)
{
    for (int i = 0; i < string_count; i++)
        if (!strcmp(strings[i], text))
            return i;
    strings = checked(realloc(strings, sizeof *strings * (size_t)(string_count + 1)));
    strings[string_count] = checked(strdup(text));
    return string_count++;
}

static int exe_of(pid_t pid)
{
    char path[64], exe[4096];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t n = readlink(path, exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    return intern(exe);
}

static FILE *open_proc(pid_t pid, const char *what)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
    return fopen(path, "re");
}

static pid_t tgid_of(pid_t tid)
{
    FILE *f = open_proc(tid, "status");
    char line[256];
    pid_t tgid = tid;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Tgid: %d", &tgid) == 1)
            break;
    if (f)
        fclose(f);
    return tgid;
}

static int has_handler(pid_t tid, int sig)
{
    FILE *f = open_proc(tid, "status");
    char line[256];
    unsigned long caught = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "SigCgt: %lx", &caught) == 1)
            break;
    if (f)
        fclose(f);
    return caught >> (sig - 1) & 1;
}

static void read_maps(pid_t tid, struct process *p)
{
    FILE *f = open_proc(tid, "maps");
    char line[4400], perms[8], name[4200];
    uint64_t start, end, offset;
    p->map_count = 0;
    p->stale = 0;
    while (f && fgets(line, sizeof line, f)) {
        int name_at = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %n", &start, &end, perms, &offset, &name_at) < 4 || !name_at)
            continue;
        if (perms[2] != 'x')
            continue;
        snprintf(name, sizeof name, "%s", line + name_at);
        name[strcspn(name, "\n")] = 0;
        p->maps = checked(realloc(p->maps, sizeof *p->maps * (p->map_count + 1)));
        p->maps[p->map_count++] = (struct map){start, end, offset, intern(*name ? name : "[anon]")};
    }
    if (f)
        fclose(f);
}

static const struct map *find_map(const struct process *p, uint64_t ip)
{
    for (size_t i = 0; i < p->map_count; i++)
        if (p->maps[i].start <= ip && ip < p->maps[i].end)
            return &p->maps[i];
    return NULL;
}

static const struct map *map_of(pid_t tid, struct process *p, uint64_t ip)
{
    const struct map *m = p->stale ? NULL : find_map(p, ip);
    if (!m) {
        read_maps(tid, p);
        m = find_map(p, ip);
    }
    return m;
}

/* Trampolines that a rewritten process has made by itself are in memory of no file. Such a page begins with their configuration's magic number (abi.h). */
static int is_block(pid_t tid, const struct map *m, uint64_t ip)
{
    char magic[8] = "";
    struct iovec to = {magic, sizeof magic}, from = {(void *)(ip & -4096ul), sizeof magic};
    return !strcmp(strings[m->name], "[anon]") && process_vm_readv(tid, &to, 1, &from, 1, 0) == sizeof magic && !memcmp(magic, "flickcf1", sizeof magic);
}

static struct process *process_of(pid_t tgid)
{
    struct process *p = processes;
    while (p && p->tgid != tgid)
        p = p->next;
    if (!p) {
        p = checked(calloc(1, sizeof *p));
        *p = (struct process){.tgid = tgid, .exe = exe_of(tgid), .stale = 1, .next = processes};
        processes = p;
        process_total++;
    }
    return p;
}

static struct thread *thread_of(pid_t tid)
{
    struct thread *t = threads;
    while (t && t->tid != tid)
        t = t->next;
    if (!t) {
        t = checked(calloc(1, sizeof *t));
        *t = (struct thread){.tid = tid, .process = process_of(tgid_of(tid)), .next = threads};
        threads = t;
    }
    return t;
}

static void forget_thread(pid_t tid)
{
    for (struct thread **link = &threads; *link; link = &(*link)->next)
        if ((*link)->tid == tid) {
            struct thread *gone = *link;
            *link = gone->next;
            free(gone);
            break;
        }
    for (struct process **link = &processes; *link; link = &(*link)->next)
        if ((*link)->tgid == tid) {
            struct process *gone = *link;
            *link = gone->next;
            free(gone->maps);
            free(gone);
            break;
        }
}

static void record(struct thread *t, uint64_t ip, uint64_t nr, uint32_t audit_arch, int restarted)
{
    const struct map *m = map_of(t->tid, t->process, ip);
    int mapping = !m ? intern("[unmapped]") : is_block(t->tid, m, ip) ? intern("[block]") : m->name;
    uint64_t offset = !m ? ip : strings[mapping][0] == '[' ? ip - m->start : ip - m->start + m->offset;
    int arch = audit_arch == AUDIT_ARCH_I386 ? 32 : 64;
    struct site **link = &sites[(offset * 31 + nr) % SITE_BUCKETS];
    for (; *link; link = &(*link)->next)
        if ((*link)->offset == offset && (*link)->nr == nr && (*link)->mapping == mapping &&
            (*link)->exe == t->process->exe && (*link)->arch == arch)
            break;
    if (!*link) {
        *link = checked(calloc(1, sizeof **link));
        **link = (struct site){.exe = t->process->exe, .mapping = mapping, .arch = arch, .offset = offset, .nr = nr};
    }
    (*link)->count++;
    (*link)->restarted += (uint64_t)restarted;
}

/* Cached mappings are right until a call that maps, unmaps or protects executable memory returns. */
static void after_mapping_call(struct thread *t)
{
    uint64_t start = t->arg0, end = start + t->arg1;
    switch (t->nr) {
    case SYS_mmap:
    case SYS_mprotect:
    case SYS_pkey_mprotect:
        if (t->arg2 & PROT_EXEC)
            t->process->stale = 1;
        break;
    case SYS_munmap:
    case SYS_mremap:
        break;
    case SYS_shmat:
        t->process->stale = 1;
        return;
    default:
        return;
    }
    for (size_t i = 0; i < t->process->map_count; i++)
        if (start < t->process->maps[i].end && t->process->maps[i].start < end)
            t->process->stale = 1;
}

static void on_entry(struct thread *t, const struct __ptrace_syscall_info *info)
{
    uint64_t ip = info->instruction_pointer - 2; /* syscall, sysenter and int 0x80 are two bytes */
    int restarted = 0;
    for (int i = t->pending_count - 1; i >= 0; i--)
        if (t->pending[i].ip == ip && t->pending[i].sp == info->stack_pointer) {
            restarted = t->pending[i].armed;
            t->pending_count = i; /* what was pending above it was jumped over */
            break;
        }
    t->nr = info->entry.nr;
    t->arg0 = info->entry.args[0];
    t->arg1 = info->entry.args[1];
    t->arg2 = info->entry.args[2];
    record(t, ip, info->entry.nr, info->arch, restarted);
}

static void on_exit_stop(struct thread *t, const struct __ptrace_syscall_info *info)
{
    int64_t result = info->exit.rval;
    if (result == -ERESTARTSYS || result == -ERESTARTNOINTR || result == -ERESTARTNOHAND ||
        result == -ERESTART_RESTARTBLOCK) {
        if (t->pending_count == MAX_PENDING)
            die("%d nested interrupted calls in thread %d", MAX_PENDING, t->tid);
        t->pending[t->pending_count++] =
            (struct pending){info->instruction_pointer - 2, info->stack_pointer, 1};
    } else if (t->nr == SYS_rt_sigreturn && info->arch == AUDIT_ARCH_X86_64) {
        for (int i = t->pending_count - 1; i >= 0; i--) {
            if (t->pending[i].sp != info->stack_pointer)
                continue;
            if (t->pending[i].ip == info->instruction_pointer)
                t->pending[i].armed = 1;
            else
                t->pending_count = i; /* it returned EINTR, or the handler went elsewhere */
            break;
        }
    }
    after_mapping_call(t);
}

static void on_syscall_stop(struct thread *t)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof info, &info) <= 0)
        return; /* it was killed meanwhile */
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        on_entry(t, &info);
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        on_exit_stop(t, &info);
}

static void on_exec(pid_t tid)
{
    unsigned long former = (unsigned long)tid;
    ptrace(PTRACE_GETEVENTMSG, tid, 0, &former);
    for (struct thread *t = threads, *next; t; t = next) { /* the others are gone, and say so with no event */
        next = t->next;
        if (t->process->tgid == tid && t->tid != tid)
            forget_thread(t->tid);
    }
    struct thread *t = thread_of(tid);
    t->nr = SYS_execve;
    t->pending_count = 0;
    t->process->exe = exe_of(tid);
    t->process->stale = 1;
}

/* Deals with one stop; returns the signal to pass on, or -1 where the thread must stay stopped (job control). */
static int on_stop(pid_t tid, int status)
{
    int sig = WSTOPSIG(status), event = status >> 16;
    if (event == PTRACE_EVENT_STOP) {
        thread_of(tid);
        return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU ? -1 : 0;
    }
    if (event == PTRACE_EVENT_EXEC)
        on_exec(tid);
    if (event)
        return 0;
    struct thread *t = thread_of(tid);
    if (sig == (SIGTRAP | 0x80)) {
        on_syscall_stop(t);
        return 0;
    }
    signal_total++;
    if (t->pending_count && t->pending[t->pending_count - 1].armed && has_handler(tid, sig))
        t->pending[t->pending_count - 1].armed = 0;
    return sig;
}

static void print_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < 32)
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, out);
    fputc('"', out);
}

static void write_report(const char *path, int status)
{
    FILE *out = fopen(path, "we");
    if (!out)
        die("cannot write %s", path);
    fprintf(out, "{\"exit\": %d, \"signal\": %d, \"processes\": %d, \"signals\": %d, \"sites\": [",
            WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0, process_total,
            signal_total);
    const char *comma = "";
    for (int bucket = 0; bucket < SITE_BUCKETS; bucket++)
        for (const struct site *s = sites[bucket]; s; s = s->next) {
            fprintf(out, "%s\n {\"exe\": ", comma);
            print_string(out, strings[s->exe]);
            fputs(", \"mapping\": ", out);
            print_string(out, strings[s->mapping]);
            fprintf(out, ", \"offset\": %lu, \"arch\": %d, \"nr\": %ld, \"count\": %lu, \"restarted\": %lu}", s->offset,
                    s->arch, (long)s->nr, s->count, s->restarted);
            comma = ",";
        }
    fputs("\n]}\n", out);
    if (fclose(out))
        die("cannot write %s", path);
}

static pid_t start(char **command)
{
    int gate[2];
    if (pipe2(gate, O_CLOEXEC))
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (!child) {
        char go;
        if (read(gate[0], &go, 1) == 1)
            execvp(command[0], command);
        fprintf(stderr, "oracle: cannot run %s (%s)\n", command[0], strerror(errno));
        _exit(125);
    }
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                   PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, child, 0, options))
        die("ptrace of %d", child);
    if (write(gate[1], "", 1) != 1)
        die("pipe");
    close(gate[0]);
    close(gate[1]);
    return child;
}

int main(int argc, char **argv)
{
    if (argc < 5 || strcmp(argv[1], "-o") || strcmp(argv[3], "--")) {
        fputs("usage: oracle -o OUT.json -- PROG ARGS...\n", stderr);
        return 125;
    }
    pid_t child = start(argv + 4);
    int result = 0;
    for (;;) {
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno == EINTR)
            continue;
        if (tid < 0)
            break; /* ECHILD: none is left */
        if (!WIFSTOPPED(status)) {
            if (tid == child)
                result = status;
            forget_thread(tid);
            continue;
        }
        int sig = on_stop(tid, status);
        /* ESRCH: it was killed since; its end is reported by waitpid. */
        ptrace(sig < 0 ? PTRACE_LISTEN : PTRACE_SYSCALL, tid, 0, sig < 0 ? 0 : (long)sig);
    }
    write_report(argv[2], result);
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}
