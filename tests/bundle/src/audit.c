/* An audit library: says which objects ld.so loads. */
#define _GNU_SOURCE
#include <link.h>
#include <stdio.h>

unsigned la_version(unsigned version)
{
    return version;
}

unsigned la_objopen(struct link_map *map, Lmid_t space, uintptr_t *cookie)
{
    (void)cookie;
    fprintf(stderr, "object %s in %ld\n", map->l_name, (long)space);
    return 0;
}
