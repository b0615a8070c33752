// Memory on cache-line boundaries for standard containers.
#pragma once

#include <cstddef>
#include <new>

namespace pyhess {

template <class T>
struct AlignedAllocator {
    using value_type = T;
    static constexpr std::align_val_t kBoundary{64};

    AlignedAllocator() = default;
    template <class U>
    AlignedAllocator(const AlignedAllocator<U>&) {}

    T* allocate(std::size_t n) {
        if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
        return static_cast<T*>(::operator new(n * sizeof(T), kBoundary));
    }
    void deallocate(T* p, std::size_t) { ::operator delete(p, kBoundary); }
    template <class U>
    bool operator==(const AlignedAllocator<U>&) const {
        return true;
    }
    template <class U>
    bool operator!=(const AlignedAllocator<U>&) const {
        return false;
    }
};

}  // namespace pyhess
