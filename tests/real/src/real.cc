// Exceptions through libraries' frames, threads, cancellation.
#include <cstdio>
#include <future>
#include <map>
#include <pthread.h>
#include <regex>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

struct Said {
    ~Said() { std::puts("destroyed"); }
};

static void *sleeper(void *)
{
    Said said;
    for (;;)
        pause();
}

int main()
{
    std::vector<std::future<int>> all;
    for (int i = 0; i < 20; i++)
        all.push_back(std::async(std::launch::async, [i] { return i % 2 ? throw std::runtime_error("odd") : i; }));
    for (auto &f : all)
        try {
            std::printf("%d ", f.get());
        } catch (const std::exception &e) {
            std::printf("%s ", e.what());
        }
    std::map<std::string, int> words;
    std::string text = "a b a c b a";
    std::regex word("\\w");
    for (std::sregex_iterator i(text.begin(), text.end(), word), end; i != end; ++i)
        words[i->str()]++;
    std::printf("%d\n", words["a"]);
    pthread_t t;
    pthread_create(&t, nullptr, sleeper, nullptr);
    pthread_cancel(t);
    pthread_join(t, nullptr);
    try {
        std::string(1, 'x').at(5);
    } catch (const std::out_of_range &) {
        std::puts("caught");
    }
    return 3;
}
