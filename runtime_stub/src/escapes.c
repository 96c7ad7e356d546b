/* What runs unhooked, by path. In: paths and descriptors. Out: the list, each path once.
 *
 * Own stack, any thread, no locks: a path's room in the list is claimed by compare-and-swap before it is written.
 */
#include <asm/unistd_64.h>

#include "../include/files.h"

#define AT_FDCWD (-100)
#define ESCAPE_BYTES 16384

static struct {
    u32 bytes; /* claimed of `paths` */
    char paths[ESCAPE_BYTES];
} escapes;

int begins_with(const char *s, const char *start) {
    while (*start && *s == *start)
        s++, start++;
    return !*start;
}

const char *bundle_escape(const char *last) {
    const char *p = last ? last + flk_length(last) : escapes.paths;
    const char *end = escapes.paths + __atomic_load_n(&escapes.bytes, __ATOMIC_ACQUIRE);
    while (p < end && !*p)
        p++;
    return p < end ? p : 0;
}

void escape_add(const char *path) {
    u32 n = 0;
    for (const char *known = bundle_escape(0); known; known = bundle_escape(known))
        if (begins_with(known, path) && flk_length(known) == flk_length(path))
            return;
    while (path[n])
        n++;
    u32 at = __atomic_load_n(&escapes.bytes, __ATOMIC_ACQUIRE);
    do
        if (at + n + 1 > ESCAPE_BYTES) /* the list is full */
            return;
    while (!__atomic_compare_exchange_n(&escapes.bytes, &at, at + n + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    for (u32 i = 0; i < n; i++)
        escapes.paths[at + i] = path[i];
}

i64 path_of_descriptor(char *path, i64 fd) {
    static const char descriptors[] = "/proc/self/fd/";
    char link[sizeof descriptors + 10];
    if (!may_call(OWN_READLINK))
        return 0;
    u32 n = 0, digits = 0;
    for (const char *s = descriptors; *s; s++)
        link[n++] = *s;
    for (u32 v = (u32)fd; v || !digits; v /= 10)
        digits++;
    for (u32 v = (u32)fd, i = digits; i; v /= 10)
        link[n + --i] = (char)('0' + v % 10);
    link[n + digits] = 0;
    i64 bytes = SYS4(__NR_readlinkat, AT_FDCWD, link, path, PATH_BYTES - 1);
    if (bytes <= 0)
        return 0;
    path[bytes] = 0;
    return bytes;
}
