// Runs every test, or those whose names contain the first argument. Exit status: 0 only if checks were made and held.
#include <cstdio>
#include <cstring>
#include <exception>

#include "check.hpp"

namespace check {

namespace {
constexpr int kShownFailures = 20;  // per test
int failures = 0;
}  // namespace

std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

std::vector<std::string>& notes() {
    static std::vector<std::string> all;
    return all;
}

std::int64_t& num_checks() {
    static std::int64_t count = 0;
    return count;
}

void fail(const char* file, int line, const std::string& what) {
    if (++failures > kShownFailures) return;
    std::string where;
    for (const std::string& note : notes()) where += "[" + note + "] ";
    std::printf("%s:%d: %s%s\n", file, line, where.c_str(), what.c_str());
}

}  // namespace check

int main(int argc, char** argv) {
    int run = 0, failed = 0;
    for (const check::Test& test : check::tests()) {
        if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
        check::failures = 0;
        const std::int64_t before = check::num_checks();
        try {
            test.body();
        } catch (const std::exception& error) {
            check::fail(test.name, 0, std::string("exception: ") + error.what());
        }
        const auto made = static_cast<long long>(check::num_checks() - before);
        if (made == 0) check::fail(test.name, 0, "made no check");
        std::printf("%s %s: %lld checks, %d failures\n", check::failures ? "FAILED" : "ok    ", test.name, made,
                    check::failures);
        std::fflush(stdout);
        failed += check::failures ? 1 : 0;
        ++run;
    }
    std::printf("%d tests, %d failed\n", run, failed);
    return run > 0 && failed == 0 ? 0 : 1;
}
