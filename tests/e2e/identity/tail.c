/* The last 32 bytes of its own file; with an argument, its name. */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argv;
    char text[PATH_MAX] = {0};
    if (argc > 1) {
        if (readlink("/proc/self/exe", text, sizeof text - 1) < 0)
            return 1;
        puts(text);
        return 0;
    }
    FILE *f = fopen("/proc/self/exe", "rb");
    if (!f || fseek(f, -32, SEEK_END) || fread(text, 1, 32, f) != 32)
        return 2;
    fwrite(text, 1, 32, stdout);
    putchar('\n');
    return 0;
}
