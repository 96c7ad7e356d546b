/* The program under attack: one system call in a body (body.h), handlers that check everything that they can see.
 *
 * target KIND SHAPE [OPTION...]: see kinds[] and the table of options. A driver injects signals between the markers and until
 * the finish marker. The exit status is 64 + SIGUSR1 handled (0-3) + 4 * SIGUSR2 handled (0-3) + 16 * (0: no jump, 1:
 * SIGUSR1's handler jumped out, 2: SIGUSR2's), without the signals that the program sent to itself. 1: a check failed, and
 * standard error says which.
 */
#include "target.h"

#include "others.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CANARY_BYTES 512
#define SIGFRAME_SIZE 440 /* struct rt_sigframe */
#define FP_MAGIC1 0x46505853u

struct config config;
const struct kind *kind;
static struct shape shape_here;
struct shape *shape = &shape_here;

static sigjmp_buf out_of_body;
static volatile uint64_t hits1, hits2, jumped;
volatile uint64_t child_hits1, child_hits2;
static volatile int in_body;
pid_t own_pid, own_tid;
static pid_t driver_pid;
int64_t parent_pid;
uint64_t base_mask;
volatile uint64_t new_mask;
static uint8_t *alt_area; /* [canary][alternate stack][canary] */
volatile struct alt alt, new_alt;
struct ksigaction installed[65];
int pipe_fds[2];
#define ARCH_SET_GS 0x1001 /* asm/prctl.h, which musl does not have */
#define ARCH_GET_GS 0x1004
#define GS_MARK 0x6e776f2073676ul
static uint64_t gs_area[4] = {[1] = GS_MARK};

static int has_children(void) { return shape->name[0] == 'c'; }
static int is_loaded(void) { return shape->name[0] == 'l'; }
/* The call. The ends of the `loaded` shape are elsewhere. */
static int is_before(uint64_t ip) { return ip == shape->go || (ip <= shape->site && ip != shape->end); }

/* ---- What must hold anywhere ---- */

/* The program's own gs is in gs, and not only told so. */
static void check_gs(const char *where)
{
    uint64_t there, base = UNSET;
    if (config.own_gs) {
        __asm__ volatile("mov %%gs:8, %0" : "=r"(there));
        EXPECT(where, there, GS_MARK);
    }
    EXPECT(where, raw(SYS_arch_prctl, ARCH_GET_GS, (long)&base, 0, 0), 0);
    EXPECT(where, base, config.own_gs ? (uint64_t)gs_area : 0);
}

static void *set_gs(void *unused)
{
    EXPECT("gs", raw(SYS_arch_prctl, ARCH_SET_GS, (long)gs_area, 0, 0), 0);
    return unused;
}

static void check_calls(const char *where)
{
    check_gs(where);
    int64_t parent = raw(SYS_getpid, 0, 0, 0, 0) == own_pid ? parent_pid : own_pid;
    for (int i = 0; i < 2; i++)
        EXPECT(where, raw(SYS_getppid, 0x111, 0x222, 0x333, 0x444), parent);
    EXPECT(where, getppid(), parent);
}

void check_action(const char *where, int sig, int is_default)
{
    struct ksigaction now = {UNSET, UNSET, UNSET, UNSET};
    EXPECT(where, raw(SYS_rt_sigaction, sig, 0, (long)&now, 8), 0);
    if (is_default) {
        EXPECT(where, now.handler, 0);
        return;
    }
    EXPECT(where, now.handler, installed[sig].handler);
    EXPECT(where, now.flags, installed[sig].flags);
    EXPECT(where, now.restorer, installed[sig].restorer);
    EXPECT(where, now.mask, installed[sig].mask);
}

/* ---- The handlers' checks of the interrupted context ---- */

void check_preserved(const char *where, const struct regs *now)
{
    static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8",
                                        "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    for (int i = 0; i < GPRS; i++)
        if (i != RAX && i != RCX && i != R11 && now->gpr[i] != body_in.gpr[i])
            fail(where, names[i], now->gpr[i], body_in.gpr[i]);
    for (int i = 0; i < 16; i++) {
        EXPECT(where, now->red[i], body_in.red[i]);
        if (i == 15 && has_children()) /* the shape uses it */
            break;
        EXPECT(where, now->xmm[i][0], body_in.xmm[i][0]);
        EXPECT(where, now->xmm[i][1], body_in.xmm[i][1]);
    }
    EXPECT(where, now->mxcsr, body_in.mxcsr);
    EXPECT(where, now->fcw, body_in.fcw);
    EXPECT(where, now->flags & (FLAGS_STATUS | FLAGS_DF), body_in.flags & (FLAGS_STATUS | FLAGS_DF));
}

static void from_context(const ucontext_t *uc, struct regs *to)
{
    static const int index[GPRS] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_R8,
                                    REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *g = uc->uc_mcontext.gregs;
    for (int i = 0; i < GPRS; i++)
        to->gpr[i] = (uint64_t)g[index[i]];
    to->flags = (uint64_t)g[REG_EFL];
    to->rsp = (uint64_t)g[REG_RSP];
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    memcpy(to->red, (const void *)(to->rsp - RED_ZONE), sizeof to->red);
    memcpy(to->xmm, fp + 160, sizeof to->xmm);
    memcpy(&to->mxcsr, fp + 24, 4);
    memcpy(&to->fcw, fp, 2);
}

/* The body was interrupted: every register is known. */
static void check_body_context(const char *where, const ucontext_t *uc, int in_child)
{
    uint64_t ip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    struct regs now;
    from_context(uc, &now);
    int inside = has_children() && ip > shape->after && ip < shape->end + 16;
    int is_mov = is_loaded() && ip == (uint64_t)made_code;
    REQUIRE(where, is_mov || ip == shape->go || ip == shape->site || ip == shape->after || ip == shape->end || inside, ip);
    if (in_child && kind->name[0] == 'c') /* clone: on the stack that it was given */
        EXPECT(where, now.rsp, body_in.gpr[RSI]);
    else
        EXPECT(where, now.rsp, body_in.rsp);
    check_preserved(where, &now);
    uint64_t mask;
    memcpy(&mask, &uc->uc_sigmask, 8);
    if (is_before(ip)) {
        EXPECT(where, now.gpr[RAX], body_in.gpr[RAX]);
        if (ip == shape->go || is_mov) /* at the site it is dead: the call overwrites it */
            EXPECT(where, now.gpr[RCX], body_in.gpr[RCX]);
        EXPECT(where, mask, base_mask);
        return;
    }
    if (in_child)
        EXPECT(where, now.gpr[RAX], 0);
    if (!inside)
        EXPECT(where, now.gpr[RCX], shape->after);
    EXPECT(where, now.gpr[R11] & ~FLAGS_STEP, now.flags & ~FLAGS_STEP);
    EXPECT(where, mask, new_mask);
}

static void check_frame(const char *where, int sig, const siginfo_t *info, const ucontext_t *uc, uint64_t frame)
{
    int in_child = raw(SYS_gettid, 0, 0, 0, 0) != own_tid, in_thread = in_child && kind->name[0] == 'c';
    uint64_t ip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP], sp = (uint64_t)uc->uc_mcontext.gregs[REG_RSP];
    uint64_t lo = alt.sp, size = alt.size, mask, app_mask;
    int body = made_code ? ip == shape->go || in_made(ip) || ip == shape->end : ip >= shape->go && ip <= shape->end + 2;
    if (body && !is_before(ip))
        lo = new_alt.sp, size = new_alt.size;
    if (!body) { /* either may be armed: what the call was to set may have been set or not */
        stack_t now;
        EXPECT(where, raw(SYS_sigaltstack, 0, (long)&now, 0, 0), 0);
        lo = (uint64_t)now.ss_sp, size = now.ss_size;
        REQUIRE(where, (lo == alt.sp && size == alt.size) || (lo == new_alt.sp && size == new_alt.size) || in_thread, lo);
    }
    if (in_thread)
        lo = size = 0;
    REQUIRE(where, in_own_text(ip) || in_made(ip), ip);
    REQUIRE(where, in_own_text(*(const uint64_t *)((const char *)uc - 8)), *(const uint64_t *)((const char *)uc - 8));
    EXPECT(where, (uint64_t)uc & 15, 0);
    EXPECT(where, frame + 16, (uint64_t)uc); /* the handler's first rsp: the frame, 8 below the context */

    EXPECT(where, info->si_signo, sig);
    REQUIRE(where, info->si_code == SI_USER || info->si_code == SI_TKILL, info->si_code);
    REQUIRE(where, info->si_pid == driver_pid || (info->si_code == SI_TKILL && info->si_pid == getpid()), info->si_pid);

    /* The place that the kernel takes: kernel arch/x86/kernel/signal.c, get_sigframe. */
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint32_t sw[2];
    memcpy(sw, fp + 464, sizeof sw);
    EXPECT(where, sw[0], FP_MAGIC1);
    int entering = config.on_stack && size && !on_alt(sp, lo, size);
    uint64_t at = entering ? lo + size : sp - RED_ZONE;
    uint64_t fp_at = (at - sw[1]) & ~63ul;
    EXPECT(where, fp, fp_at);
    EXPECT(where, uc, ((fp_at - SIGFRAME_SIZE) & ~15ul) - 8 + 8);
    if (entering || on_alt(sp, lo, size))
        REQUIRE(where, on_alt((uint64_t)uc - 8, lo, size), uc);

    EXPECT(where, uc->uc_link, 0);
    EXPECT(where, uc->uc_stack.ss_sp, lo);
    EXPECT(where, uc->uc_stack.ss_size, size);
    /* Without a stack the flags are what they were before exec: kernel fs/exec.c, begin_new_exec. */
    REQUIRE(where, uc->uc_stack.ss_flags == 0 || (!size && uc->uc_stack.ss_flags == SS_DISABLE), uc->uc_stack.ss_flags);
    check_alt(where, lo, size, entering || on_alt(sp, lo, size));

    memcpy(&mask, &uc->uc_sigmask, 8);
    if (body && ip == shape->after && is_suspend())
        mask = suspend_mask(); /* the handler runs under the call's mask, and returns to the one before */
    app_mask = mask | installed[sig].mask | (installed[sig].flags & SA_NODEFER ? 0 : BIT(sig));
    EXPECT(where, current_mask(), app_mask);
    if (body)
        check_body_context(where, uc, in_child);
}

static uint32_t control_word(void)
{
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return mxcsr;
}

static uint64_t flags_now(void)
{
    uint64_t flags;
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    return flags;
}

#define CANARY(i) (0xca9a57 * (uint64_t)((i) + 1))
#define CANARIES 24

static void common(const char *where, int sig, const siginfo_t *info, const ucontext_t *uc, uint64_t frame, uint64_t flags)
{
    volatile uint64_t canary[CANARIES];
    int saved_errno = errno;
    for (int i = 0; i < CANARIES; i++)
        canary[i] = CANARY(i);
    EXPECT(where, flags & FLAGS_DF, 0);
    EXPECT(where, control_word(), 0x1f80);
    check_frame(where, sig, info, uc, frame);
    check_calls(where);
    if (sig == SIGUSR1)
        check_action(where, sig, config.reset_hand);
    if (sig == SIGUSR1 && config.raise2)
        EXPECT(where, raw(SYS_tgkill, getpid(), raw(SYS_gettid, 0, 0, 0, 0), SIGUSR2, 0), 0);
    check_calls(where);
    for (int i = 0; i < CANARIES; i++)
        EXPECT(where, canary[i], CANARY(i));
    errno = saved_errno;
}

/* A child process has counters of its own: those that it inherited are its parent's. */
static volatile uint64_t *counter(int which)
{
    int child = raw(SYS_getpid, 0, 0, 0, 0) != own_pid;
    return which == 1 ? (child ? &child_hits1 : &hits1) : (child ? &child_hits2 : &hits2);
}

/* The frame address plus 16 is the stack pointer before the return address was pushed. */
static void h1(int sig, siginfo_t *info, void *context)
{
    uint64_t flags = flags_now();
    *counter(1) += 1;
    if (kind->name[0] == 'r' && kind->name[4] == 'b') /* readblk */
        raw(SYS_write, pipe_fds[1], (long)"x", 1, 0);
    common("h1", sig, info, context, (uint64_t)__builtin_frame_address(0), flags);
    if (config.jump1) {
        jumped = 1;
        siglongjmp(out_of_body, 1);
    }
}

static void h2(int sig, siginfo_t *info, void *context)
{
    uint64_t flags = flags_now();
    *counter(2) += 1;
    common("h2", sig, info, context, (uint64_t)__builtin_frame_address(0), flags);
    if (config.jump2) {
        jumped = 2;
        siglongjmp(out_of_body, 2);
    }
}

static void install(int sig, void (*handler)(int, siginfo_t *, void *), uint64_t mask)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    if (config.on_stack)
        action.sa_flags |= SA_ONSTACK;
    if (config.no_defer)
        action.sa_flags |= SA_NODEFER;
    if (config.restart)
        action.sa_flags |= SA_RESTART;
    if (config.reset_hand && sig == SIGUSR1)
        action.sa_flags |= (int)SA_RESETHAND;
    for (int i = 1; i < 32; i++)
        if (mask & BIT(i))
            sigaddset(&action.sa_mask, i);
    EXPECT("install", sigaction(sig, &action, NULL), 0);
    /* What the kernel would answer: libc's own restorer, and the flags that libc adds. */
    struct ksigaction now;
    EXPECT("install", raw(SYS_rt_sigaction, sig, 0, (long)&now, 8), 0);
    EXPECT("install", now.handler, handler);
    EXPECT("install", now.flags, (uint64_t)(uint32_t)action.sa_flags | 0x04000000);
    EXPECT("install", now.mask, mask);
    REQUIRE("install", in_own_text(now.restorer), now.restorer);
    installed[sig] = now;
}

/* ---- The run ---- */

static void fill_registers(void)
{
    uint64_t x = 0x9e3779b97f4a7c15;
    for (int i = 0; i < GPRS; i++)
        body_in.gpr[i] = x *= 0xd1342543de82ef95, x ^= x >> 29;
    for (int i = 0; i < 16; i++) {
        body_in.red[i] = x *= 0xd1342543de82ef95;
        body_in.xmm[i][0] = x *= 0xd1342543de82ef95;
        body_in.xmm[i][1] = x *= 0xd1342543de82ef95;
    }
    body_in.flags = 0x202 | config.flags;
    body_in.mxcsr = 0x9fc0; /* flush to zero, denormals are zero */
    body_in.fcw = 0x0f7f;   /* round to zero */
}

static void check_body(void)
{
    EXPECT("body", body_out.rsp, body_in.rsp);
    check_preserved("body", &body_out);
    EXPECT("body", body_out.gpr[RCX], shape->after);
    EXPECT("body", body_out.gpr[R11] & ~FLAGS_STEP, body_out.flags & ~FLAGS_STEP);
}

static void check_afterwards(void)
{
    for (int i = 0; i < 3; i++)
        check_calls("afterwards");
    stack_t armed;
    EXPECT("afterwards", sigaltstack(NULL, &armed), 0);
    if (jumped && (uint64_t)armed.ss_sp == new_alt.sp) /* jumped out after the call */
        alt.sp = new_alt.sp, alt.size = new_alt.size;
    check_alt("afterwards", jumped ? alt.sp : new_alt.sp, jumped ? alt.size : new_alt.size, 0);
    check_action("afterwards", SIGUSR2, 0);
}

static void check_around_alt(void)
{
    for (uint64_t i = 0; alt_area && i < CANARY_BYTES; i++) {
        EXPECT("below the alternate stack", alt_area[i], 0xa5);
        EXPECT("above the alternate stack", alt_area[CANARY_BYTES + config.alt_bytes + i], 0xa5);
    }
}

static void make_alt(void)
{
    if (!config.alt_bytes)
        return;
    alt_area = mmap(NULL, config.alt_bytes + 2 * CANARY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(alt_area, 0xa5, config.alt_bytes + 2 * CANARY_BYTES);
    stack_t stack = {.ss_sp = alt_area + CANARY_BYTES, .ss_size = config.alt_bytes};
    EXPECT("sigaltstack", sigaltstack(&stack, NULL), 0);
    alt.sp = (uint64_t)stack.ss_sp;
    alt.size = stack.ss_size;
}

static void read_options(char **option)
{
    for (; *option; option++) {
        const char *value = strchr(*option, '=');
        unsigned long number = value ? strtoul(value + 1, NULL, 0) : 1;
        size_t n = value ? (size_t)(value - *option) : strlen(*option);
#define IS(name) (n == sizeof name - 1 && !strncmp(*option, name, n))
        if (IS("jump1"))
            config.jump1 = 1;
        else if (IS("jump2"))
            config.jump2 = 1;
        else if (IS("raise2"))
            config.raise2 = 1;
        else if (IS("alt")) /* bytes of the alternate stack; handlers with SA_ONSTACK */
            config.alt_bytes = number, config.on_stack = 1;
        else if (IS("unused")) /* an alternate stack that no handler uses */
            config.alt_bytes = 16384;
        else if (IS("nodefer"))
            config.no_defer = 1;
        else if (IS("resethand"))
            config.reset_hand = 1;
        else if (IS("restart"))
            config.restart = 1;
        else if (IS("childmark")) /* the child is the one under attack, and finishes */
            config.child_mark = 1;
        else if (IS("gs")) /* a gs base of its own */
            config.own_gs = 1;
        else if (IS("othergs")) { /* a thread that has ended had one: this one does not */
            pthread_t other;
            EXPECT("gs", pthread_create(&other, NULL, set_gs, NULL) || pthread_join(other, NULL), 0);
        } else if (IS("threads")) /* others beside it */
            config.threads = 1;
        else if (IS("second")) /* not the first thread is under attack, but one that it makes */
            config.threads = config.second = 1;
        else if (IS("segv"))
            config.segv = 1;
        else if (IS("mask")) /* SIGUSR1's handler blocks SIGUSR2 too */
            config.mask1 = BIT(SIGUSR2) | BIT(SIGILL);
        else if (IS("waits")) /* SIGILL is blocked, and stays so */
            config.blocked = BIT(SIGILL);
        else if (IS("ignores"))
            EXPECT("ignores", signal(SIGILL, SIG_IGN) == SIG_ERR, 0);
        else if (IS("promoted"))
            config.promoted = 1;
        else if (IS("copied")) /* what is loaded is copied to memory of its own */
            config.copied = 1;
        else if (IS("library")) /* where the `loaded` shape is */
            config.library = value + 1;
        else if (IS("flags"))
            config.flags = number;
        else if (IS("skew"))
            body_skew = number;
        else
            fail("usage", *option, 0, 0);
    }
}

/* The thread under attack, which ends the process. */
static void *run(void *unused)
{
    (void)unused;
    own_tid = (pid_t)raw(SYS_gettid, 0, 0, 0, 0);
    base_mask = new_mask = BIT(SIGHUP) | config.blocked;
    EXPECT("mask", raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&base_mask, 0, 8), 0);
    if (config.own_gs)
        set_gs(NULL);
    make_alt();
    new_alt = alt;
    install(SIGUSR1, h1, config.mask1);
    install(SIGUSR2, h2, 0);
    if (config.segv) /* the signal that the runtime does not mask while it enters a handler */
        install(SIGSEGV, h2, 0);
    if (config.threads)
        others_start(config.second);

    if (!sigsetjmp(out_of_body, 1)) {
        fill_registers();
        kind->prepare(body_in.gpr);
        shape->run();
        kind->check((int64_t)body_out.gpr[RAX]);
        check_body();
        EXPECT("afterwards", current_mask(), new_mask);
    }
    check_afterwards();
    base_mask = new_mask = BIT(SIGHUP) | config.blocked;
    EXPECT("mask", raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&base_mask, 0, 8), 0);
    check_calls("end");
    finish_marker(); /* what follows takes many steps */
    check_around_alt();
    others_check();
    uint64_t total1 = hits1 + child_hits1 - kind->raised1, total2 = hits2 + child_hits2 - kind->raised2;
    if (config.raise2)
        total2 -= total1 + kind->raised1;
    raw(SYS_exit_group, (long)(64 + (total1 & 3) + 4 * (total2 & 3) + 16 * jumped), 0, 0, 0);
    __builtin_unreachable();
}

int main(int argc, char **argv)
{
    if (argc < 3)
        fail("usage", "argc", (uint64_t)argc, 3);
    for (kind = kinds; kind->name && strcmp(kind->name, argv[1]); kind++)
        ;
    if (!kind->name || !find_shape(argv[2], shape))
        fail("usage", "kind or shape", 0, 0);
    if (!strcmp(shape->name, "made"))
        make_code();
    read_options(argv + 3);
#ifdef DYNAMIC
    if (is_loaded())
        load_code();
#endif
    own_pid = getpid();
    parent_pid = driver_pid = getppid();
    EXPECT("pipe", pipe(pipe_fds), 0);
    if (!config.second)
        run(NULL);
    pthread_t attacked;
    EXPECT("second", pthread_create(&attacked, NULL, run, NULL), 0);
    others_lead();
    pause(); /* the thread under attack ends the process */
    return 1;
}
