// Products of a few hundred rows with a matrix of weights that has been packed for them.
//
// Every value of a product is one sum over the depth, in order, however rows are grouped.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace dvmsr {
namespace {

// Rows and vectors of columns of a product that are summed up in registers.
constexpr int rows_at_once = 6;
constexpr int panel = W == 16 ? 4 : 2;

constexpr int64_t vectors_of(int64_t columns) { return (columns + W - 1) / W; }

// Values that the packed form of a (depth, columns) matrix takes.
constexpr int64_t packed_size(int64_t depth, int64_t columns) { return depth * vectors_of(columns) * W; }

// (depth, columns) weights into panels of up to `panel` vectors of columns, each a row of vectors per step
// of the depth; columns beyond are zero.
template <class Act>
void pack(const Act *from, int64_t depth, int64_t columns, float *to) {
  const int64_t vectors = vectors_of(columns);
  for (int64_t first = 0; first < vectors; first += panel)
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t v = first; v < std::min<int64_t>(vectors, first + panel); ++v, to += W) {
        const int64_t count = std::min<int64_t>(W, columns - v * W);
        store(to, load(from + k * columns + v * W, count));
      }
}

template <int Rows, int Vectors>
DVMSR_INLINE void product_tile(const float *a, int64_t a_stride, const float *weights, int64_t depth,
                               float *out, int64_t out_stride) {
  Vector<float> sum[Rows][Vectors];
  DVMSR_UNROLL for (int r = 0; r < Rows; ++r)
    DVMSR_UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] = Vector<float>{};
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k, weights += Vectors * W) {
    Vector<float> w[Vectors];
    DVMSR_UNROLL for (int v = 0; v < Vectors; ++v) w[v] = load(weights + v * W);
    DVMSR_UNROLL for (int r = 0; r < Rows; ++r) {
      const Vector<float> a_r = splat(a[r * a_stride + k]);
      DVMSR_UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] = fused(a_r, w[v], sum[r][v]);
    }
  }
  DVMSR_UNROLL for (int r = 0; r < Rows; ++r)
    DVMSR_UNROLL for (int v = 0; v < Vectors; ++v) store(out + r * out_stride + v * W, sum[r][v]);
}

template <int Vectors>
void product_panel(const float *a, int64_t a_stride, int64_t rows, const float *weights, int64_t depth,
                   float *out, int64_t out_stride) {
  int64_t r = 0;
  for (; r + rows_at_once <= rows; r += rows_at_once)
    product_tile<rows_at_once, Vectors>(a + r * a_stride, a_stride, weights, depth, out + r * out_stride,
                                        out_stride);
  for (; r + 2 <= rows; r += 2)
    product_tile<2, Vectors>(a + r * a_stride, a_stride, weights, depth, out + r * out_stride, out_stride);
  if (r < rows)
    product_tile<1, Vectors>(a + r * a_stride, a_stride, weights, depth, out + r * out_stride, out_stride);
}

// out (rows, whole vectors of columns) = a (rows, depth) times packed weights; rows lie a stride apart.
inline void product(const float *a, int64_t a_stride, int64_t rows, const float *packed, int64_t depth,
                    int64_t columns, float *out, int64_t out_stride) {
  for (int64_t vectors = vectors_of(columns); vectors > 0; vectors -= panel) {
    switch (std::min<int64_t>(vectors, panel)) {
      case 1: product_panel<1>(a, a_stride, rows, packed, depth, out, out_stride); break;
      case 2: product_panel<2>(a, a_stride, rows, packed, depth, out, out_stride); break;
      case 3: if constexpr (panel > 2) product_panel<3>(a, a_stride, rows, packed, depth, out, out_stride); break;
      default: if constexpr (panel > 2) product_panel<4>(a, a_stride, rows, packed, depth, out, out_stride);
    }
    packed += panel * W * depth;
    out += panel * W;
  }
}

}  // namespace
}  // namespace dvmsr
