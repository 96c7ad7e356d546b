/* Starts itself anew in every way, and says in each new process who it is. argv[0] is kept; what is printed holds no pid. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char self[PATH_MAX];
static char *args[] = {"again", "child", NULL, NULL}, *env[] = {"MARK=1", NULL};

static void by_link(void) { execve("/proc/self/exe", args, env); }
static void by_answer(void) { execve(self, args, env); }
static void by_symbolic_link(void)
{
    char dir[] = "again.XXXXXX", name[PATH_MAX];
    if (!mkdtemp(dir))
        return;
    snprintf(name, sizeof name, "%s/applet", dir);
    if (!symlink(self, name))
        execve(name, args, env);
}
static void by_descriptor(void) { fexecve(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), args, env); }
static void by_path_descriptor(void) { syscall(SYS_execveat, open(self, O_PATH | O_CLOEXEC), "", args, env, AT_EMPTY_PATH); }
static void by_directory(void)
{
    char name[PATH_MAX];
    strcpy(name, self);
    char *slash = strrchr(name, '/');
    *slash = 0;
    syscall(SYS_execveat, open(*name ? name : "/", O_PATH | O_CLOEXEC), slash + 1, args, env, 0);
}
static void *exec_here(void *how)
{
    ((void (*)(void))how)();
    return NULL;
}
static void from_a_thread(void)
{
    pthread_t t;
    pthread_create(&t, NULL, exec_here, (void *)by_answer);
    pthread_join(t, NULL);
}
static void after_a_failure(void)
{
    execve("/nonexistent/exe", args, env);
    syscall(SYS_execve, 8, args, env);
    execve("/", args, env);
    execve(self, args, env);
}

static const struct way {
    const char *name;
    void (*start)(void);
    int in_vfork; /* it can also be done there */
} ways[] = {
    {"link", by_link, 1},
    {"answer", by_answer, 1},
    {"symbolic link", by_symbolic_link, 1},
    {"descriptor", by_descriptor, 1},
    {"path descriptor", by_path_descriptor, 1},
    {"directory", by_directory, 1},
    {"failure", after_a_failure, 1},
    {"thread", from_a_thread, 0},
};

static void finish(const char *name, pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    printf("%s: %d\n", name, status);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return 1;
    if (argc > 1) {
        printf("%s %s %s: %s, MARK %s\n", argv[0], argv[1], argv[2], self, getenv("MARK"));
        return 0;
    }
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++)
        for (int v = 0; v <= ways[i].in_vfork; v++) {
            args[2] = (char *)ways[i].name;
            pid_t pid = v ? vfork() : fork();
            if (!pid) {
                ways[i].start();
                _exit(9);
            }
            finish(ways[i].name, pid);
        }
    pid_t pid;
    args[2] = "posix_spawn";
    printf("%d\n", posix_spawn(&pid, self, NULL, NULL, args, env));
    finish("posix_spawn", pid);
    return 0;
}
