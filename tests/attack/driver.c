/* Injects signals into target.c at chosen instructions, and counts the runs that went wrong.
 *
 * driver [-1 SIG] [-2 SIG] [-k FROM:TO:STRIDE] [-m FROM:TO:STRIDE] [-p PHASE] [-n COUNT:SEED] [-a FROM:TO] [-c] [-t] [-b] PROGRAM ARGUMENT...
 *
 * Each point is one process. It runs to its first marker (`int $3`), makes k single steps, and gets signal 1. With -m it
 * makes m more steps from the first instruction that follows and gets signal 2. Then it runs to its end. Without a limit TO
 * the steps of k end at the second marker and those of m at the finish marker; PHASE shifts m's start from one k to
 * the next, so that a stride leaves no residue class out.
 *   -n  COUNT points instead of every one: k from equal parts of its range in turn, m anywhere in its range, but every second
 *       one within the first EARLY steps, where the handler is being entered. The same SEED gives the same points.
 *   -a  FROM:TO (hexadecimal): those k alone at which the program counter is between these addresses
 *   -c  the child of the body's call is attacked, from its first instruction
 *   -t  the first thread that the program makes is attacked, from its first marker on; all others run untraced, as a program's
 *       other threads do in any case
 *   -b  the call blocks: k ends there, and one more point interrupts it inside the kernel
 *
 * Standard output: one JSON object {"steps", "points", "second", "failures": [{"k", "m", "pc1", "pc2", "outcome",
 * "stderr"}...]}; `second` counts the points at which signal 2 was sent. The exit status is 0 whatever was found, 2 for a usage error.
 */
#define _GNU_SOURCE
#include "body.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_SECONDS 60  /* in which a program that hangs does not stop once; a busy machine makes a step take a second, not a minute */
#define TIMEOUT_INTERVALS 20 /* and nothing takes so many of them: a program that stops for ever */
#define LISTED_FAILURES 20
#define NONE (-1L)
#define DOUBLE_LIMIT 1000000L
#define EARLY 600
#define GUARD_COOKIE 0x6472617567
#define TRACE_CHILDREN (PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE)

struct range {
    long from, to, stride; /* to: inclusive, NONE for the natural end */
};

static int signal1 = SIGUSR1, signal2 = 0, attack_child, attack_thread, blocking;
static struct range range_k = {0, NONE, 1}, range_m = {NONE, NONE, 1};
static long phase, sample_count;
static uint64_t at_from, at_to; /* -a */
static long chosen[64], chosen_count;
static uint64_t random_state;
static char **command;
static int target_stderr;
static volatile sig_atomic_t timed_out;
static int intervals;                /* that have passed in this point */
static long stops, stops_before; /* now, and when the last one passed */

/* One process under attack. */
struct run {
    pid_t pid;   /* the program */
    pid_t tid;   /* who is stepped: it, or the child of its call, or a thread */
    int stopped; /* tid is, and waits for resume() */
    int signal;  /* to be passed on with it */
    int ended;   /* the program has ended with `status` */
    int left;    /* tid has */
    int status;
    uint64_t pc1, pc2;
    int sent1, sent2;
    char stuck[256];
};

enum stop { STEPPED, MARKER, FINISHED, ENDED, BLOCKED };

static void on_alarm(int sig)
{
    (void)sig;
    timed_out = 1;
}

static void arm_timeout(int seconds)
{
    struct itimerval timer = {.it_interval = {seconds, 0}, .it_value = {seconds, 0}};
    timed_out = intervals = 0;
    stops_before = stops;
    setitimer(ITIMER_REAL, &timer, NULL);
}

__attribute__((noreturn)) static void die(const char *what)
{
    perror(what);
    exit(3);
}

static void note_stuck(struct run *r)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/syscall", r->tid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, r->stuck, sizeof r->stuck - 1);
    r->stuck[n > 0 ? n - 1 : 0] = 0;
    close(fd);
}

/* waitpid, but a program that takes too long is killed, and then has ended. Time alone does not tell: on a machine with a load of 100 a point of
 * thousands of steps takes minutes. */
static pid_t wait_for(struct run *r, pid_t pid, int *status)
{
    pid_t got;
    for (;;) {
        got = waitpid(pid, status, __WALL);
        if (got >= 0 || errno != EINTR) {
            stops++;
            return got;
        }
        if (!timed_out)
            continue;
        timed_out = 0;
        if (stops != stops_before && ++intervals < TIMEOUT_INTERVALS) {
            stops_before = stops;
        } else if (!r->stuck[0]) {
            note_stuck(r);
            kill(r->pid, SIGKILL);
            kill(r->tid, SIGKILL);
        }
    }
}

static uint64_t pc_of(pid_t tid)
{
    struct user_regs_struct regs;
    return ptrace(PTRACE_GETREGS, tid, 0, &regs) ? 0 : regs.rip;
}

/* Lets r->tid get `sig` where it stands. At the first instruction of a handler the stop is a notification, where ptrace passes no
 * signal on (kernel: signal_delivered, ptrace_notify): there it is sent, and passed on when its own stop comes. */
static void inject(struct run *r, int sig)
{
    siginfo_t info;
    if (sig == SIGSYS) { /* as the runtime sends it to a thread that is to arm (runtime_stub/src/guard.c): nobody's handler sees it */
        memset(&info, 0, sizeof info);
        info.si_signo = sig;
        info.si_code = SI_QUEUE;
        info.si_value.sival_ptr = (void *)GUARD_COOKIE;
        syscall(SYS_rt_tgsigqueueinfo, r->pid, r->tid, sig, &info);
        return;
    }
    if (!ptrace(PTRACE_GETSIGINFO, r->tid, 0, &info) && info.si_code == SIGTRAP)
        syscall(SYS_tgkill, r->pid, r->tid, sig);
    else
        r->signal = sig;
}

/* What a SIGTRAP stop of `tid` is. */
static enum stop classify(pid_t tid)
{
    siginfo_t info;
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETSIGINFO, tid, 0, &info) || info.si_code != SI_KERNEL)
        return STEPPED;
    ptrace(PTRACE_GETREGS, tid, 0, &regs);
    return regs.rax == FINISH ? FINISHED : MARKER;
}

static int asleep(pid_t tid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", tid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && state[2] == 'S';
}

/* Resumes r->tid by `request` and waits until it stops for a trap, or the program ends. Signals that it gets from elsewhere are
 * passed on. Processes other than r->tid run freely. */
static enum stop resume(struct run *r, long request, int may_block)
{
    int status;
    ptrace(request, r->tid, 0, r->signal);
    r->signal = 0;
    if (may_block)
        for (int i = 0; i < 200; i++) {
            siginfo_t info = {0};
            if (!waitid(P_PID, (id_t)r->tid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) && info.si_pid)
                break;
            if (i > 20 && asleep(r->tid))
                return BLOCKED;
            usleep(i < 20 ? 20 : 500);
        }
    for (;;) {
        pid_t got = wait_for(r, r->tid == r->pid ? r->pid : -1, &status);
        if (got < 0)
            die("waitpid");
        if (!WIFSTOPPED(status)) {
            if (got == r->tid)
                r->left = 1;
            if (got != r->pid)
                continue; /* a child that is traced; if it is the one under attack, the program's end is awaited */
            r->ended = 1;
            r->status = status;
            return ENDED;
        }
        int sig = WSTOPSIG(status);
        if (got != r->tid) { /* the program, while its child is attacked */
            ptrace(PTRACE_CONT, got, 0, sig == SIGTRAP || sig == SIGSTOP ? 0 : sig);
            continue;
        }
        if (sig == SIGTRAP)
            return status >> 16 ? STEPPED : classify(r->tid);
        if (sig == SIGSTOP)
            sig = 0;
        if (request == PTRACE_CONT && may_block)
            return r->signal = sig, STEPPED;
        ptrace(request, r->tid, 0, sig);
    }
}

/* From the program's start to the first stop of the first thread that it makes. Its own first thread is let go then. */
static void enter_thread(struct run *r)
{
    int status, detached = 0;
    ptrace(PTRACE_CONT, r->pid, 0, 0);
    while (!detached || r->tid == r->pid) {
        pid_t got = wait_for(r, -1, &status);
        if (got < 0 || (got == r->pid && !WIFSTOPPED(status))) {
            r->ended = 1, r->status = status;
            return;
        }
        if (got != r->pid) {
            ptrace(PTRACE_SETOPTIONS, got, 0, PTRACE_O_EXITKILL);
            r->tid = got;
        } else if (WSTOPSIG(status) != SIGTRAP) { /* the guard's */
            ptrace(PTRACE_CONT, got, 0, WSTOPSIG(status));
        } else {
            detached = !ptrace(PTRACE_DETACH, got, 0, 0);
        }
    }
}

static void start(struct run *r)
{
    memset(r, 0, sizeof *r);
    if (ftruncate(target_stderr, 0) || lseek(target_stderr, 0, SEEK_SET))
        die("stderr");
    r->pid = fork();
    if (r->pid < 0)
        die("fork");
    if (!r->pid) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        personality(ADDR_NO_RANDOMIZE);
        dup2(target_stderr, 2);
        execv(command[0], command);
        _exit(127);
    }
    r->tid = r->pid;
    int status;
    wait_for(r, r->pid, &status);
    if (!WIFSTOPPED(status)) {
        r->ended = 1, r->status = status;
        return;
    }
    ptrace(PTRACE_SETOPTIONS, r->pid, 0, PTRACE_O_EXITKILL | (attack_thread ? PTRACE_O_TRACECLONE : 0));
    if (attack_thread)
        enter_thread(r);
    if (!r->ended)
        resume(r, PTRACE_CONT, 0);
}

/* From the first marker to the first stop of the child of the call. The program goes on and waits for it. */
static void enter_child(struct run *r)
{
    int status, event_seen = 0, child_stopped = 0;
    pid_t child = 0;
    ptrace(PTRACE_SETOPTIONS, r->pid, 0, PTRACE_O_EXITKILL | TRACE_CHILDREN);
    ptrace(PTRACE_CONT, r->pid, 0, 0);
    while (!event_seen || !child_stopped) {
        pid_t got = wait_for(r, -1, &status);
        if (got < 0 || (got == r->pid && !WIFSTOPPED(status))) {
            r->ended = 1, r->status = status;
            return;
        }
        if (got == r->pid) {
            unsigned long id;
            if (status >> 16 && !ptrace(PTRACE_GETEVENTMSG, got, 0, &id))
                event_seen = 1, child = (pid_t)id;
            ptrace(PTRACE_CONT, got, 0, 0);
        } else {
            child_stopped = 1;
            child = got;
        }
    }
    r->tid = child;
}

/* To the end; the result is the wait status of the program. */
static void finish(struct run *r)
{
    while (!r->ended) {
        if (r->left) { /* the child has ended; the program goes on by itself */
            int status;
            pid_t got = wait_for(r, -1, &status);
            if (got < 0)
                die("waitpid");
            if (got == r->pid && !WIFSTOPPED(status))
                r->ended = 1, r->status = status;
            else if (WIFSTOPPED(status))
                ptrace(PTRACE_CONT, got, 0, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
            continue;
        }
        resume(r, PTRACE_CONT, 0);
    }
    arm_timeout(0);
    while (attack_child && waitpid(-1, NULL, __WALL | WNOHANG) > 0)
        ;
}

/* One point. m is NONE without a second signal. Returns 0 where k is beyond the end. *steps_m: how many steps of m there are. */
static int attack(struct run *r, long k, long m, long block_at, long *steps_m)
{
    arm_timeout(TIMEOUT_SECONDS);
    start(r);
    if (!r->ended && attack_child)
        enter_child(r);
    int in_kernel = blocking && k == block_at + 1;
    for (long i = 0; i < (in_kernel ? block_at : k) && !r->ended; i++)
        if (resume(r, PTRACE_SINGLESTEP, 0) != STEPPED) {
            finish(r);
            return 0;
        }
    if (in_kernel && !r->ended) {
        if (resume(r, PTRACE_CONT, 1) == BLOCKED) {
            syscall(SYS_tgkill, r->pid, r->tid, signal1);
            int status;
            wait_for(r, r->tid, &status); /* the stop that delivers it */
            if (!WIFSTOPPED(status))
                r->ended = 1, r->status = status;
        }
    }
    if (!r->ended) {
        r->pc1 = pc_of(r->tid);
        inject(r, signal1);
        r->sent1 = 1;
    }
    if (m != NONE && !r->ended) {
        enum stop stop = resume(r, PTRACE_SINGLESTEP, 0);
        long i = 0;
        /* Markers of the body are passed; the finish marker ends it. */
        while (i < m && (stop == STEPPED || stop == MARKER)) {
            stop = resume(r, PTRACE_SINGLESTEP, 0);
            i++;
        }
        if (steps_m)
            *steps_m = i;
        if (stop == STEPPED || stop == MARKER) {
            r->pc2 = pc_of(r->tid);
            inject(r, signal2);
            r->sent2 = 1;
        }
    }
    finish(r);
    return 1;
}

/* With the option `segv` of the target its second handler is that of SIGSEGV, too. */
static int is_usr(int sig, int which) { return which == 1 ? sig == SIGUSR1 : sig == SIGUSR2 || sig == SIGSEGV; }

/* The program found no fault, and each signal was handled as often as it was sent; but the same signal, sent twice while it
 * cannot be delivered, is pending once. */
static int good(const struct run *r)
{
    if (r->stuck[0] || !WIFEXITED(r->status) || WEXITSTATUS(r->status) < 64)
        return 0;
    int expected1 = (r->sent1 && is_usr(signal1, 1)) + (r->sent2 && is_usr(signal2, 1));
    int expected2 = (r->sent1 && is_usr(signal1, 2)) + (r->sent2 && is_usr(signal2, 2));
    int code = WEXITSTATUS(r->status) - 64, handled1 = code & 3, handled2 = code >> 2 & 3;
    if (code >> 4 == 2 && handled1 < expected1) /* jumped out of the other handler's first instructions */
        handled1 = expected1;
    if (expected1 == 2 && handled1 == 1)
        handled1 = 2;
    return handled1 == expected1 && handled2 == expected2;
}

static void print_string(const char *s)
{
    putchar('"');
    for (; *s; s++)
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if (*s == '\n')
            printf("\\n");
        else if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            putchar('?');
        else
            putchar(*s);
    putchar('"');
}

static void report(const struct run *r, long k, long m, long nth)
{
    char text[513], outcome[300];
    if (nth > LISTED_FAILURES)
        return;
    ssize_t n = pread(target_stderr, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    if (r->stuck[0])
        snprintf(outcome, sizeof outcome, "stuck at %s", r->stuck);
    else if (WIFSIGNALED(r->status))
        snprintf(outcome, sizeof outcome, "signal %d", WTERMSIG(r->status));
    else
        snprintf(outcome, sizeof outcome, "exit %d", WEXITSTATUS(r->status));
    printf("%s\n{\"k\": %ld, \"m\": %ld, \"pc1\": %lu, \"pc2\": %lu, \"outcome\": ", nth > 1 ? "," : "", k, m, r->pc1, r->pc2);
    print_string(outcome);
    printf(", \"stderr\": ");
    print_string(text);
    printf("}");
    fflush(stdout);
}

static void parse_range(const char *text, struct range *to)
{
    int fields = sscanf(text, "%ld:%ld:%ld", &to->from, &to->to, &to->stride);
    if (fields == 1)
        to->to = to->from;
    if (fields < 1 || to->stride < 1) {
        fprintf(stderr, "driver: bad range %s\n", text);
        exit(2);
    }
}

/* The steps between the markers; *block_at: the step that blocks. */
static long measure(long limit, long *block_at)
{
    struct run r;
    long steps = 0;
    arm_timeout(4 * TIMEOUT_SECONDS);
    start(&r);
    if (!r.ended && attack_child)
        enter_child(&r);
    *block_at = NONE;
    while (!r.ended && (limit == NONE || steps < limit)) {
        enum stop stop = resume(&r, PTRACE_SINGLESTEP, blocking);
        if (stop == BLOCKED)
            *block_at = steps;
        if (stop != STEPPED)
            break;
        steps++;
        uint64_t pc = at_to ? pc_of(r.tid) : 0;
        if (pc >= at_from && pc < at_to && chosen_count < (long)(sizeof chosen / sizeof *chosen))
            chosen[chosen_count++] = steps;
    }
    if (!r.ended) {
        kill(r.pid, SIGKILL);
        kill(r.tid, SIGKILL);
        while (waitpid(-1, NULL, __WALL) > 0)
            ;
    }
    arm_timeout(0);
    return steps;
}

/* Below `bound`; splitmix64. */
static long random_below(long bound)
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return (long)((x ^ x >> 31) % (uint64_t)bound);
}

static struct {
    long points, second, failures;
} total;

/* One point, counted and reported. Returns 0 where k is beyond the end. */
static int point(long k, long m, long block_at, long *steps_m)
{
    struct run r;
    if (!attack(&r, k, m, block_at, steps_m))
        return 0;
    total.points++;
    total.second += r.sent2 && !steps_m;
    if (!good(&r))
        report(&r, k, steps_m ? *steps_m : m, ++total.failures);
    return 1;
}

static void every_point(long last, long block_at)
{
    long nth_k = 0;
    for (long k = range_k.from; k <= last; k += range_k.stride, nth_k++) {
        if (range_m.from == NONE) {
            if (!point(k, NONE, block_at, NULL))
                break;
            continue;
        }
        long limit_m = range_m.to;
        if (limit_m == NONE && !point(k, DOUBLE_LIMIT, block_at, &limit_m)) /* how far m can go from this k */
            break;
        for (long m = range_m.from + nth_k * phase % range_m.stride; m <= limit_m; m += range_m.stride)
            if (!point(k, m, block_at, NULL))
                break;
    }
}

static void sampled_points(long last, long block_at)
{
    long span = last - range_k.from + 1, limit_m = range_m.to;
    if (range_m.from != NONE && limit_m == NONE) /* about the same from every k */
        point(range_k.from + span / 2, DOUBLE_LIMIT, block_at, &limit_m);
    for (long i = 0; i < sample_count; i++) {
        long k = range_k.from + (i * span + random_below(span)) / sample_count, m = NONE;
        if (range_m.from != NONE) {
            long wide = limit_m - range_m.from + 1;
            m = range_m.from + random_below(i & 1 && wide > EARLY ? EARLY : wide);
        }
        point(k, m, block_at, NULL);
    }
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "+1:2:k:m:p:n:a:ctb")) != -1)
        switch (option) {
        case '1': signal1 = atoi(optarg); break;
        case '2': signal2 = atoi(optarg); break;
        case 'k': parse_range(optarg, &range_k); break;
        case 'm': parse_range(optarg, &range_m); break;
        case 'a':
            if (sscanf(optarg, "%lx:%lx", &at_from, &at_to) != 2)
                return 2;
            break;
        case 'p': phase = atol(optarg); break;
        case 'n':
            if (sscanf(optarg, "%ld:%lu", &sample_count, &random_state) != 2 || sample_count < 1)
                return 2;
            break;
        case 'c': attack_child = 1; break;
        case 't': attack_thread = 1; break;
        case 'b': blocking = 1; break;
        default: return 2;
        }
    command = argv + optind;
    if (optind == argc)
        return 2;
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    target_stderr = memfd_create("stderr", MFD_CLOEXEC);

    long block_at, steps = measure(range_k.to, &block_at);
    long last = blocking ? block_at + 1 : range_k.to == NONE ? steps : range_k.to;
    printf("{\"steps\": %ld, \"failures\": [", steps);
    for (long i = 0; i < chosen_count; i++)
        point(chosen[i], NONE, block_at, NULL);
    if (at_to)
        ;
    else if (sample_count)
        sampled_points(last, block_at);
    else
        every_point(last, block_at);
    printf("], \"points\": %ld, \"second\": %ld, \"failed\": %ld}\n", total.points, total.second, total.failures);
    return 0;
}
