// The selective scan (Mamba, arXiv 2312.00752, Algorithm 2) and its gradient on one tile.
//
// Channels sit in the vector lanes, the state index in the inner loop and time outermost: no sum
// crosses lanes, B_t and C_t are broadcast, and the states of all channels of the tile stay in the
// L1 cache. A is transposed to [state][lane] and premultiplied by log2(e) once per tile.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "kernels.h"
#include "simd.h"

namespace dvmsr {
namespace {

// Tokens that a block of channels takes at a time: their exponentials overlap, and A and the state
// are loaded once for all of them.
constexpr int tokens_at_once = 4;
// How far ahead memory is asked for.
constexpr int tokens_ahead = 16;

// The decay at which what remains of a state is left out.
template <class R>
constexpr R negligible = sizeof(R) == 8 ? R(0x1p-62) : R(0x1p-30);

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How many lanes of the block that starts at channel c are channels of the tile.
DVMSR_INLINE int64_t lanes_at(int64_t c, int64_t end) { return std::min<int64_t>(W, end - c); }

// (D, N) rows c .. c+count of `from` into N vectors; a null pointer reads as zero.
template <class R>
DVMSR_INLINE void load_states(const R *from, int64_t c, int64_t count, int64_t N, R factor, R *to) {
  for (int64_t n = 0; n < N; ++n)
    for (int64_t i = 0; i < W; ++i)
      to[n * W + i] = from && i < count ? from[(c + i) * N + n] * factor : R(0);
}
template <class R>
DVMSR_INLINE void store_states(R *to, int64_t c, int64_t count, int64_t N, const R *from) {
  for (int64_t n = 0; n < N; ++n)
    for (int64_t i = 0; i < count; ++i) to[(c + i) * N + n] = from[n * W + i];
}

// `count` rows of N values, `stride` apart, one after the other in the parameter type: in place where
// they lie so.
template <class R>
DVMSR_INLINE const R *rows(const R *from, int64_t count, int64_t N, int64_t stride, R *copy) {
  if (stride == N) return from;
  for (int64_t i = 0; i < count; ++i) std::copy_n(from + i * stride, N, copy + i * N);
  return copy;
}
DVMSR_INLINE void widen_row(const half *from, int64_t count, float *to) {
  for (int64_t n = 0; n < count; n += W)
    store(to + n, load(from + n, std::min<int64_t>(W, count - n)), std::min<int64_t>(W, count - n));
}
DVMSR_INLINE const float *rows(const half *from, int64_t count, int64_t N, int64_t stride, float *copy) {
  if (stride == N)
    widen_row(from, count * N, copy);
  else
    for (int64_t i = 0; i < count; ++i) widen_row(from + i * stride, N, copy + i * N);
  return copy;
}

// Calls run with the state size as a constant where it is a usual one, else with 0.
template <class Run>
void with_states(int64_t N, const Run &run) {
  switch (N) {
    case 1: return run(std::integral_constant<int, 1>{});
    case 8: return run(std::integral_constant<int, 8>{});
    case 16: return run(std::integral_constant<int, 16>{});
    default: return run(std::integral_constant<int, 0>{});
  }
}

int64_t token_major_scratch(int64_t tile_channels, int64_t N) {
  return 3 * round_up(tile_channels, W) * N + 2 * round_up(tile_channels, W) +
         2 * round_up(tokens_at_once * N, W);
}

template <class R, class Act>
struct ScanTask {
  using V = Vector<R>;

  explicit ScanTask(const ScanTile &tile)
      : t(tile),
        N(tile.state),
        stride(tile.channels),
        u(static_cast<const Act *>(tile.u)),
        delta(static_cast<const Act *>(tile.delta)),
        z(static_cast<const Act *>(tile.z)),
        B(static_cast<const Act *>(tile.B)),
        C(static_cast<const Act *>(tile.C)),
        skip(static_cast<const R *>(tile.D)),
        bias(static_cast<const R *>(tile.delta_bias)),
        y(static_cast<Act *>(tile.y)) {
    const int64_t padded = round_up(tile.end_channel - tile.first_channel, W);
    h = static_cast<R *>(tile.scratch);
    a = h + padded * N;
    first = a + padded * N;
    sum = first + padded * N;
    limit = sum + padded;
    B_row = limit + padded;
    C_row = B_row + round_up(tokens_at_once * N, W);
    for (int64_t c = t.first_channel; c < t.end_channel; c += W) {
      const int64_t at = (c - t.first_channel) * N, count = lanes_at(c, t.end_channel);
      load_states(static_cast<const R *>(t.A), c, count, N, log2e<R>, a + at);
      load_states(static_cast<const R *>(t.h_first), c, count, N, R(1), h + at);
    }
    std::fill(sum, sum + padded, R(0));
    for (int64_t c = 0; c < padded; c += W) {
      // Up to this delta every exponent of the channel lies in [-125, 0]; none such if an A is positive.
      V lowest{};
      auto decaying = lowest <= 0;
      for (int64_t n = 0; n < N; ++n) {
        const V an = load(a + c * N + n * W);
        lowest = an < lowest ? an : lowest;
        decaying &= an <= 0;
      }
      store(limit + c, decaying ? 125 / (0 - lowest) : splat(R(-1)));
    }
  }

  // T tokens of a block of `count` <= W channels from c on. N0: the state size where it is known, else 0.
  template <int T, int N0>
  DVMSR_INLINE void step(int64_t token, int64_t c, int64_t count, const R *B_t, const R *C_t) {
    const int64_t at = token * stride + c - origin, lane = c - t.first_channel;
    V d[T], drive[T], sum_n[T];
    const V bias_c = load(bias + c, count);
    if (in_memory) DVMSR_UNROLL for (int j = 0; j < T; ++j) fetch(at + (j + tokens_ahead) * stride);
    DVMSR_UNROLL for (int j = 0; j < T; ++j) d[j] = load(delta + at + j * stride, count) + bias_c;
    if (t.delta_softplus) softplus(d);
    const V limit_c = load(limit + lane);
    auto decaying = limit_c >= 0, ordinary = d[0] <= limit_c;
    DVMSR_UNROLL for (int j = 0; j < T; ++j) decaying &= d[j] >= 0;
    DVMSR_UNROLL for (int j = 1; j < T; ++j) ordinary &= d[j] <= limit_c;
    const V skip_c = load(skip + c, count);
    V total = load(sum + lane);
    DVMSR_UNROLL for (int j = 0; j < T; ++j) {
      const V x = load(u + at + j * stride, count);
      drive[j] = d[j] * x;
      sum_n[j] = skip_c * x;
      total += d[j];
    }
    store(sum + lane, total);
    if (all(decaying & ordinary))
      all_states<T, N0, Exponents::ordinary>(lane, d, drive, B_t, C_t, sum_n);
    else if (all(decaying))
      all_states<T, N0, Exponents::decaying>(lane, d, drive, B_t, C_t, sum_n);
    else
      all_states<T, N0, Exponents::any>(lane, d, drive, B_t, C_t, sum_n);
    if (z) {
      V gate[T];
      DVMSR_UNROLL for (int j = 0; j < T; ++j) {
        gate[j] = load(z + at + j * stride, count);
        sum_n[j] *= gate[j];
      }
      sigmoid(gate);
      DVMSR_UNROLL for (int j = 0; j < T; ++j) sum_n[j] *= gate[j];
    }
    DVMSR_UNROLL for (int j = 0; j < T; ++j) store(y + at + j * stride, sum_n[j], count);
  }

  // The states of T steps d, and what is read of them, added to sum_n.
  template <int T, int N0, Exponents E>
  DVMSR_INLINE void all_states(int64_t lane, const V (&d)[T], const V (&drive)[T], const R *B_t, const R *C_t,
                               V (&sum_n)[T]) {
    const int64_t states = N0 ? N0 : N;
    R *hc = h + lane * states;
    const R *ac = a + lane * states;
#pragma GCC unroll 1
    for (int64_t n = 0; n < states; ++n) {
      const V an = load(ac + n * W);
      V decay[T];
      DVMSR_UNROLL for (int j = 0; j < T; ++j) {
        decay[j] = d[j] * an;
        round_now(decay[j]);
      }
      exp2<E>(decay);
      V s = load(hc + n * W);
      DVMSR_UNROLL for (int j = 0; j < T; ++j) {
        s = fused(decay[j], s, drive[j] * splat(B_t[j * states + n]));
        sum_n[j] = fused(s, splat(C_t[j * states + n]), sum_n[j]);
      }
      store(hc + n * W, s);
    }
  }

  // Asks for a block of channels of all streams: their order is not one that processors foresee.
  DVMSR_INLINE void fetch(int64_t at) const {
    __builtin_prefetch(delta + at);
    __builtin_prefetch(u + at);
    if (z) __builtin_prefetch(z + at);
    __builtin_prefetch(y + at, 1);
  }

  template <int T, int N0>
  DVMSR_INLINE void all_channels(int64_t token) {
    const R *B_t = rows(B + token * t.row_stride, T, N, t.row_stride, B_row);
    const R *C_t = rows(C + token * t.row_stride, T, N, t.row_stride, C_row);
    for (int64_t c = t.first_channel; c < t.end_channel; c += W)
      step<T, N0>(token, c, lanes_at(c, t.end_channel), B_t, C_t);
  }

  template <int N0>
  void forward() {
    int64_t token = t.first_token;
    for (; token + tokens_at_once <= t.end_token; token += tokens_at_once)
      all_channels<tokens_at_once, N0>(token);
    for (; token < t.end_token; ++token) all_channels<1, N0>(token);
    finish();
  }

  // `tokens` tokens of the whole block of channels from c on, B and C in the parameter type and dense.
  template <int N0>
  void channels_of(int64_t c, int64_t tokens) {
    int64_t token = 0;
    for (; token + tokens_at_once <= tokens; token += tokens_at_once)
      step<tokens_at_once, N0>(token, c, W, B + token * N, C + token * N);
    for (; token < tokens; ++token) step<1, N0>(token, c, W, B + token * N, C + token * N);
  }

  void finish() {
    for (int64_t c = t.first_channel; c < t.end_channel; c += W)
      store_states(static_cast<R *>(t.h_end), c, lanes_at(c, t.end_channel), N,
                   h + (c - t.first_channel) * N);
    if (t.delta_sum)
      std::copy(sum, sum + (t.end_channel - t.first_channel),
                static_cast<R *>(t.delta_sum) + t.first_channel);
  }

  // y_t += silu(z_t) * C_t . (exp(A * delta since the tile's start) * h_first), for as long as any
  // decay of a channel block is above `negligible`, far below rounding of the largest values: what a
  // huge h_first leaves to far later tokens is exact to that, not to their own size. NaN and infinity
  // never end it, nor does anything where steps may be negative: a decay may then grow again.
  template <int N0>
  void add_initial_state() {
    keep_initial_state();
    for (int64_t c = t.first_channel; c < t.end_channel; c += W)
      add_initial_state_to<N0>(c, t.first_token, t.end_token, lanes_at(c, t.end_channel));
  }

  void keep_initial_state() { std::copy(h, h + round_up(t.end_channel - t.first_channel, W) * N, first); }

  // Whether it goes on beyond these tokens.
  template <int N0>
  bool add_initial_state_to(int64_t c, int64_t first_token, int64_t end_token, int64_t count) {
    const int64_t states = N0 ? N0 : N;
    R *hc = h + (c - t.first_channel) * states;
    const R *ac = a + (c - t.first_channel) * states, *fc = first + (c - t.first_channel) * states;
    for (int64_t token = first_token; token < end_token; ++token) {
      const int64_t at = token * stride + c - origin;
      const R *C_t = rows(C + token * t.row_stride, 1, states, t.row_stride, C_row);
      V d = load(delta + at, count) + load(bias + c, count);
      if (t.delta_softplus) d = softplus(d);
      V sum_n{};
      V alive{};
      for (int64_t n = 0; n < states; ++n) {
        const V s = exp2(d * load(ac + n * W)) * load(hc + n * W);
        store(hc + n * W, s);
        sum_n += s * C_t[n];
        const V f = load(fc + n * W);
        const V over = (s < 0 ? -s : s) - (f < 0 ? -f : f) * negligible<R>;
        alive = over <= 0 ? alive : splat(R(1));
      }
      if (z) {
        const V gate = load(z + at, count);
        sum_n *= gate * sigmoid(gate);
      }
      store(y + at, load(y + at, count) + sum_n, count);
      if (!t.delta_softplus) continue;
      R any = 0;
      for (int i = 0; i < W; ++i) any += alive[i];
      if (any == 0) return false;
    }
    return true;
  }

  const ScanTile &t;
  const int64_t N;
  const int64_t stride;   // from a token to the next in u, delta, z and y
  int64_t origin = 0;     // the channel that these begin with
  bool in_memory = true;  // rather than in the cache: they are asked for ahead
  const Act *u, *delta, *z, *B, *C;
  const R *skip, *bias;
  Act *y;
  R *h, *a, *first, *sum, *limit, *B_row, *C_row;
};

template <class R>
void scan_join(int64_t D, int64_t N, const void *A, const void *delta_sum, const void *previous,
               void *h_end) {
  const R *a = static_cast<const R *>(A), *before = static_cast<const R *>(previous);
  R *h = static_cast<R *>(h_end);
  for (int64_t c = 0; c < D; ++c)
    for (int64_t n = 0; n < N; ++n)
      h[c * N + n] += std::exp(a[c * N + n] * static_cast<const R *>(delta_sum)[c]) * before[c * N + n];
}

}  // namespace
}  // namespace dvmsr
