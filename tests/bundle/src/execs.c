/* Every way to start a program, and what the started one sees of it.
 *
 *   execs            runs itself and scripts in every way, each in a child, one after the other
 *   execs ...        with any argument: prints what it sees
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char self[4096], folder[4096];

static void show(int argc, char **argv)
{
    char exe[4096], comm[17] = {0};
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    prctl(PR_GET_NAME, comm);
    const unsigned long *end = (const unsigned long *)environ;
    while (*end)
        end++;
    int entries = 0;
    for (const unsigned long *a = end + 1; a[0]; a += 2)
        entries++;
    printf("  exe %s, execfn %s, comm %s, auxv %d, aligned %d\n", exe, (const char *)getauxval(AT_EXECFN), comm, entries > 15,
           (int)((unsigned long)(argv - 1) % 16));
    for (int i = 0; i < argc; i++)
        printf("  argv[%d] %s\n", i, argv[i]);
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "X_", 2) == 0 || strstr(*e, "EXECFN"))
            printf("  env %s\n", *e);
    fflush(stdout);
}

static void finish(const char *what, pid_t child)
{
    int status = -1;
    if (child > 0)
        waitpid(child, &status, 0);
    printf("%s: %d\n", what, WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
    fflush(stdout);
}

#define CHILD(what, call)                                                                                              \
    do {                                                                                                               \
        fflush(stdout);                                                                                                \
        pid_t child = fork();                                                                                          \
        if (!child) {                                                                                                  \
            call;                                                                                                      \
            printf("  %s\n", strerror(errno));                                                                         \
            fflush(stdout);                                                                                            \
            _exit(99);                                                                                                 \
        }                                                                                                              \
        finish(what, child);                                                                                           \
    } while (0)

static long execveat_(int dir, const char *path, char **argv, char **envp, int flags)
{
    return syscall(SYS_execveat, dir, path, argv, envp, flags);
}

static void script(const char *name, const char *text, int mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (write(fd, text, strlen(text)) < 0)
        abort();
    fchmod(fd, (mode_t)mode);
    close(fd);
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* Signals at any point of clone and exec. */
static void storm(char **args, char **env)
{
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    posix_spawn_file_actions_t quiet;
    int good = 0;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    sigaction(SIGALRM, &act, 0);
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 100; i++) {
        pid_t child;
        int status;
        if (posix_spawn(&child, i % 2 ? "plain" : self, &quiet, 0, args, env))
            continue;
        while (waitpid(child, &status, 0) < 0)
            ;
        good += WIFEXITED(status) && WEXITSTATUS(status) == 3;
        pid_t own = fork();
        if (!own) {
            execve("nowhere", args, env);
            execve("denied", args, env);
            close(1);
            execve(i % 2 ? "plain" : self, args, env);
            _exit(99);
        }
        while (waitpid(own, &status, 0) < 0)
            ;
        good += WIFEXITED(status) && WEXITSTATUS(status) == 3;
    }
    setitimer(ITIMER_REAL, &never, 0);
    printf("storm %d\n", good);
}

static void *exec_thread(void *argv)
{
    execv(self, argv);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* started below */
        show(argc, argv);
        return 3;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    strcpy(folder, self);
    *strrchr(folder, '/') = 0;
    char *name = strrchr(self, '/') + 1, text[8192], path[8192];
    char *args[] = {"zero", "show", "", "three", 0}, *env[] = {"X_A=1", "X_B=", 0}, *none[] = {0};
    if (chdir(folder))
        return 1;
    CHILD("execve", execve(self, args, env));
    CHILD("empty environment", execve(self, args, none));
    CHILD("no environment", execve(self, args, 0));
    CHILD("own environment", execv(self, args));
    snprintf(path, sizeof path, "./%s", name);
    CHILD("relative", execve(path, args, env));
    CHILD("link", (unlink("link"), symlink(name, "link"), execve("link", args, env)));
    int dir = open(folder, O_RDONLY | O_DIRECTORY), fd = open(self, O_RDONLY), opath = open(self, O_PATH);
    CHILD("execveat absolute", execveat_(dir, self, args, env, 0));
    CHILD("execveat relative", execveat_(dir, name, args, env, 0));
    CHILD("execveat descriptor", execveat_(fd, "", args, env, AT_EMPTY_PATH));
    CHILD("execveat O_PATH", execveat_(opath, "", args, env, AT_EMPTY_PATH));
    CHILD("execveat link", execveat_(dir, "link", args, env, AT_SYMLINK_NOFOLLOW));
    CHILD("fexecve", fexecve(fd, args, env));
    CHILD("/proc/self/exe", execve("/proc/self/exe", args, env));
    CHILD("execvp", (setenv("PATH", folder, 1), execvp(name, args)));
    CHILD("thread", ({
              pthread_t t;
              pthread_create(&t, 0, exec_thread, args);
              pthread_join(t, 0);
          }));
    pid_t child = vfork();
    if (!child) {
        execve(self, args, env);
        _exit(98);
    }
    finish("vfork", child);
    for (volatile int i = 0; i < 200; i++) { /* nothing is lost in the parent */
        child = vfork();
        if (!child) {
            execve(i % 2 ? "/nowhere/at/all" : "/bin/true", args, env);
            _exit(97);
        }
        waitpid(child, 0, 0);
    }
    fflush(stdout);
    if (posix_spawn(&child, self, 0, 0, args, env))
        child = -1;
    finish("posix_spawn", child);

    snprintf(text, sizeof text, "#! %s  one argument  \nrest\n", self);
    script("script", text, 0755);
    snprintf(text, sizeof text, "#!%s/script\n", folder);
    script("nested", text, 0755);
    snprintf(text, sizeof text, "#!%s\n", self);
    script("plain", text, 0755);
    script("relative", "#!./script\n", 0755);
    script("denied", text, 0644);
    script("empty", "#! \n", 0755);
    script("text", "echo text\n", 0755);
    snprintf(text, sizeof text, "#!%s   ", self);
    script("no line", text, 0755);
    snprintf(text, sizeof text, "#!%s a\tb c\t \n", self);
    script("tabs", text, 0755);
    snprintf(text, sizeof text, "#!\n%s\n", self);
    script("nothing", text, 0755);
    script("lost", "#!/nowhere/interpreter\n", 0755);
    script("shell", "#!/bin/sh\necho shell $0 $*; exit 6\n", 0755);
    memset(text, ' ', 300);
    snprintf(text, sizeof text, "#!%-270s\n", self);
    script("wide", text, 0755);
    snprintf(text, sizeof text, "#!/%0300d\n", 0);
    script("long", text, 0755);
    snprintf(text, sizeof text, "#!%s %0300d\n", self, 7);
    script("long argument", text, 0755);
    snprintf(text, sizeof text, "#!%s/loop\n", folder);
    script("loop", text, 0755);
    char *scripts[] = {"script", "nested", "plain", "relative", "denied", "empty", "text", "lost",  "shell",   "wide", "long", "long argument", "loop", "no line", "tabs",
                       "nothing"};
    for (unsigned i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, scripts[i]);
        CHILD(scripts[i], execve(path, args, env));
    }
    CHILD("relative script", execve("script", args, env));
    CHILD("script by directory", execveat_(dir, "plain", args, env, 0));
    int script_fd = open("plain", O_RDONLY);
    CHILD("script by descriptor", execveat_(script_fd, "", args, env, AT_EMPTY_PATH));
    CHILD("posix_spawnp", ({
              setenv("PATH", folder, 1);
              errno = posix_spawnp(&child, "text", 0, 0, args, env);
          }));
    CHILD("not there", execve("/nowhere/at/all", args, env));
    CHILD("a directory", execve(folder, args, env));
    void *volatile bad = (void *)8; /* not seen by the compiler */
    CHILD("bad path", execve(bad, args, env));
    CHILD("bad arguments", execve(self, bad, env));
    CHILD("bad environment", execve(self, args, bad));
    CHILD("no arguments", execve("plain", none, env)); /* the script's path is one */
    CHILD("bad flags", execveat_(dir, name, args, env, 0x40));
    CHILD("empty path", execveat_(fd, "", args, env, 0));
    storm(args, env);
    char **many = calloc(300001, sizeof *many);
    for (int i = 0; i < 300000; i++)
        many[i] = "X_many";
    CHILD("too much", execve(self, args, many));
    many[20000] = 0;
    many[0] = "zero", many[1] = "other";
    CHILD("much", execve("/bin/true", many, env));
    return 5;
}
