/* The kinds of calls that are attacked: how each is made, and what must have come of it.
 *
 * In: the registers of a body, to be filled in. Out: its result, checked; the state after it (target.h).
 */
#include "target.h"

#ifdef DYNAMIC
#include <dlfcn.h>
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t byte_read;
static volatile int32_t child_tid;
static union {
    uint64_t words[8];
    struct ksigaction action;
    stack_t stack;
} given, got;

/* syscall; a marker; jmp *made_back. */
void make_code(void)
{
    uint8_t code[] = {0x0f, 0x05, 0xcd, 0x03, 0xff, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    uint64_t back = (uint64_t)made_back;
    memcpy(code + 10, &back, sizeof back);
    made_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(made_code, code, sizeof code);
    EXPECT("make", mprotect(made_code, 4096, PROT_READ | PROT_EXEC), 0);
    shape->site = (uint64_t)made_code;
    shape->after = shape->site + 2;
    shape->end = shape->site + 4;
}

#ifdef DYNAMIC
#define LOADED_MOV 5 /* bytes */
#define LOADED_BACK (LOADED_MOV + 2) /* jmp *loaded_back(%rip) */
#define TRAPS 5 /* of a site in a page of code, until it is patched */
#define COPIED_TRAPS 128 /* of one in code that is not a library's */

/* -> where it goes back to, in the page behind it. */
static void **copy_code(void)
{
    int32_t distance = 4096 - (LOADED_BACK + 6);
    uint8_t *to = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(to, made_code, LOADED_BACK + 6);
    memcpy(to + LOADED_BACK + 2, &distance, sizeof distance);
    EXPECT("copy", mprotect(to, 4096, PROT_READ | PROT_EXEC), 0);
    made_code = to;
    return (void **)(to + 4096);
}

/* The call stands in a library, or in a copy of it. If it is to be promoted it is patched, since it has trapped. */
void load_code(void)
{
    char name[32] = "loaded_";
    void *handle = dlopen(config.library, RTLD_NOW);
    REQUIRE("load", handle, 0);
    void **back = dlsym(handle, "loaded_back");
    made_code = dlsym(handle, strcat(name, kind->name));
    REQUIRE("load", back && made_code, 0);
    if (config.copied)
        back = copy_code();
    *back = once_back;
    for (int i = 0; i < (config.copied ? COPIED_TRAPS : TRAPS); i++) /* no descriptor, no mask */
        loaded_once(-1, -1, 0, -1);
    EXPECT("promoted", *(uint8_t *)made_code, config.promoted ? 0xe9 : 0xb8);
    *back = body_back;
    shape->site = (uint64_t)made_code + LOADED_MOV;
    shape->after = shape->site + 2;
}
#endif

int in_made(uint64_t ip) { return made_code && ip - (uint64_t)made_code < 4096; }

static void set(uint64_t *gpr, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    gpr[RAX] = (uint64_t)nr, gpr[RDI] = a, gpr[RSI] = b, gpr[RDX] = c, gpr[R10] = d;
}

static void prepare_getppid(uint64_t *gpr) { gpr[RAX] = SYS_getppid; }
static void check_getppid(int64_t result) { EXPECT("getppid", result, parent_pid); }

static void prepare_read(uint64_t *gpr)
{
    byte_read = 0;
    EXPECT("read", write(pipe_fds[1], "x", 1), 1);
    set(gpr, SYS_read, (uint64_t)pipe_fds[0], (uint64_t)&byte_read, 1, gpr[R10]);
}

static void prepare_readblk(uint64_t *gpr)
{
    byte_read = 0;
    set(gpr, SYS_read, (uint64_t)pipe_fds[0], (uint64_t)&byte_read, 1, gpr[R10]);
}

static void check_read(int64_t result)
{
    EXPECT("read", result, 1);
    EXPECT("read", byte_read, 'x');
}

/* Interrupted before the call: it finds the handler's byte. In the call: SA_RESTART decides. */
static void check_readblk(int64_t result)
{
    if (!config.restart && result == -EINTR)
        return;
    check_read(result);
}

static void prepare_action(uint64_t *gpr)
{
    given.action = installed[SIGUSR2];
    given.action.mask = BIT(SIGURG);
    memset(&got, 0x5e, sizeof got);
    set(gpr, SYS_rt_sigaction, SIGURG, (uint64_t)&given, (uint64_t)&got, 8);
    installed[SIGURG] = (struct ksigaction){0};
}

static void check_action_set(int64_t result)
{
    EXPECT("action", result, 0);
    EXPECT("action", got.action.handler, 0); /* a second execution would find the new one */
    EXPECT("action", got.words[4], UNSET);
    installed[SIGURG] = given.action;
    check_action("action", SIGURG, 0);
}

static void prepare_block(uint64_t *gpr)
{
    given.words[0] = BIT(SIGTERM) | BIT(SIGILL) | BIT(SIGCHLD);
    got.words[0] = UNSET;
    new_mask = base_mask | given.words[0];
    set(gpr, SYS_rt_sigprocmask, SIG_BLOCK, (uint64_t)&given, (uint64_t)&got, 8);
}

static void check_block(int64_t result)
{
    EXPECT("block", result, 0);
    EXPECT("block", got.words[0], base_mask);
}

/* The attacker's own signals get blocked: they wait until the end. */
static void prepare_blockusr(uint64_t *gpr)
{
    prepare_block(gpr);
    given.words[0] = BIT(SIGUSR1) | BIT(SIGUSR2);
    new_mask = base_mask | given.words[0];
}

/* One signal is pending when the call lets it in; attackers use the other. */
static void prepare_unblock(uint64_t *gpr)
{
    base_mask |= BIT(SIGUSR1);
    new_mask = base_mask & ~BIT(SIGUSR1);
    EXPECT("unblock", raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&base_mask, 0, 8), 0);
    EXPECT("unblock", raw(SYS_tgkill, own_pid, own_tid, SIGUSR1, 0), 0);
    given.words[0] = BIT(SIGUSR1);
    got.words[0] = UNSET;
    set(gpr, SYS_rt_sigprocmask, SIG_UNBLOCK, (uint64_t)&given, (uint64_t)&got, 8);
}

static void prepare_altget(uint64_t *gpr)
{
    memset(&got, 0x5e, sizeof got);
    set(gpr, SYS_sigaltstack, 0, (uint64_t)&got, gpr[RDX], gpr[R10]);
}

static void check_altget(int64_t result)
{
    EXPECT("altget", result, 0);
    EXPECT("altget", got.stack.ss_sp, alt.sp);
    EXPECT("altget", got.stack.ss_size, alt.size);
    EXPECT("altget", got.stack.ss_flags, alt.size ? 0 : SS_DISABLE);
}

static void prepare_altset(uint64_t *gpr)
{
    new_alt.size = 32768;
    new_alt.sp = (uint64_t)mmap(NULL, new_alt.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    given.stack = (stack_t){.ss_sp = (void *)new_alt.sp, .ss_size = new_alt.size};
    memset(&got, 0x5e, sizeof got);
    set(gpr, SYS_sigaltstack, (uint64_t)&given, (uint64_t)&got, gpr[RDX], gpr[R10]);
}

static void prepare_kill(uint64_t *gpr)
{
    set(gpr, SYS_tgkill, (uint64_t)own_pid, (uint64_t)own_tid, SIGUSR2, gpr[R10]);
}

static void check_zero(int64_t result) { EXPECT("call", result, 0); }

static void prepare_exec(uint64_t *gpr)
{
    static const char *const none[] = {NULL};
    set(gpr, SYS_execve, (uint64_t) "/nonexistent/program", (uint64_t)none, (uint64_t)none, gpr[R10]);
}
static void check_exec(int64_t result) { EXPECT("exec", result, -ENOENT); }

static void prepare_getgs(uint64_t *gpr)
{
    got.words[0] = UNSET;
    set(gpr, SYS_arch_prctl, 0x1004 /* ARCH_GET_GS */, (uint64_t)&got, gpr[RDX], gpr[R10]);
}

static void check_getgs(int64_t result)
{
    EXPECT("getgs", result, 0);
    EXPECT("getgs", got.words[0], 0);
}

/* Only the call itself lets the attacker's signals in. */
static void prepare_suspend(uint64_t *gpr)
{
    base_mask |= BIT(SIGUSR1) | BIT(SIGUSR2);
    new_mask = base_mask;
    EXPECT("suspend", raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&base_mask, 0, 8), 0);
    given.words[0] = BIT(SIGILL) | BIT(SIGTERM) | BIT(SIGUSR2);
    set(gpr, SYS_rt_sigsuspend, (uint64_t)&given, 8, gpr[RDX], gpr[R10]);
}

#ifndef SUSPEND_RESULT
#define SUSPEND_RESULT (-EINTR) /* a hook may make another of it */
#endif
static void check_suspend(int64_t result) { EXPECT("suspend", result, SUSPEND_RESULT); }

int is_suspend(void) { return kind->prepare == prepare_suspend; }
uint64_t suspend_mask(void) { return given.words[0]; }

static void prepare_fork(uint64_t *gpr) { gpr[RAX] = SYS_fork; }
static void prepare_vfork(uint64_t *gpr) { gpr[RAX] = SYS_vfork; }

static uint8_t thread_stack[65536] __attribute__((aligned(64)));

static void prepare_clone(uint64_t *gpr)
{
    child_tid = -1;
    /* VM FS FILES SIGHAND THREAD SYSVSEM CHILD_CLEARTID */
    set(gpr, SYS_clone, 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000,
        (uint64_t)thread_stack + 32768, gpr[RDX], (uint64_t)&child_tid);
    memcpy(thread_stack + 32768 - RED_ZONE, body_in.red, sizeof body_in.red); /* seen where a handler looks */
}

/* The child has sent its own count of handled signals by its exit status. */
static void check_process(int64_t pid)
{
    int status;
    REQUIRE("child", pid > 0, pid);
    long waited;
    do
        waited = raw(SYS_wait4, pid, (long)&status, 0, 0);
    while (waited == -EINTR);
    EXPECT("child", waited, pid);
    REQUIRE("child", WIFEXITED(status) && WEXITSTATUS(status) >= 64, status);
    child_hits1 = WEXITSTATUS(status) & 3;
    child_hits2 = WEXITSTATUS(status) >> 2 & 3;
}

static void check_thread(int64_t tid)
{
    REQUIRE("thread", tid > 0 && tid != own_tid, tid);
    while (child_tid)
        raw(SYS_sched_yield, 0, 0, 0, 0);
}

void child_main(void)
{
    int thread = kind->prepare == prepare_clone;
    EXPECT("child", child_out.gpr[RAX], 0);
    EXPECT("child", child_out.gpr[RCX], shape->after);
    EXPECT("child", child_out.gpr[R11] & (FLAGS_STATUS | FLAGS_DF), body_in.flags & (FLAGS_STATUS | FLAGS_DF));
    EXPECT("child", child_out.rsp, thread ? body_in.gpr[RSI] : body_in.rsp);
    check_preserved("child", &child_out);
    int64_t parent = raw(SYS_getppid, 0, 0, 0, 0);
    EXPECT("child", parent, thread ? parent_pid : own_pid);
    check_alt("child", alt.sp, thread ? 0 : alt.size, 0);
    EXPECT("child", current_mask(), new_mask);
    check_action("child", SIGUSR2, 0);
    for (int i = 0; i < 3; i++)
        EXPECT("child", raw(SYS_getppid, 0, 0, 0, 0), parent);
    if (config.child_mark) /* a signal that comes while it ends may be lost, as without a rewriter */
        finish_marker();
    if (thread)
        raw(SYS_exit, 0, 0, 0, 0);
    raw(SYS_exit_group, (long)(64 + (child_hits1 & 3) + 4 * (child_hits2 & 3)), 0, 0, 0);
    __builtin_unreachable();
}

const struct kind kinds[] = {
    {"getppid", prepare_getppid, check_getppid, 0, 0},
    {"read", prepare_read, check_read, 0, 0},
    {"readblk", prepare_readblk, check_readblk, 0, 0},
    {"action", prepare_action, check_action_set, 0, 0},
    {"block", prepare_block, check_block, 0, 0},
    {"blockusr", prepare_blockusr, check_block, 0, 0},
    {"unblock", prepare_unblock, check_block, 1, 0},
    {"altget", prepare_altget, check_altget, 0, 0},
    {"altset", prepare_altset, check_altget, 0, 0},
    {"kill", prepare_kill, check_zero, 0, 1},
    {"exec", prepare_exec, check_exec, 0, 0},
    {"getgs", prepare_getgs, check_getgs, 0, 0},
    {"suspend", prepare_suspend, check_suspend, 0, 0},
    {"fork", prepare_fork, check_process, 0, 0},
    {"vfork", prepare_vfork, check_process, 0, 0},
    {"clone", prepare_clone, check_thread, 0, 0},
    {NULL, NULL, NULL, 0, 0},
};
