// Transposes W x W values in registers: within four lanes by ones and by pairs, for which all instruction sets
// have an instruction, then runs of four and of eight lanes.
#pragma once

#include <type_traits>
#include <utility>

#include "simd.h"

namespace dvmsr {
namespace {

template <class V, int... I>
DVMSR_INLINE V shuffled(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  using Index = std::conditional_t<sizeof(Lane<V>) == 8, Int64s, Int32s>;
  return __builtin_shuffle(a, b, Index{I...});
#endif
}
// What `From::lane(i)` names, for each lane i of the result: lane i of a, or lane i - W of b.
template <class From, class V, int... I>
DVMSR_INLINE V chosen(V a, V b, std::integer_sequence<int, I...>) {
  return shuffled(a, b, std::integer_sequence<int, From::lane(I)...>{});
}

// Of every four lanes of a and b the first two, or the last two (Part 1), in turns by ones or by pairs.
template <int Part>
struct Ones {
  static constexpr int lane(int i) { return i / 4 * 4 + i % 4 / 2 + 2 * Part + i % 2 * W; }
};
template <int Part>
struct Pairs {
  static constexpr int lane(int i) { return i / 4 * 4 + i % 2 + 2 * Part + i % 4 / 2 * W; }
};
// Of every two runs of S lanes of a and b the first, or the second (Part 1).
template <int S, int Part>
struct Runs {
  static constexpr int lane(int i) { return i % S + i / (2 * S) * 2 * S + Part * S + i / S % 2 * W; }
};

template <template <int> class From, class V>
DVMSR_INLINE void exchange(V &a, V &b) {
  constexpr auto lanes = std::make_integer_sequence<int, W>{};
  const V first = chosen<From<0>>(a, b, lanes), second = chosen<From<1>>(a, b, lanes);
  a = first;
  b = second;
}
template <int Part>
using Fours = Runs<4, Part>;
template <int Part>
using Eights = Runs<8, Part>;

// Lane i of v[j] becomes lane j of v[i].
template <class V>
DVMSR_INLINE void transpose(V (&v)[W]) {
  DVMSR_UNROLL for (int i = 0; i < W; i += 2) exchange<Ones>(v[i], v[i + 1]);
  DVMSR_UNROLL for (int i = 0; i < W; i += 4) {
    exchange<Pairs>(v[i], v[i + 2]);
    exchange<Pairs>(v[i + 1], v[i + 3]);
    std::swap(v[i + 1], v[i + 2]);
  }
  if constexpr (W >= 8)
    DVMSR_UNROLL for (int i = 0; i < W; ++i)
      if (i % 8 < 4) exchange<Fours>(v[i], v[i + 4]);
  if constexpr (W >= 16)
    DVMSR_UNROLL for (int i = 0; i < W; ++i)
      if (i % 16 < 8) exchange<Eights>(v[i], v[i + 8]);
}

// Tokens of up to W channels, whose rows lie `length` apart, to rows of `stride` values for each token;
// lanes beyond are zero, and rows are written in runs of W tokens. What will be transposed after them is
// asked for at `next`: processors do not foresee it.
template <class R, class Act>
DVMSR_INLINE void to_tokens(const Act *from, int64_t length, int64_t channels, int64_t tokens, const Act *next,
                            R *to, int64_t stride) {
  for (int64_t i = 0; i < tokens; i += W) {
    Vector<R> v[W];
    const int64_t seen = lanes_at(i, tokens);
    DVMSR_UNROLL for (int j = 0; j < W; ++j) __builtin_prefetch(next + j * length + i);
    DVMSR_UNROLL for (int j = 0; j < W; ++j)
      v[j] = j < channels ? load(from + j * length + i, seen) : Vector<R>{};
    transpose(v);
    DVMSR_UNROLL for (int j = 0; j < W; ++j) store(to + (i + j) * stride, v[j]);
  }
}

// The same way back.
template <class R, class Act>
DVMSR_INLINE void to_channels(const R *from, int64_t stride, Act *to, int64_t length, int64_t channels,
                              int64_t tokens) {
  for (int64_t i = 0; i < tokens; i += W) {
    Vector<R> v[W];
    const int64_t seen = lanes_at(i, tokens);
    DVMSR_UNROLL for (int j = 0; j < W; ++j) v[j] = load(from + (i + j) * stride);
    transpose(v);
    DVMSR_UNROLL for (int j = 0; j < W; ++j)
      if (j < channels) store(to + j * length + i, v[j], seen);
  }
}

// B or C, (N, L) of a group, to rows of N for each token.
template <class R, class Act>
DVMSR_INLINE void rows_to_tokens(const Act *from, int64_t length, int64_t N, int64_t tokens, R *to) {
  for (int64_t i = 0; i < tokens; i += W) {
    const int64_t seen = lanes_at(i, tokens);
    if (N == 1) {
      store(to + i, load(from + i, seen));
      continue;
    }
    for (int64_t n = 0; n < N; n += W) {
      Vector<R> v[W];
      const int64_t states = lanes_at(n, N);
      DVMSR_UNROLL for (int j = 0; j < W; ++j)
        v[j] = j < states ? load(from + (n + j) * length + i, seen) : Vector<R>{};
      transpose(v);
      DVMSR_UNROLL for (int j = 0; j < W; ++j) store(to + (i + j) * N + n, v[j], states);
    }
  }
}

}  // namespace
}  // namespace dvmsr
