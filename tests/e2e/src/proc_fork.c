// modes: all
// counts: futex pread64 select wait4 mmap munmap mprotect madvise brk sched_yield
/* fork, vfork (in a loop, nested, from several threads at once), posix_spawn, fork in a threaded process, and exec: from
 * the main thread, from another one, failing. argv[0] is what is executed again. */
#include "asleep.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

static char *self;

static int wait_for(pid_t pid)
{
    int status = -1;
    pid_t got;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    CHECK_EQ(got, pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void forks(int rounds)
{
    for (int i = 0; i < rounds; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (!pid) {
            CHECK_EQ(getpid(), raw(SYS_gettid));
            _exit(i & 63);
        }
        CHECK_EQ(wait_for(pid), i & 63);
    }
}

/* The child stores through the memory that it shares, and dies or execs. */
static void vforks(int rounds)
{
    for (volatile int i = 0; i < rounds; i++) {
        volatile int touched = 0;
        volatile long before = 0x1234567;
        pid_t pid = vfork();
        CHECK(pid >= 0);
        if (!pid) {
            touched = 1;
            _exit(i & 63);
        }
        CHECK_EQ(touched, 1);
        CHECK_EQ(before, 0x1234567);
        CHECK_EQ(wait_for(pid), i & 63);
    }
}

static void vfork_nested(void)
{
    volatile int deep = 0;
    pid_t pid = vfork();
    CHECK(pid >= 0);
    if (!pid) {
        pid_t inner = vfork();
        if (!inner) {
            deep = 2;
            _exit(5);
        }
        int status = 0;
        if (inner < 0 || waitpid(inner, &status, 0) != inner || WEXITSTATUS(status) != 5)
            _exit(1);
        _exit(deep + 40);
    }
    CHECK_EQ(wait_for(pid), 42);
    CHECK_EQ(deep, 2);
}

static void vfork_exec(char **env)
{
    char *argv[] = {self, "child", "7", NULL};
    for (volatile int i = 0; i < 3; i++) {
        pid_t pid = vfork();
        CHECK(pid >= 0);
        if (!pid) {
            execve(self, argv, env);
            _exit(127);
        }
        CHECK_EQ(wait_for(pid), 7);
        pid = vfork();
        CHECK(pid >= 0);
        if (!pid) {
            execve("/nonexistent/program", argv, env);
            _exit(errno == ENOENT ? 21 : 127);
        }
        CHECK_EQ(wait_for(pid), 21);
    }
}

static void spawn(char **env)
{
    char *argv[] = {self, "child", "9", NULL};
    for (int i = 0; i < 5; i++) {
        pid_t pid;
        CHECK_EQ(posix_spawn(&pid, self, NULL, NULL, argv, env), 0);
        CHECK_EQ(wait_for(pid), 9);
    }
    pid_t pid;
    CHECK_EQ(posix_spawn(&pid, "/nonexistent/program", NULL, NULL, argv, env), ENOENT);
}

static void *vfork_thread(void *unused)
{
    vforks(20);
    return unused;
}

static void *fork_thread(void *unused)
{
    forks(5);
    return unused;
}

static void in_threads(void *(*function)(void *))
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, function, NULL), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void *exec_thread(void *unused)
{
    char *argv[] = {self, "child", "11", NULL};
    wait_until_asleep(getpid()); /* the main thread, in its pause: the number of calls is compared */
    execve(self, argv, environ);
    _exit(127);
    return unused;
}

static void exec_from_thread(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        pthread_t thread;
        pthread_create(&thread, NULL, exec_thread, NULL);
        for (;;)
            pause();
    }
    CHECK_EQ(wait_for(pid), 11);
}

int main(int argc, char **argv, char **env)
{
    self = argv[0];
    if (argc == 3 && !strcmp(argv[1], "child"))
        return atoi(argv[2]);
    forks(20);
    vforks(100);
    vfork_nested();
    vfork_exec(env);
    spawn(env);
    in_threads(vfork_thread);
    in_threads(fork_thread);
    exec_from_thread();
    char *again[] = {self, "child", "0", NULL};
    execve("/nonexistent/program", again, env);
    CHECK_EQ(errno, ENOENT);
    int fd = open(self, O_PATH | O_CLOEXEC);
    CHECK(fd >= 0);
    pid_t pid = fork();
    if (!pid) {
        char *argv_fd[] = {self, "child", "13", NULL};
        raw(SYS_execveat, fd, "", argv_fd, env, 0x1000 /* AT_EMPTY_PATH */);
        _exit(127);
    }
    CHECK_EQ(wait_for(pid), 13);
    return done("proc_fork");
}
