// modes: default
// counts: none
/* Calls on stacks that hold next to nothing: a thread of 2 KiB between two holes, whose signals go to an alternate stack, as Go
 * has it; and a thread that unmaps its own stack and ends without one, as musl has it. */
#include "check.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { PAGE = 4096, SMALL = 2048, CALLS = 20000 };

static volatile int handled;
static volatile uint32_t ended;
static char *page;

/* Runs on the upper 2 KiB of `page`, whose lower half is checked afterwards; ends by exit. */
long start_thread(unsigned long flags, void *stack, volatile uint32_t *tid, void (*function)(void));
__asm__(".text\n.globl start_thread\n.type start_thread, @function\nstart_thread: push %r12\n mov %rcx, %r12\n mov %rdx, %r10\n"
        "mov $56, %eax\n syscall\n test %rax, %rax\n jz 1f\n pop %r12\n ret\n"
        "1: xor %ebp, %ebp\n call *%r12\n mov $60, %eax\n xor %edi, %edi\n syscall\n hlt\n.size start_thread, .-start_thread\n"
        /* munmap(page, 4096) with rsp in it, then exit: no stack from the first on. */
        ".globl end_without_stack\n.type end_without_stack, @function\nend_without_stack: mov page_address(%rip), %rdi\n"
        "mov $4096, %esi\n mov $11, %eax\n syscall\n mov %eax, %edi\n mov $60, %eax\n syscall\n hlt\n"
        ".size end_without_stack, .-end_without_stack\n");
void end_without_stack(void);
void *page_address;

static void small_thread(void)
{
    for (int i = 0; i < CALLS; i++)
        if (raw(SYS_getppid) <= 0)
            return;
}

static void handler(int sig)
{
    (void)sig;
    handled++;
    CHECK_EQ(raw(SYS_getpid), getpid());
}

static void wait_end(void)
{
    uint32_t seen;
    while ((seen = ended))
        raw(SYS_futex, &ended, 0 /* FUTEX_WAIT */, seen);
}

int main(void)
{
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct itimerval timer = {{0, 500}, {0, 500}}, stop = {{0, 0}, {0, 0}};
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
    char *area = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    page = area + PAGE;
    page_address = page;
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
    memset(page, 0x3c, PAGE);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    ended = 1;
    uint64_t all = ~0ull, old;
    /* The thread has no alternate stack of its own: the signals are for this one. */
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8), 0);
    CHECK(start_thread(flags, page + PAGE, &ended, small_thread) > 0);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, 8), 0);
    wait_end();
    for (int i = 0; i < PAGE - SMALL; i++)
        CHECK_EQ(page[i], 0x3c);
    CHECK_EQ(setitimer(ITIMER_REAL, &stop, NULL), 0);
    for (int i = 0; i < 200; i++) {
        CHECK(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
        ended = 1;
        CHECK(start_thread(flags, page + PAGE, &ended, end_without_stack) > 0);
        wait_end();
        CHECK_EQ(madvise(page, PAGE, MADV_NORMAL), -1); /* it is gone */
    }
    return done("abi_small_stacks");
}
