/* Attacks the runtime's own pages: every call that could take them away must fail, or do no harm.
 *
 * Without an argument nothing is attacked: there is no runtime. With one, every mapping of the own executable behind the program's
 * bss is, and every region of a thread (4 KiB without access, then 124 KiB).
 */
#include "../src/check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define PAGE 4096ul
#define REGION_RW 0x1f000ul

static struct {
    uint64_t start, end;
} own[64];
static int own_count;
static volatile int stop;
extern char _end[];

static void find(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], perms[8];
    uint64_t start, end, guard = 0, last_of_image = (uint64_t)_end;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps)) {
        unsigned long inode;
        CHECK_EQ(sscanf(line, "%lx-%lx %7s %*x %*s %lu", &start, &end, perms, &inode), 4);
        int behind = start >= (uint64_t)_end && (inode || start == last_of_image) && !strstr(line, "[");
        if (behind)
            last_of_image = end;
        int region = guard == start && end - start == REGION_RW && !strncmp(perms, "rw", 2);
        guard = !strncmp(perms, "---", 3) && end - start == PAGE ? end : 0;
        if ((behind && strncmp(perms, "---", 3)) || region) {
            own[own_count].start = start;
            own[own_count++].end = end;
        }
    }
    fclose(maps);
}

static void *busy(void *unused)
{
    while (!stop)
        raw(SYS_getppid);
    return unused;
}

static void on_signal(int sig)
{
    (void)sig;
    raw(SYS_getpid);
}

static void attack(uint64_t start, uint64_t bytes)
{
    CHECK_EQ(raw(SYS_mprotect, start, bytes, PROT_NONE), -ENOMEM);
    CHECK_EQ(raw(SYS_pkey_mprotect, start, bytes, PROT_NONE, -1), -ENOMEM);
    CHECK_EQ(raw(SYS_madvise, start, bytes, MADV_DONTNEED), -ENOMEM);
    CHECK_EQ(raw(SYS_mmap, start, bytes, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), -ENOMEM);
    CHECK_EQ(raw(SYS_mmap, start, bytes, PROT_READ, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), -EEXIST);
    CHECK_EQ(raw(SYS_mremap, start, bytes, bytes, MREMAP_MAYMOVE), -EFAULT);
    CHECK_EQ(raw(SYS_mremap, start, bytes, PAGE, 0), -EFAULT);
    CHECK_EQ(raw(SYS_remap_file_pages, start, bytes, 0, 0, 0), -EINVAL);
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQ(raw(SYS_mremap, page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, start), -ENOMEM);
    CHECK_EQ(munmap(page, PAGE), 0);
    CHECK_EQ(raw(SYS_munmap, start, bytes), 0);
    CHECK_EQ(raw(SYS_munmap, start + 1, bytes), -EINVAL);
    int id = shmget(IPC_PRIVATE, PAGE, 0600);
    if (id >= 0) {
        CHECK_EQ(raw(SYS_shmat, id, start, SHM_REMAP), -EINVAL);
        CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
    }
    raise(SIGUSR1);
}

int main(int argc, char **argv)
{
    (void)argv;
    pthread_t thread;
    signal(SIGUSR1, on_signal);
    CHECK_EQ(pthread_create(&thread, NULL, busy, NULL), 0);
    if (argc > 1) {
        find();
        CHECK(own_count > 5);
    }
    for (int i = 0; i < own_count; i++) {
        attack(own[i].start, own[i].end - own[i].start);
        attack(own[i].start, PAGE);
        attack(own[i].end - PAGE, PAGE);
    }
    /* The program's own part of a range goes, the runtime's does not. */
    for (int i = 0; i < own_count; i++) {
        char *mine = mmap((void *)own[i].end, PAGE, PROT_READ, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mine != (void *)own[i].end)
            continue;
        CHECK_EQ(munmap((void *)own[i].start, own[i].end + PAGE - own[i].start), 0);
        CHECK_EQ(raw(SYS_madvise, mine, PAGE, MADV_NORMAL), -ENOMEM);
    }
    /* Ordinary memory is as it ever was. */
    char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQ(mprotect(p, PAGE, PROT_READ), 0);
    CHECK_EQ(madvise(p, 4 * PAGE, MADV_DONTNEED), 0);
    CHECK((mmap(p, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p));
    CHECK((mremap(p + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p));
    CHECK_EQ(munmap(p, 4 * PAGE), 0);
    stop = 1;
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, busy, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    return done("hostile_pages");
}
