/* Libraries in link-map namespaces of their own, a C library in each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <gnu/lib-names.h>
#include <stdio.h>

int main(void)
{
    for (int i = 0; i < 20; i++) {
        void *m = dlmopen(LM_ID_NEWLM, LIBM_SO, RTLD_NOW), *c = dlmopen(LM_ID_NEWLM, LIBC_SO, RTLD_NOW);
        double (*cosine)(double) = m ? (double (*)(double))dlsym(m, "cos") : 0;
        int (*parent)(void) = c ? (int (*)(void))dlsym(c, "getppid") : 0;
        printf("%.1f %d\n", cosine ? cosine(0) : -1, parent && parent() > 0);
        if (m && c)
            dlclose(m), dlclose(c);
    }
    return 8;
}
