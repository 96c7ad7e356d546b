/* Closes standard error before it ends, as coreutils do. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    write(2, "told\n", 5);
    if (argc > 1) { /* descriptor 2 becomes a file of its own */
        close(2);
        return open(argv[1], O_WRONLY | O_CREAT, 0600) != 2;
    }
    close(0);
    close(2);
    return 0;
}
