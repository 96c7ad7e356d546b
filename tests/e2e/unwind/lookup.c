/* For each address that it is given, whether the unwinder has an entry there: the start of the function it is of, or none. */
#include <stdio.h>
#include <stdlib.h>

struct bases {
    void *text, *data, *function;
};

#ifdef __cplusplus
extern "C"
#endif
const void *_Unwind_Find_FDE(void *pc, struct bases *bases);

extern const char __ehdr_start[];

/* A larger file may grow by more: there is room for the table. */
extern const char ballast[];
const char ballast[4 << 20] = {1};

int main(int argc, char **argv)
{
    if (!ballast[argc & 0])
        return 1;
    unsigned long bias = (unsigned long)__ehdr_start;
    if (bias < 0x10000000) /* linked to an address of its own */
        bias = 0;
    for (int i = 1; i < argc; i++) {
        struct bases bases;
        const void *fde = _Unwind_Find_FDE((char *)bias + strtoul(argv[i], 0, 16), &bases);
        if (fde)
            printf("%lx\n", (unsigned long)bases.function - bias);
        else
            printf("none\n");
    }
    return 0;
}
