/* The build-id of an open file. In: a descriptor. Out: its bytes. Own stack, any thread; nothing is kept. */
#include <asm/unistd_64.h>

#include "../include/files.h"
#include "../include/elf64.h"

#define PT_NOTE 4
#define PHNUM_MAX 73
#define NOTE_BYTES 1024 /* of a PT_NOTE that are looked at: ld(1) puts the build-id first or second */
#define NT_GNU_BUILD_ID 3

struct note {
    u32 name_size, size, type;
};

/* -> its size in bytes; 0: none, or a longer one than any record has. */
static u32 build_id_in(const u8 *notes, u64 bytes, u8 *id) {
    u64 at = 0;
    while (at + sizeof(struct note) <= bytes) {
        struct note n;
        __builtin_memcpy(&n, notes + at, sizeof n);
        u64 name = at + sizeof n, desc = name + ((n.name_size + 3ul) & -4ul), end = desc + n.size;
        if (end > bytes)
            return 0;
        if (n.type == NT_GNU_BUILD_ID && n.name_size == 4 && *(const u32 *)(notes + name) == 0x554e47 &&
            n.size <= FLK_BUILD_ID_BYTES) {
            for (u32 i = 0; i < n.size; i++)
                id[i] = notes[desc + i];
            return n.size;
        }
        at = (end + 3) & -4ul;
    }
    return 0;
}

u32 build_id_of(i64 fd, u8 *id) {
    struct ehdr h;
    struct phdr table[PHNUM_MAX];
    u8 notes[NOTE_BYTES];
    if (SYS4(__NR_pread64, fd, &h, sizeof h, 0) != sizeof h || *(const u32 *)h.ident != 0x464c457f ||
        h.phentsize != sizeof table[0] || h.phnum > PHNUM_MAX)
        return 0;
    i64 bytes = h.phnum * (i64)sizeof table[0];
    if (SYS4(__NR_pread64, fd, table, bytes, h.phoff) != bytes)
        return 0;
    for (u32 i = 0; i < h.phnum; i++) {
        u64 size = table[i].filesz < NOTE_BYTES ? table[i].filesz : NOTE_BYTES;
        if (table[i].type != PT_NOTE || SYS4(__NR_pread64, fd, notes, size, table[i].offset) != (i64)size)
            continue;
        u32 n = build_id_in(notes, size, id);
        if (n)
            return n;
    }
    return 0;
}
