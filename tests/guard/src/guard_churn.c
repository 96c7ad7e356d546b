// modes: gcc
// traced: 20
// Code made, run and given back over and over, in patterns that split and join ranges: memory stays what it was, and so does the time of a round.
#include "jit.h"

#define KEPT 64

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 5000, before = 0;
    void *kept[KEPT] = {0};
    for (long i = 0; i < rounds; i++) {
        long slot = i * 7919 % KEPT;
        if (kept[slot])
            CHECK_EQ(munmap(kept[slot], 3 * PAGE), 0);
        char *at = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(at != MAP_FAILED);
        jit_fn *f = jit_write(at + PAGE);
        CHECK_EQ(mprotect(at + PAGE, PAGE, PROT_READ | PROT_EXEC), 0);
        if (i % 16 == 0)
            CHECK_EQ(JIT(f, SYS_getppid), getppid());
        kept[slot] = at;
        if (i == rounds / 10)
            before = resident_kib();
    }
    CHECK(resident_kib() - before <= 1024);
    for (int i = 0; i < KEPT; i++)
        if (kept[i])
            CHECK_EQ(munmap(kept[i], 3 * PAGE), 0);
    return done("guard_churn");
}
