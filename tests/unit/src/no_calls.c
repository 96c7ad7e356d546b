/* no_calls SEED ROUNDS: the search for a system call in pages, beside the plainest one. Two pages; unreadable beyond. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../runtime_stub/include/files.h"

#define PAGE 4096
#define BYTES (2 * PAGE)

struct runtime flk_rt;
static u8 pages[BYTES];

i64 user_read(void *to, const void *from, u64 bytes)
{
    u64 at = (u64)from - PAGE;
    if (at > BYTES || bytes > BYTES - at)
        return -14;
    memcpy(to, pages + at, bytes);
    return 0;
}

long flk_sys(long nr, long a, long b, long c, long d, long e, long f) { return (void)nr, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, -38; }
void exec_map_quiet(u64 lo, u64 end, u64 hi) { (void)lo, (void)end, (void)hi; }

static int plain(unsigned bytes)
{
    if (pages[0] == 0x05 || pages[0] == 0x34 || pages[0] == 0x80 || pages[bytes - 1] == 0x0f || pages[bytes - 1] == 0xcd)
        return 0;
    for (unsigned i = 0; i + 1 < bytes; i++)
        if ((pages[i] == 0x0f && (pages[i + 1] == 0x05 || pages[i + 1] == 0x34)) || (pages[i] == 0xcd && pages[i + 1] == 0x80))
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    static const u8 near[] = {0x0e, 0x0f, 0x10, 0xcc, 0xcd, 0xce, 0x04, 0x05, 0x06, 0x33, 0x34, 0x35, 0x7f, 0x80, 0x81, 0x00, 0xff};
    long found[2] = {0, 0}, rounds = argc == 3 ? atol(argv[2]) : 0;
    srandom(argc == 3 ? (unsigned)atol(argv[1]) : 0);
    for (long i = 0; i < rounds; i++) {
        unsigned bytes = i % 2 ? BYTES : PAGE, count = (unsigned)random() % 64;
        memset(pages, i % 3 ? 0x90 : 0, BYTES);
        for (unsigned k = 0; k < count; k++)
            pages[(unsigned)random() % (i % 4 ? bytes : 64)] = near[(unsigned)random() % sizeof near];
        if (i % 5 == 0) { /* a pair, most often across words or pages */
            unsigned at = i % 2 ? PAGE - 1 : ((unsigned)random() % (PAGE / 8 - 1) + 1) * 8 - (unsigned)random() % 3;
            pages[at] = random() % 2 ? 0x0f : 0xcd;
            pages[at + 1] = near[(unsigned)random() % sizeof near];
        }
        int wanted = plain(bytes);
        if (no_calls(PAGE, PAGE + bytes) != wanted) {
            printf("round %ld: %d wanted\n", i, wanted);
            return 1;
        }
        found[wanted]++;
    }
    if (no_calls(PAGE, PAGE + BYTES + PAGE)) {
        printf("unreadable pages\n");
        return 1;
    }
    printf("%ld %ld\n", found[0], found[1]);
    return 0;
}
