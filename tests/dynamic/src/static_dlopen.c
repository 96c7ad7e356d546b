/* A static program that loads libraries. */
#include <dlfcn.h>
#include <stdio.h>

int main(void)
{
    void *h = dlopen("libm.so.6", RTLD_NOW);
    double (*c)(double) = h ? (double (*)(double))dlsym(h, "cos") : 0;
    void *l = dlopen("libc.so.6", RTLD_NOW);
    int (*pid)(void) = l ? (int (*)(void))dlsym(l, "getpid") : 0;
    printf("%s %.1f %d\n", h ? "loaded" : dlerror(), c ? c(0.0) : -1.0, pid && pid() > 0);
    return 0;
}
