/* quiet_part LIBRARY: calls both functions of src/quiet_part.S. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    int (*site)(void) = library ? (int (*)(void))dlsym(library, "site") : NULL;
    int (*other)(void) = library ? (int (*)(void))dlsym(library, "other") : NULL;
    long wrong = 0;
    if (!site || !other)
        return 2;
    int before = other();
    for (int i = 0; i < 100; i++)
        wrong += site() != (int)getgid();
    printf("%ld wrong, other %d %d\n", wrong, before, other());
    return 0;
}
