/* The digest of a file that has no build-id. In: a descriptor. Out: 128 bits that tell it from other files of its size.
 *
 * Nobody is kept from making two files of one digest; who can put a file where the loader takes it needs none of that. Own stack.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define CHUNK 8192
#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

int file_digest(i64 fd, u64 size_bytes, u64 digest[2]) {
    u64 words[CHUNK / 8], a = 0x9e3779b97f4a7c15, b = 0xc2b2ae3d27d4eb4f;
    for (u64 at = 0; at < size_bytes; at += CHUNK) {
        u64 wanted = size_bytes - at < CHUNK ? size_bytes - at : CHUNK, n = (wanted + 7) / 8;
        words[n - 1] = 0; /* the end of the file is padded */
        if (SYS4(__NR_pread64, fd, words, wanted, at) != (i64)wanted)
            return -1;
        for (u64 i = 0; i < n; i++) {
            a = (a ^ words[i]) * 0x9e3779b97f4a7c15;
            a = ROTATE(a, 29);
            b = (b + words[i]) * 0xc2b2ae3d27d4eb4f;
            b = ROTATE(b, 31);
        }
    }
    digest[0] = a;
    digest[1] = b;
    return 0;
}
