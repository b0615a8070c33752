// Chooses an instruction-set level at run time from the processor's feature bits.
#include <cstring>

#include "pyhess/kernels.hpp"

extern "C" {
const void* pyhess_kernels64_base();
const void* pyhess_kernels32_base();
#ifdef PYHESS_HAVE_X86_LEVELS
const void* pyhess_kernels64_v3();
const void* pyhess_kernels32_v3();
const void* pyhess_kernels64_v4();
const void* pyhess_kernels32_v4();
#endif
}

namespace pyhess {
namespace {

#ifdef PYHESS_HAVE_X86_LEVELS
bool has_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}
bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

template <class T>
const void* table(const char* name) {
    constexpr bool wide = sizeof(T) == 8;
#ifdef PYHESS_HAVE_X86_LEVELS
    if (std::strcmp(name, "v4") == 0) return wide ? pyhess_kernels64_v4() : pyhess_kernels32_v4();
    if (std::strcmp(name, "v3") == 0) return wide ? pyhess_kernels64_v3() : pyhess_kernels32_v3();
#endif
    (void)name;
    return wide ? pyhess_kernels64_base() : pyhess_kernels32_base();
}

}  // namespace

bool isa_available(const char* name) {
    if (std::strcmp(name, "base") == 0) return true;
#ifdef PYHESS_HAVE_X86_LEVELS
    if (std::strcmp(name, "v3") == 0) return has_v3();
    if (std::strcmp(name, "v4") == 0) return has_v4();
#endif
    return false;
}

const char* best_isa() {
    if (isa_available("v4")) return "v4";
    if (isa_available("v3")) return "v3";
    return "base";
}

template <class T>
const Kernels<T>* find_kernels(const char* name) {
    return isa_available(name) ? static_cast<const Kernels<T>*>(table<T>(name)) : nullptr;
}

template const Kernels<double>* find_kernels<double>(const char*);
template const Kernels<float>* find_kernels<float>(const char*);

}  // namespace pyhess
