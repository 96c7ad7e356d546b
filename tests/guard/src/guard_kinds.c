// modes: gcc gcc-pie musl musl-pie
// counts: getrandom
// System calls of code made at run time in every kind of memory, each made once and seen once.
#include "jit.h"

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/shm.h>

static void call(jit_fn *f)
{
    CHECK_EQ(JIT(f, SYS_getppid), getppid());
}

static void *two_pages(void)
{
    char *at = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void anonymous(void)
{
    void *both = jit_page(PROT_READ | PROT_WRITE | PROT_EXEC);
    call(jit_write(both));
    call(jit_write(both)); /* rewritten in place */
    CHECK_EQ(munmap(both, PAGE), 0);

    jit_fn *f = jit_new();
    call(f);
    CHECK_EQ(memcmp((void *)f, jit_code, sizeof jit_code), 0); /* as it was written */
    CHECK_EQ(mprotect((void *)f, PAGE, PROT_READ | PROT_WRITE), 0);
    CHECK_EQ(mprotect((void *)f, PAGE, PROT_READ | PROT_EXEC), 0);
    call(f);
    CHECK_EQ(raw(SYS_pkey_mprotect, f, PAGE, PROT_READ, -1), 0);
    CHECK_EQ(raw(SYS_pkey_mprotect, f, PAGE, PROT_READ | PROT_EXEC, -1), 0);
    call(f);
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

static void parts(void)
{
    char *at = two_pages();
    CHECK_EQ(mprotect(at, 3 * PAGE, PROT_READ | PROT_WRITE), 0);
    for (int i = 0; i < 3; i++)
        jit_write(at + i * PAGE);
    CHECK_EQ(mprotect(at, 3 * PAGE, PROT_READ | PROT_EXEC), 0);
    CHECK_EQ(munmap(at + PAGE, PAGE), 0); /* a hole in the middle */
    call((jit_fn *)at);
    call((jit_fn *)(at + 2 * PAGE));
    CHECK_EQ(munmap(at, PAGE), 0);
    call((jit_fn *)(at + 2 * PAGE));
    /* Half of it fails: the first page is changed all the same. */
    CHECK_EQ(mprotect(at + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    CHECK_EQ(munmap(at + 3 * PAGE, PAGE), 0);
    CHECK_EQ(raw(SYS_mprotect, at + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_EXEC), -ENOMEM);
    call((jit_fn *)(at + 2 * PAGE));
    CHECK_EQ(raw(SYS_munmap, at + 2 * PAGE + 1, PAGE), -EINVAL); /* fails: still there */
    call((jit_fn *)(at + 2 * PAGE));
    CHECK_EQ(munmap(at + 2 * PAGE, PAGE), 0);
}

static void moved(void)
{
    jit_fn *f = jit_new();
    char *to = two_pages();
    void *there = mremap((void *)f, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    CHECK(there == to);
    call((jit_fn *)to);
    there = mremap(to, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    CHECK(there != MAP_FAILED);
    call((jit_fn *)there);
    CHECK_EQ(raw(SYS_mremap, there, 2 * PAGE, 2 * PAGE, MREMAP_FIXED, to), -EINVAL);
    call((jit_fn *)there);
    CHECK_EQ(munmap(there, 2 * PAGE), 0);
}

static void over_code(void)
{
    jit_fn *f = jit_new();
    call(f);
    void *at = mmap((void *)f, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(at == (void *)f);
    at = mmap((void *)f, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(at == (void *)f);
    call(jit_write(at));
    CHECK_EQ(raw(SYS_mmap, f, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, -1, 0), -EBADF);
    call(f);
    CHECK_EQ(munmap(at, PAGE), 0);
}

/* Written here, executed there. */
static void dual(void)
{
    int fd = memfd_create("code", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    void *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    CHECK(w != MAP_FAILED && x != MAP_FAILED);
    jit_write(w);
    call((jit_fn *)x);
    CHECK_EQ(munmap(x, PAGE), 0);
    x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    CHECK(x != MAP_FAILED);
    call((jit_fn *)x);
    CHECK_EQ(munmap(x, PAGE), 0);
    CHECK_EQ(munmap(w, PAGE), 0);
    close(fd);
}

static void file(void)
{
    char name[] = "/tmp/flicker-guard-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, jit_code, sizeof jit_code), sizeof jit_code);
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    void *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    CHECK(x != MAP_FAILED);
    call((jit_fn *)x);
    CHECK_EQ(munmap(x, PAGE), 0);
    unlink(name);
    close(fd);
}

static void shared_memory(void)
{
    int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0700);
    CHECK(id >= 0);
    void *w = shmat(id, NULL, 0);
    jit_write(w);
    void *x = shmat(id, NULL, SHM_RDONLY | SHM_EXEC);
    CHECK(x != (void *)-1);
    CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
    call((jit_fn *)x);
    CHECK_EQ(shmdt(x), 0);
    CHECK_EQ(shmdt(w), 0);
}

/* As the kernel leaves them: rcx, r11, and everything else as it was. */
static void registers(void)
{
    jit_fn *f = jit_new();
    uint64_t rcx, r11, flags;
    long result;
    __asm__ volatile("mov $39, %%edi\n\t"
                     "mov $0x1122334455667788, %%rbx\n\t"
                     "mov %%rbx, %%r12\n\t"
                     "mov %%rbx, %%r13\n\t"
                     "mov %%rbx, %%r14\n\t"
                     "mov %%rbx, %%r15\n\t"
                     "movq %%rbx, %%xmm7\n\t"
                     "mov %%rbx, -8(%%rsp)\n\t"
                     "std\n\t"
                     "cmp $1, %%edi\n\t"
                     "stc\n\t"
                     "lea -128(%%rsp), %%rsp\n\t"
                     "call *%4\n\t"
                     "lea 128(%%rsp), %%rsp\n\t"
                     "pushfq\n\t"
                     "pop %3\n\t"
                     "cld\n\t"
                     "cmp %%rbx, %%r12\n\tjne 1f\n\t"
                     "cmp %%rbx, %%r13\n\tjne 1f\n\t"
                     "cmp %%rbx, %%r14\n\tjne 1f\n\t"
                     "cmp %%rbx, %%r15\n\tjne 1f\n\t"
                     "movq %%xmm7, %%r12\n\t"
                     "cmp %%rbx, %%r12\n\tje 2f\n\t"
                     "1: ud2\n\t2:"
                     : "=a"(result), "=&c"(rcx), "=&d"(r11), "=&S"(flags)
                     : "r"(f)
                     : "rbx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm7", "memory", "cc");
    (void)r11;
    CHECK_EQ(result, getpid());
    CHECK_EQ(rcx, (uint64_t)f + JIT_SITE + 2);
    CHECK_EQ(flags & 0xcd5, 0x401);
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

static void numbers(void)
{
    jit_fn *f = jit_new();
    CHECK_EQ(JIT(f, -1), -ENOSYS);
    CHECK_EQ(JIT(f, 511), -ENOSYS);
    CHECK_EQ(JIT(f, 100000), -ENOSYS);
    CHECK_EQ(JIT(f, SYS_getppid | 0x5500000000000000), getppid());
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

int main(void)
{
    anonymous();
    parts();
    moved();
    over_code();
    dual();
    file();
    shared_memory();
    registers();
    numbers();
    return done("guard_kinds");
}
