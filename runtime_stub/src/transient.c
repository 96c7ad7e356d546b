/* Descriptors that the runtime has open for a moment, and that a child which another thread forks meanwhile is not to have.
 *
 * In: files that patches are written with. Out: descriptors; in the child of a fork those that are listed are closed. Own stack, any
 * thread, no locks: a slot is claimed by compare-and-swap, and a descriptor is listed before it is used. The kernel copies descriptors
 * before memory, so one that is opened or closed while a fork is between the two may stay: docs/limitations.md.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define MFD_CLOEXEC 1
#define EPERM 1
#define SLOTS 16

static u32 slots[SLOTS]; /* descriptor + 1 */

static i64 listed(i64 fd) {
    for (u32 i = 0; fd >= 0 && i < SLOTS; i++) {
        u32 none = 0;
        if (__atomic_compare_exchange_n(&slots[i], &none, (u32)fd + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            break;
    }
    return fd;
}

i64 transient_open(const char *path, int flags) { return listed(SYS4(__NR_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0)); }

i64 memory_file(void) { return may_call(OWN_MEMFD) ? listed(SYS2(__NR_memfd_create, "flicker-aot", MFD_CLOEXEC)) : -EPERM; }

void transient_close(i64 fd) {
    SYS2(__NR_close, fd, 0);
    for (u32 i = 0; i < SLOTS; i++) {
        u32 was = (u32)fd + 1;
        if (__atomic_compare_exchange_n(&slots[i], &was, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return;
    }
}

void transient_after_fork(int shares_files) {
    for (u32 i = 0; i < SLOTS; i++) {
        if (slots[i] && !shares_files && may_call(OWN_CLOSE))
            SYS2(__NR_close, slots[i] - 1, 0);
        slots[i] = 0;
    }
}
