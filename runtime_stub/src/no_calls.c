/* Whether there can be a system call instruction in memory.
 *
 * In: pages that may be unreadable. Out: 1 if no two bytes in a row are one, whatever is code of them and wherever it is entered: then there is nothing to prove.
 * What stands beside the pages is not known, so a first byte that could end one, or a last that could begin one, is one. Own stack, any thread.
 *
 * The ways into the kernel (Intel SDM, volume 2; arch/x86/entry): syscall (0f 05), sysenter (0f 34), int $0x80 (cd 80). Call gates Linux has none. A call of the
 * vsyscall page is none of these (--vsyscall).
 */
#include <asm/unistd_64.h>

#include "../include/files.h"

#define PAGE 4096ul
#define PAGES(bytes) (((bytes) + PAGE - 1) & -PAGE)
#define HUGE_PAGE (2l << 20)
#define MOST_BYTES (32ul << 20) /* of which reading takes 10 ms; with holes, so that nothing ends it */
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_TYPE 15
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define AT_EMPTY_PATH 0x1000
#define EBADF 9
#define S_IFMT 0170000u
#define S_IFREG 0100000u
#define EACH 0x0101010101010101ul
#define WORDS (PAGE / sizeof(u64))

/* Some byte of `word` may be `byte`. Never 0 where one is (the lowest one is exact: Hacker's Delight, 6-1). */
static u64 has_byte(u64 word, u8 byte) {
    u64 x = word ^ (EACH * byte);
    return (x - EACH) & ~x & (EACH << 7);
}

static int ends_call(u8 second) { return second == 0x05 || second == 0x34 || second == 0x80; }
static int begins_call(u8 first) { return first == 0x0f || first == 0xcd; }
static int is_call(u8 first, u8 second) { return begins_call(first) && ends_call(second) && (first == 0xcd) == (second == 0x80); }

/* In the page, and the byte behind it: a word at a time, most of which have neither first byte. */
static __attribute__((optimize("O2"))) int page_has_call(const u64 *words) {
    const u8 *bytes = (const u8 *)words;
    for (u32 i = 0; i < WORDS; i++) {
        u64 word = words[i], syscalls = has_byte(word, 0x0f), ints = has_byte(word, 0xcd);
        if (!(syscalls | ints))
            continue;
        u64 seconds = word >> 8 | words[i + 1] << 56;
        if (!((syscalls & (has_byte(seconds, 0x05) | has_byte(seconds, 0x34))) | (ints & has_byte(seconds, 0x80))))
            continue;
        for (const u8 *p = bytes + i * sizeof(u64); p < bytes + (i + 1) * sizeof(u64); p++)
            if (is_call(p[0], p[1]))
                return 1;
    }
    return 0;
}

int no_calls(u64 lo, u64 hi) {
    u64 words[WORDS + 1]; /* and what comes behind a page */
    const u8 *bytes = (const u8 *)words;
    u8 last = 0;
    words[WORDS] = 0;
    for (u64 at = lo; at < hi; at += PAGE) {
        if (user_read(words, (const void *)at, PAGE) || (at == lo ? ends_call(*bytes) : is_call(last, *bytes)) || page_has_call(words))
            return 0;
        last = bytes[PAGE - 1];
    }
    return !begins_call(last);
}

/* What has no name any more, or was opened to be written, is a program's own code, and may be mapped elsewhere to be changed. Of huge pages more is mapped than is
 * asked for. */
int nobody_writes(i64 fd, const struct kstat *st) {
    return st->nlink && st->blksize < HUGE_PAGE && (st->mode & S_IFMT) == S_IFREG && may_call(OWN_PWRITE) && SYS4(__NR_pwrite64, fd, st, 0, 0) == -EBADF;
}

int file_has_no_calls(u64 at, u64 bytes, const i64 *args) {
    struct kstat st;
    u64 end = at + PAGES(bytes), offset = (u64)args[5];
    if ((args[2] & (PROT_READ | PROT_WRITE | PROT_EXEC)) != (PROT_READ | PROT_EXEC) || (args[3] & (MAP_TYPE | MAP_ANONYMOUS)) != MAP_PRIVATE || !may_call(OWN_STAT) ||
        SYS4(__NR_newfstatat, args[4], "", &st, AT_EMPTY_PATH) || !nobody_writes(args[4], &st) || offset >= (u64)st.size)
        return 0;
    u64 in_file = at + PAGES((u64)st.size - offset); /* what is behind it cannot be read now, but the file may grow */
    if (in_file > end)
        in_file = end;
    if (in_file - at > MOST_BYTES || !no_calls(at, in_file))
        return 0;
    exec_map_quiet(at, in_file, end);
    return 1;
}
