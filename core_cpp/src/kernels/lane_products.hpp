// Matrix products of narrow layers with lanes across data points: every array is (features, lanes), one row per
// feature, and a vector register holds the same feature of neighbouring data. Small tiles of the result stay in
// registers, so no operand is packed or transposed. For kernels.cpp alone (see vector_math.hpp).
#pragma once

#include "pyhess/kernels.hpp"

namespace pyhess {
namespace {

// The switch point: networks whose widest layer has at most kLaneWidth units take these kernels, wider ones GEMM.
// Measured on AVX2 (Zen 3), where OpenBLAS packs every operand: at width 256 still ahead by a fifth, in both types; at
// 1024 behind by a third. With AVX-512 OpenBLAS has kernels of its own for small products, which from 64 units on run
// at 95 % of the peak, so that there is nothing to win beyond.
#if defined(__AVX512F__)
constexpr index_t kVectorBytes = 64, kRegisters = 32, kLaneWidth = 64;
#elif defined(__AVX__)
constexpr index_t kVectorBytes = 32, kRegisters = 16, kLaneWidth = 256;
#else
constexpr index_t kVectorBytes = 16, kRegisters = 16, kLaneWidth = 64;
#endif

template <class T>
using Vec __attribute__((vector_size(kVectorBytes))) = T;

template <class T>
constexpr int kWidth = static_cast<int>(kVectorBytes / static_cast<index_t>(sizeof(T)));

// Vectors in one group of lanes (64 bytes): every row of lanes is a multiple of it.
constexpr int kGroup = static_cast<int>(64 / kVectorBytes);

// Rows live on 64-byte boundaries.
template <class T>
inline Vec<T> load(const T* from) {
    return *reinterpret_cast<const Vec<T>*>(from);
}

// The sum of a vector's elements, by halves.
template <class T>
inline T sum_elements(Vec<T> x) {
    alignas(64) T part[kWidth<T>];
    __builtin_memcpy(part, &x, sizeof(x));
    for (int half = kWidth<T> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

// ---- out = scale (bias + sum_t W_t x_t) ----

// Vectors per row of a tile: as many as leave registers for one vector of each operand.
constexpr int tile_vectors(int rows) {
    const int room = static_cast<int>(kRegisters) * 3 / 4 / rows;
    const int whole = room / kGroup * kGroup;
    return whole < kGroup ? kGroup : (whole > 8 ? 8 : whole);
}
constexpr int kAffineRows = kVectorBytes >= 32 ? 6 : 3;

template <class T, int R, int N>
inline void affine_tile(index_t in, index_t lanes, T scale, const T* bias, index_t row_stride, index_t col_stride,
                        index_t count, const LaneTerm<T>* terms, index_t row, index_t lane, T* out) {
    Vec<T> sum[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[r][n] = Vec<T>{} + (bias ? bias[row + r] : T(0));
    for (index_t t = 0; t < count; ++t) {
        const T* w = terms[t].left + row * row_stride;
        const T* x = terms[t].right + lane;
        for (index_t k = 0; k < in; ++k, w += col_stride, x += lanes) {
            Vec<T> column[N];
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) column[n] = load(x + n * kWidth<T>);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const T factor = w[r * row_stride];
#pragma GCC unroll 8
                for (int n = 0; n < N; ++n) sum[r][n] += factor * column[n];
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
            *reinterpret_cast<Vec<T>*>(out + (row + r) * lanes + lane + n * kWidth<T>) = scale * sum[r][n];
}

template <class T, int R>
void affine_rows(index_t in, index_t lanes, T scale, const T* bias, index_t row_stride, index_t col_stride,
                 index_t count, const LaneTerm<T>* terms, index_t row, T* out) {
    constexpr int N = tile_vectors(R);
    index_t lane = 0;
    for (; lane + N * kWidth<T> <= lanes; lane += N * kWidth<T>)
        affine_tile<T, R, N>(in, lanes, scale, bias, row_stride, col_stride, count, terms, row, lane, out);
    for (; lane < lanes; lane += kGroup * kWidth<T>)
        affine_tile<T, R, kGroup>(in, lanes, scale, bias, row_stride, col_stride, count, terms, row, lane, out);
}

// Tiles of at most `most` rows, of nearly equal height: how high is the next one if `left` rows are left?
inline index_t next_tile(index_t left, index_t most) {
    const index_t tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

template <class T>
void lane_affine(index_t out_rows, index_t in, index_t lanes, T scale, const T* bias, index_t row_stride,
                 index_t col_stride, index_t count, const LaneTerm<T>* terms, T* out) {
#define PYHESS_ROWS(R)                                                                                 \
    case R:                                                                                            \
        if constexpr (R <= kAffineRows)                                                                \
            affine_rows<T, R>(in, lanes, scale, bias, row_stride, col_stride, count, terms, row, out); \
        break
    for (index_t row = 0; row < out_rows;) {
        const index_t rows = next_tile(out_rows - row, kAffineRows);
        switch (rows) {
            PYHESS_ROWS(1);
            PYHESS_ROWS(2);
            PYHESS_ROWS(3);
            PYHESS_ROWS(4);
            PYHESS_ROWS(5);
            PYHESS_ROWS(6);
        }
        row += rows;
    }
#undef PYHESS_ROWS
}

// ---- out += factor sum_t d_t a_t' ----

template <class T, int R, int C>
void outer_tile(index_t in, index_t lanes, T factor, index_t count, const LaneTerm<T>* terms, index_t row, index_t col,
                T* out) {
    Vec<T> sum[R][C] = {};
    for (index_t t = 0; t < count; ++t) {
        const T* d = terms[t].left + row * lanes;
        const T* a = terms[t].right + col * lanes;
        for (index_t lane = 0; lane < lanes; lane += kWidth<T>) {
            Vec<T> x[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) x[c] = load(a + c * lanes + lane);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const Vec<T> y = load(d + r * lanes + lane);
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) sum[r][c] += y * x[c];
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) out[(row + r) * in + col + c] += factor * sum_elements<T>(sum[r][c]);
}

// Columns of a tile with R rows, so that R * columns sums, one row and the columns themselves fit the registers.
constexpr int tile_columns(int rows) {
    return kRegisters == 32 ? (rows >= 4 ? 4 : 8) : (rows == 4 ? 3 : (rows == 3 ? 4 : (rows == 2 ? 5 : 8)));
}

template <class T, int R>
void outer_rows(index_t in, index_t lanes, T factor, index_t count, const LaneTerm<T>* terms, index_t row, T* out) {
#define PYHESS_COLUMNS(C)                                                                                        \
    case C:                                                                                                      \
        if constexpr (C <= tile_columns(R)) outer_tile<T, R, C>(in, lanes, factor, count, terms, row, col, out); \
        break
    for (index_t col = 0; col < in;) {
        const index_t columns = next_tile(in - col, tile_columns(R));
        switch (columns) {
            PYHESS_COLUMNS(1);
            PYHESS_COLUMNS(2);
            PYHESS_COLUMNS(3);
            PYHESS_COLUMNS(4);
            PYHESS_COLUMNS(5);
            PYHESS_COLUMNS(6);
            PYHESS_COLUMNS(7);
            PYHESS_COLUMNS(8);
        }
        col += columns;
    }
#undef PYHESS_COLUMNS
}

template <class T>
void lane_outer(index_t out_rows, index_t in, index_t lanes, T factor, index_t count, const LaneTerm<T>* terms,
                T* out) {
    for (index_t row = 0; row < out_rows;) {
        const index_t rows = next_tile(out_rows - row, 4);
        switch (rows) {
            case 1: outer_rows<T, 1>(in, lanes, factor, count, terms, row, out); break;
            case 2: outer_rows<T, 2>(in, lanes, factor, count, terms, row, out); break;
            case 3: outer_rows<T, 3>(in, lanes, factor, count, terms, row, out); break;
            case 4: outer_rows<T, 4>(in, lanes, factor, count, terms, row, out); break;
        }
        row += rows;
    }
}

// out[o] += factor * (sum of row o of x)
template <class T>
void lane_sums(index_t rows, index_t lanes, T factor, const T* x, T* out) {
    for (index_t row = 0; row < rows; ++row, x += lanes) {
        Vec<T> sum[kGroup] = {};
        for (index_t lane = 0; lane < lanes; lane += kGroup * kWidth<T>)
#pragma GCC unroll 8
            for (int n = 0; n < kGroup; ++n) sum[n] += load(x + lane + n * kWidth<T>);
        Vec<T> total = sum[0];
#pragma GCC unroll 8
        for (int n = 1; n < kGroup; ++n) total += sum[n];
        out[row] += factor * sum_elements<T>(total);
    }
}

}  // namespace
}  // namespace pyhess
