// A test runner in one header: TEST registers a function, CHECK and its kin record failures and go on, Note names the
// case at hand in every failure while it lives.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace check {

struct Test {
    const char* name;
    void (*body)();
};

std::vector<Test>& tests();
std::vector<std::string>& notes();
std::int64_t& num_checks();
void fail(const char* file, int line, const std::string& what);

struct Registration {
    Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

class Note {
public:
    explicit Note(std::string text) { notes().push_back(std::move(text)); }
    ~Note() { notes().pop_back(); }
    Note(const Note&) = delete;
    Note& operator=(const Note&) = delete;
};

inline void that(bool holds, const char* file, int line, const std::string& what) {
    ++num_checks();
    if (!holds) fail(file, line, what);
}

// |got - want| <= bound; false for NaN
inline void near(double got, double want, double bound, const char* file, int line, const char* what) {
    ++num_checks();
    if (std::fabs(got - want) <= bound) return;
    char text[160];
    std::snprintf(text, sizeof(text), ": got %.17g, want %.17g, off by %.3g, allowed %.3g", got, want,
                  std::fabs(got - want), bound);
    fail(file, line, what + std::string(text));
}

}  // namespace check

#define TEST(name)                                              \
    static void name();                                         \
    static const check::Registration name##_entry(#name, name); \
    static void name()
#define CHECK(condition) check::that((condition), __FILE__, __LINE__, #condition)
#define CHECK_NEAR(got, want, bound) check::near((got), (want), (bound), __FILE__, __LINE__, #got)
