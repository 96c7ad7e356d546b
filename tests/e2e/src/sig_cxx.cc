// modes: c++
// flags: -fnon-call-exceptions -fasynchronous-unwind-tables
// counts: none
/* C++: exceptions thrown by a handler out of a blocked call, destructors on the way, and on the way out of a cancelled thread. */
#include "check.h"
#include <atomic>
#include <cstdio>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

enum { CALLS = 50 };

static int pipe_fds[2];
static std::atomic<int> destroyed, started, reading;

struct Guard {
    int *own;
    explicit Guard(int *counter) : own(counter) {}
    ~Guard()
    {
        CHECK_EQ(raw(SYS_getpid), getpid());
        destroyed++;
        if (own)
            ++*own;
    }
};

/* read(fd, buffer, 1): the throwing handler interrupts it at the instruction. */
extern "C" long blocked_read(int fd, void *buffer);
__asm__(".text\n.globl blocked_read\n.type blocked_read, @function\nblocked_read:\n.cfi_startproc\n push %rbx\n"
        ".cfi_def_cfa_offset 16\n.cfi_offset %rbx, -16\n mov $1, %edx\n xor %eax, %eax\n syscall\n nop\n pop %rbx\n"
        ".cfi_def_cfa_offset 8\n ret\n.cfi_endproc\n.size blocked_read, .-blocked_read\n");

static void thrower(int sig)
{
    Guard guard(nullptr);
    throw std::runtime_error("signal " + std::to_string(sig));
}

static void __attribute__((noinline)) deep(int depth)
{
    int mine = 0;
    {
        Guard guard(&mine);
        if (depth > 0) {
            deep(depth - 1);
        } else {
            char byte = 1;
            reading = 1;
            blocked_read(pipe_fds[0], &byte);
            CHECK_EQ(byte, 0); /* not reached: the handler throws */
        }
    }
    CHECK_EQ(mine, 1);
}

/* Whether a thread of this process sleeps. */
static bool sleeps(pid_t tid)
{
    char state = 0;
    FILE *file = fopen(("/proc/self/task/" + std::to_string(tid) + "/stat").c_str(), "r");
    CHECK(file != nullptr && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state == 'S';
}

/* Interrupts the read each time that `thread` waits in it, and nothing else: most of its code may not throw. */
static void interrupt(pid_t thread)
{
    for (int i = 0; i < CALLS; i++) {
        while (!reading || !sleeps(thread))
            usleep(100);
        reading = 0;
        CHECK_EQ(syscall(SYS_tgkill, getpid(), thread, SIGALRM), 0);
    }
}

static void out_of_calls()
{
    std::thread interrupter(interrupt, getpid());
    struct sigaction action = {};
    action.sa_handler = thrower;
    action.sa_flags = SA_NODEFER;
    CHECK_EQ(sigaction(SIGALRM, &action, nullptr), 0);
    for (int i = 0; i < CALLS; i++) {
        destroyed = 0;
        bool caught = false;
        try {
            deep(5);
        } catch (const std::runtime_error &error) {
            caught = error.what() == std::string("signal 14");
        }
        CHECK_EQ(caught, true);
        CHECK_EQ(destroyed, 7);
    }
    signal(SIGALRM, SIG_DFL);
    interrupter.join();
}

static void faults_as_exceptions()
{
    struct sigaction action = {};
    action.sa_handler = thrower;
    action.sa_flags = SA_NODEFER;
    CHECK_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
    int *volatile null = nullptr;
    for (int i = 0; i < 10; i++) {
        bool caught = false;
        try {
            *null = 1;
        } catch (const std::runtime_error &error) {
            caught = true;
        }
        CHECK_EQ(caught, true);
    }
    signal(SIGSEGV, SIG_DFL);
}

static void *cancelled(void *)
{
    Guard one(nullptr);
    std::string text(1000, 'x');
    {
        Guard two(nullptr);
        char byte;
        started = 1;
        CHECK(read(pipe_fds[0], &byte, 1) == 1);
    }
    return nullptr;
}

static void cancellation()
{
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *result;
        destroyed = started = 0;
        CHECK_EQ(pthread_create(&thread, nullptr, cancelled, nullptr), 0);
        while (!started)
            usleep(100);
        if (i & 1)
            usleep(1000);
        CHECK_EQ(pthread_cancel(thread), 0);
        CHECK_EQ(pthread_join(thread, &result), 0);
        CHECK(result == PTHREAD_CANCELED);
        CHECK_EQ(destroyed, 2);
    }
}

static void threads()
{
    std::vector<std::thread> all;
    std::atomic<long> caught{0};
    for (int i = 0; i < 8; i++)
        all.emplace_back([&caught, i] {
            for (int j = 0; j < 200; j++)
                try {
                    CHECK_EQ(raw(SYS_getpid), getpid());
                    if ((i + j) % 2)
                        throw j;
                } catch (int value) {
                    caught += value == j;
                }
        });
    for (auto &thread : all)
        thread.join();
    CHECK_EQ(caught, 800);
}

int main()
{
    CHECK_EQ(pipe(pipe_fds), 0);
    out_of_calls();
    faults_as_exceptions();
    cancellation();
    threads();
    return done("sig_cxx");
}
