/* Says that it is there, and waits until its standard input ends. */
#include <unistd.h>

int main(void)
{
    char c;
    return write(1, "r", 1) != 1 || read(0, &c, 1) != 0;
}
