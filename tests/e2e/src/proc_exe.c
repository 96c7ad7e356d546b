// modes: default musl-pie
// counts: none
/* The program's own file by every name and every call: each answer is printed or compared with that of the path that readlink gives, so the
 * rewritten program must say what the original says. Bad pointers and neighbours of the link answer as they do natively. */
#include "check.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

/* linux/stat.h and fcntl.h of musl and the kernel cannot be included together. */
enum { STATX_BYTES = 256, INO_AT = 0x20, EMPTY_PATH = 0x1000, SYMLINK_FOLLOW = 0x400 };

static char self[PATH_MAX], name[PATH_MAX];
static struct stat file;

static void same_file(int fd)
{
    struct stat st;
    CHECK(fd >= 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_ino, file.st_ino);
    CHECK_EQ(st.st_dev, file.st_dev);
    CHECK_EQ(st.st_size, file.st_size);
    CHECK_EQ(close(fd), 0);
}

/* All calls on `path`, which is relative to the descriptor `dir`, or to the working directory where it is AT_FDCWD. */
static void all_calls(int dir, const char *path)
{
    char text[PATH_MAX], box[STATX_BYTES];
    struct stat st;
    struct statfs fs, fs2;
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
    long n = raw(SYS_readlinkat, dir, path, text, sizeof text);
    CHECK_EQ(n, (long)strlen(self));
    CHECK_EQ(memcmp(text, self, (size_t)n), 0);
    memset(text, '#', sizeof text);
    CHECK_EQ(raw(SYS_readlinkat, dir, path, text, 5), 5);
    CHECK_EQ(memcmp(text, self, 5), 0);
    CHECK_EQ(text[5], '#');
    CHECK_EQ(raw(SYS_readlinkat, dir, path, text, 0), -EINVAL);
    CHECK_EQ(raw(SYS_readlinkat, dir, path, 8, 100), -EFAULT);
    same_file((int)raw(SYS_openat, dir, path, O_RDONLY | O_CLOEXEC, 0));
    same_file((int)raw(SYS_openat, dir, path, O_PATH, 0));
    same_file((int)raw(SYS_openat, dir, path, O_RDONLY | O_CREAT, 0600));
    same_file((int)raw(SYS_openat2, dir, path, &how, sizeof how));
    int fd = (int)raw(SYS_openat, dir, path, O_RDONLY | O_CLOEXEC, 0), again;
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    CHECK_EQ(again = (int)raw(SYS_openat, dir, path, O_RDONLY, 0), fd);
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    close(again);
    CHECK_EQ(raw(SYS_openat, dir, path, O_RDWR, 0), -ETXTBSY);
    CHECK_EQ(raw(SYS_openat, dir, path, O_RDONLY | O_NOFOLLOW, 0), -ELOOP);
    CHECK_EQ(raw(SYS_openat, dir, path, O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
    how.resolve = RESOLVE_NO_MAGICLINKS;
    CHECK_EQ(raw(SYS_openat2, dir, path, &how, sizeof how), -ELOOP);
    CHECK_EQ(raw(SYS_newfstatat, dir, path, &st, 0), 0);
    CHECK_EQ(memcmp(&st, &file, offsetof(struct stat, st_atime)), 0);
    CHECK_EQ(raw(SYS_newfstatat, dir, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    CHECK(S_ISLNK(st.st_mode) && st.st_ino != file.st_ino);
    CHECK_EQ(raw(SYS_statx, dir, path, 0, 0x7ff, box), 0);
    CHECK_EQ(*(uint64_t *)(box + INO_AT), file.st_ino);
    CHECK_EQ(raw(SYS_statx, dir, path, AT_SYMLINK_NOFOLLOW, 0x7ff, box), 0);
    CHECK(*(uint64_t *)(box + INO_AT) != file.st_ino);
    CHECK_EQ(raw(SYS_faccessat, dir, path, R_OK | X_OK), 0);
    CHECK_EQ(raw(SYS_faccessat2, dir, path, X_OK, AT_EACCESS), 0);
    fd = (int)raw(SYS_openat, dir, path, O_PATH | O_NOFOLLOW, 0); /* the link itself */
    CHECK_EQ(n = raw(SYS_readlinkat, fd, "", text, sizeof text), (long)strlen(self));
    CHECK_EQ(memcmp(text, self, (size_t)n), 0);
    close(fd);
    struct {
        struct file_handle head;
        char bytes[128];
    } mine = {.head.handle_bytes = 128}, original = {.head.handle_bytes = 128};
    int mount;
    long r = raw(SYS_name_to_handle_at, AT_FDCWD, self, &original, &mount, 0);
    CHECK_EQ(raw(SYS_name_to_handle_at, dir, path, &mine, &mount, SYMLINK_FOLLOW), r);
    if (!r)
        CHECK_EQ(memcmp(&mine, &original, sizeof mine.head + mine.head.handle_bytes), 0);
    if (dir != AT_FDCWD)
        return;
    n = raw(SYS_readlink, path, text, sizeof text);
    CHECK_EQ(n, (long)strlen(self));
    CHECK_EQ(memcmp(text, self, (size_t)n), 0);
    same_file((int)raw(SYS_open, path, O_RDONLY));
    CHECK_EQ(raw(SYS_stat, path, &st), 0);
    CHECK_EQ(st.st_ino, file.st_ino);
    CHECK_EQ(raw(SYS_access, path, X_OK), 0);
    CHECK_EQ(raw(SYS_statfs, path, &fs), 0);
    CHECK_EQ(raw(SYS_statfs, self, &fs2), 0);
    CHECK_EQ(memcmp(&fs.f_fsid, &fs2.f_fsid, sizeof fs.f_fsid), 0);
    /* The result over the path. */
    char both[PATH_MAX + 1024];
    strcpy(both, path);
    CHECK_EQ(raw(SYS_readlink, both, both, PATH_MAX), (long)strlen(self));
    CHECK_EQ(memcmp(both, self, strlen(self)), 0);
    strcpy(both, path);
    CHECK_EQ(raw(SYS_stat, both, both), 0);
    CHECK_EQ(((struct stat *)both)->st_ino, file.st_ino);
    strcpy(both + 7, path);
    CHECK_EQ(raw(SYS_newfstatat, AT_FDCWD, both + 7, both, 0), 0);
    CHECK_EQ(((struct stat *)both)->st_ino, file.st_ino);
}

static void *thread(void *unused)
{
    all_calls(AT_FDCWD, "/proc/thread-self/exe");
    snprintf(name, sizeof name, "/proc/self/task/%ld/exe", raw(SYS_gettid));
    all_calls(AT_FDCWD, name);
    return unused;
}

/* Paths at the end of a page, behind which there is nothing; bad pointers; names that only look alike. */
static void neighbours(void)
{
    struct stat st;
    char text[PATH_MAX], *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_EQ(munmap(pages + 4096, 4096), 0);
    static const char *const paths[] = {"/proc/self/exe", "/", "exe", "/exe", "xexe", "/dev/null", "/proc/self/../self/exe"};
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        char *p = pages + 4096 - strlen(paths[i]) - 1;
        strcpy(p, paths[i]);
        printf("%s: stat %ld", p, raw(SYS_stat, p, &st));
        printf(", readlink %ld", raw(SYS_readlink, p, text, sizeof text));
        long fd = raw(SYS_open, p, O_RDONLY);
        printf(", open %s\n", fd >= 0 ? "yes" : "no");
        if (fd >= 0)
            close((int)fd);
        p[strlen(p)] = '/'; /* not terminated */
        CHECK_EQ(raw(SYS_stat, p, &st), -EFAULT);
        CHECK_EQ(raw(SYS_open, p, O_RDONLY), -EFAULT);
        CHECK_EQ(raw(SYS_readlink, p, text, sizeof text), -EFAULT);
        CHECK_EQ(raw(SYS_execve, p, NULL, NULL), -EFAULT);
    }
    static const long bad[] = {0, 8, -1, -4096, 0x7ffffffff000, (long)(1ul << 47), (long)(1ul << 63)};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ(raw(SYS_open, bad[i], O_RDONLY), -EFAULT);
        CHECK_EQ(raw(SYS_openat, AT_FDCWD, bad[i], O_RDONLY), -EFAULT);
        CHECK_EQ(raw(SYS_readlink, bad[i], text, sizeof text), -EFAULT);
        CHECK_EQ(raw(SYS_readlinkat, AT_FDCWD, bad[i], bad[i], sizeof text), -EFAULT);
        CHECK_EQ(raw(SYS_stat, bad[i], &st), -EFAULT);
        CHECK_EQ(raw(SYS_access, bad[i], R_OK), -EFAULT);
        CHECK_EQ(raw(SYS_faccessat2, AT_FDCWD, bad[i], R_OK, 0xf00000), -EINVAL); /* before the path is read */
        CHECK_EQ(raw(SYS_execve, bad[i], NULL, NULL), -EFAULT);
    }
    char long_path[2 * PATH_MAX];
    memset(long_path, '/', sizeof long_path);
    strcpy(long_path + sizeof long_path - 15, "proc/self/exe");
    CHECK_EQ(raw(SYS_open, long_path, O_RDONLY), -ENAMETOOLONG);
    CHECK_EQ(raw(SYS_execve, long_path, NULL, NULL), -ENAMETOOLONG);
    all_calls(AT_FDCWD, long_path + PATH_MAX + 10);
    /* An ordinary link of that name to the program's file is an ordinary link. */
    char dir[] = "/tmp/proc_exe.XXXXXX", link[PATH_MAX], exe[PATH_MAX];
    CHECK(mkdtemp(dir));
    snprintf(link, sizeof link, "%s/exe", dir);
    CHECK_EQ(symlink("/dev/null", link), 0);
    CHECK_EQ(readlink(link, exe, sizeof exe), 9);
    CHECK_EQ(stat(link, &st), 0);
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(unlink(link), 0);
    CHECK_EQ(rmdir(dir), 0);
}

int main(void)
{
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    CHECK_EQ(stat(self, &file), 0);
    printf("%s\n", self);
    printf("%s\n", realpath("/proc/self/exe", name));
    all_calls(AT_FDCWD, "/proc/self/exe");
    all_calls(AT_FDCWD, "//proc/./self/../self//exe");
    all_calls(AT_FDCWD, "/proc/self/root/proc/self/exe");
    snprintf(name, sizeof name, "/proc/%d/exe", getpid());
    all_calls(AT_FDCWD, name);
    snprintf(name, sizeof name, "/proc/%d/task/%d/exe", getpid(), getpid());
    all_calls(AT_FDCWD, name);
    all_calls(AT_FDCWD, "/proc/thread-self/exe");
    int proc = open("/proc", O_RDONLY | O_DIRECTORY), own = open("/proc/self", O_PATH | O_DIRECTORY);
    all_calls(proc, "self/exe");
    all_calls(own, "exe");
    all_calls(own, "./exe");
    all_calls(-1, "/proc/self/exe"); /* the descriptor does not matter */
    CHECK_EQ(fchdir(own), 0);
    all_calls(AT_FDCWD, "exe");
    CHECK_EQ(chdir("/"), 0);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    /* A child of the same program, seen from its parent and by itself; another program. */
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    pid_t pid = fork();
    if (!pid) {
        char byte;
        all_calls(AT_FDCWD, "/proc/self/exe");
        CHECK_EQ(read(fds[0], &byte, 1), 1);
        _exit(0);
    }
    snprintf(name, sizeof name, "/proc/%d/exe", pid);
    all_calls(AT_FDCWD, name);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    pid = vfork();
    if (!pid) {
        execl("/bin/sleep", "sleep", "30", NULL);
        _exit(1);
    }
    char other[PATH_MAX];
    long n = raw(SYS_readlink, name, other, sizeof other);
    CHECK_EQ(n, -ENOENT); /* the first child is gone */
    snprintf(name, sizeof name, "/proc/%d/exe", pid);
    CHECK((n = readlink(name, other, sizeof other - 1)) > 0);
    other[n] = 0;
    printf("%s\n", other);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    neighbours();
    return done("proc_exe");
}
