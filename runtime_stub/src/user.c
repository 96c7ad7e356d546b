/* The application's memory through pointers that may be bad.
 *
 * In: addresses from the application. Out: 0, or -EFAULT as the kernel would answer. Own stack only, any thread.
 * process_vm_readv reports a bad address instead of faulting, and a process may always read itself (kernel:
 * mm/process_vm_access.c, ptrace_may_access on the same thread group). Where it is not there or a filter refuses it, each page is asked for
 * before it is read. Writes touch it directly then, and a bad pointer ends the program with SIGSEGV.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define PAGE 4096ul
#define EFAULT 14
#define EINVAL 22
#define ENAMETOOLONG 36

struct iovec {
    const void *base;
    u64 len;
};

static i64 transfer(long nr, enum own_call own, void *mine, const void *theirs, u64 bytes) {
    if (!may_call(own) || !may_call(OWN_GETPID))
        return 1;
    struct iovec l = {mine, bytes}, r = {theirs, bytes};
    long pid = SYS0(__NR_getpid);
    long n = flk_sys(nr, pid, (long)&l, 1, (long)&r, 1, 0);
    if (n == (long)bytes)
        return 0;
    if (n == -38 || n == -1) /* ENOSYS, EPERM */
        return 1;
    return -EFAULT;
}

/* rt_sigprocmask reads a mask before it finds that there is no such way to apply it: the cheapest call that tells whether eight bytes,
 * and so their page, can be read. */
int page_is_readable(u64 at) { return SYS4(__NR_rt_sigprocmask, -1, at & -8ul, 0, 8) == -EINVAL; }

i64 user_read(void *to, const void *from, u64 bytes) {
    i64 r = transfer(__NR_process_vm_readv, OWN_READV, to, from, bytes);
    if (r <= 0)
        return r;
    for (u64 i = 0; i < bytes; i++) {
        if ((!i || !((ADDR(from) + i) % PAGE)) && may_call(OWN_SIGPROCMASK) && !page_is_readable(ADDR(from) + i))
            return -EFAULT;
        ((volatile u8 *)to)[i] = ((const volatile u8 *)from)[i];
    }
    return 0;
}

i64 user_write(void *to, const void *from, u64 bytes) {
    i64 r = transfer(__NR_process_vm_writev, OWN_WRITEV, (void *)from, to, bytes);
    if (r <= 0)
        return r;
    for (u64 i = 0; i < bytes; i++)
        ((volatile u8 *)to)[i] = ((const volatile u8 *)from)[i];
    return 0;
}

/* Page by page: what follows the string's end may not be there. */
i64 user_string(char *to, const char *from, u64 size) {
    u64 n = 0;
    while (n < size) {
        u64 bytes = PAGE - (ADDR(from) + n) % PAGE;
        if (bytes > size - n)
            bytes = size - n;
        if (user_read(to + n, from + n, bytes))
            return -EFAULT;
        for (u64 end = n + bytes; n < end; n++)
            if (!to[n])
                return (i64)n;
    }
    return -ENAMETOOLONG;
}
