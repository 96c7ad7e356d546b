/* Linked to another program: before its main, made code whose only call is patched, so that it is not guarded. */
#include "../../guard/src/jit.h"

#include <sys/syscall.h>

__attribute__((constructor)) static void proved_first(void)
{
    static const unsigned char code[] = {0xb8, SYS_getppid, 0, 0, 0, 0x0f, 0x05, 0xc3};
    unsigned char *page = jit_page(PROT_READ | PROT_WRITE);
    memset(page, 0xcc, PAGE);
    memcpy(page, code, sizeof code);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    for (int i = 0; i < 200; i++)
        CHECK_EQ(((long (*)(void))page)(), getppid());
}
