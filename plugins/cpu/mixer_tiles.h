// What comes before and after the scan of a MambaMixer, on a block of tokens that stays in the cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <utility>

#include "mixer.h"
#include "products.h"
#include "scan_tiles.h"
#include "simd.h"

namespace dvmsr {
namespace {

// Values that a row takes: an odd number of vectors, so that a column of rows spreads over the cache.
constexpr int64_t row_of(int64_t channels) { return (vectors_of(channels) | 1) * W; }

template <class Act>
void widen_rows(const Act *from, int64_t stride, int64_t rows, int64_t columns, float *to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += W)
      store(to + r * to_stride + c, load(from + r * stride + c, lanes_at(c, columns)));
}

template <class Act>
void narrow_rows(const float *from, int64_t stride, int64_t rows, int64_t columns, Act *to) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += W)
      store(to + r * columns + c, load(from + r * stride + c), lanes_at(c, columns));
}

// Of the vectors and matrices of a mixer; what it lacks takes its place, too.
int64_t mixer_packed_size(const Mixer &m) {
  const int64_t C = m.channels, D = m.inner, N = m.state, R = m.rank;
  return 2 * round_up(C, W) + 2 * packed_size(C, D) + (m.width + 3) * round_up(D, W) + packed_size(D, 2 * N + R) +
         packed_size(R, D) + round_up(D * N, W) + packed_size(D, m.out_channels);
}

template <class Act>
void mixer_pack(const dvmsr_mixer_weights &w, Mixer &m, float *next) {
  const int64_t C = m.channels, D = m.inner, N = m.state, R = m.rank, K = m.width;
  const int64_t columns = 2 * N + R, norm = round_up(C, W), row = round_up(D, W);
  m.stride = row_of(D);
  m.projected = row_of(columns);
  std::fill_n(next, mixer_packed_size(m), 0.f);
  const auto take = [&next](int64_t count) { return std::exchange(next, next + count); };
  const auto act = [](const void *values) { return static_cast<const Act *>(values); };
  const auto par = [](const void *values) { return static_cast<const float *>(values); };
  m.norm_weight = take(norm);
  m.norm_bias = take(norm);
  m.in_proj_x = take(packed_size(C, D));
  m.in_proj_z = take(packed_size(C, D));
  m.taps = take(K * row);
  m.conv_bias = take(row);
  m.D = take(row);
  m.delta_bias = take(row);
  m.x_proj = take(packed_size(D, columns));
  m.dt_proj = take(packed_size(R, D));
  m.A = take(round_up(D * N, W));
  m.out_proj = take(packed_size(D, m.out_channels));
  if (m.has_norm) {
    widen_rows(act(w.norm_weight), 0, 1, C, m.norm_weight, 0);
    widen_rows(act(w.norm_bias), 0, 1, C, m.norm_bias, 0);
  }
  if (m.has_in_proj) {
    pack(act(w.in_proj_x), C, D, m.in_proj_x);
    pack(act(w.in_proj_z), C, D, m.in_proj_z);
  }
  for (int64_t c = 0; c < D; ++c)
    for (int64_t k = 0; k < K; ++k) m.taps[k * row + c] = par(w.conv1d_weight)[c * K + k];
  std::copy_n(par(w.conv1d_bias), D, m.conv_bias);
  std::copy_n(par(w.D), D, m.D);
  std::copy_n(par(w.delta_bias), D, m.delta_bias);
  std::copy_n(par(w.A), D * N, m.A);
  const std::unique_ptr<Act[]> rows(new Act[static_cast<size_t>(D * columns)]);
  for (int64_t c = 0; c < D; ++c) {
    std::copy_n(act(w.x_proj_B) + c * N, N, &rows[c * columns]);
    std::copy_n(act(w.x_proj_C) + c * N, N, &rows[c * columns + N]);
    std::copy_n(act(w.x_proj_dt) + c * R, R, &rows[c * columns + 2 * N]);
  }
  pack(rows.get(), D, columns, m.x_proj);
  pack(act(w.dt_proj), R, D, m.dt_proj);
  if (m.has_out_proj) pack(act(w.out_proj), D, m.out_channels, m.out_proj);
}

// Of the rows of a block: x, and what the convolution reads; x_proj's results and out_proj's.
int64_t mixer_scratch(const Mixer &m) {
  const int64_t rows = mixer_tokens + m.width - 1;
  return rows * (row_of(m.channels) + m.stride) + mixer_tokens * std::max(m.projected, row_of(m.out_channels));
}

DVMSR_INLINE float sum_of_lanes(Vector<float> v) {
#if DVMSR_LANES == 16 && defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);
#else
  float lane[W];
  store(lane, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
#endif
}

// LayerNorm of rows of C channels: lanes beyond are zero.
template <class Act>
void normalise(const Mixer &m, const Act *x, int64_t rows, float *to, int64_t stride) {
  const int64_t C = m.channels, whole = C / W * W;
  for (int64_t r = 0; r < rows; ++r, x += C, to += stride) {
    Vector<float> sum{}, squares{};
    for (int64_t c = 0; c < C; c += W) {
      const Vector<float> v = load(x + c, lanes_at(c, C));
      store(to + c, v);
      sum += v;
    }
    const Vector<float> mean = splat(sum_of_lanes(sum) / static_cast<float>(C));
    for (int64_t c = 0; c < whole; c += W) {
      const Vector<float> v = load(to + c) - mean;
      squares += v * v;
    }
    if (whole < C) {
      float rest[W];
      store(rest, load(to + whole) - mean);
      const Vector<float> v = load(rest, C - whole);
      squares += v * v;
    }
    const float variance = sum_of_lanes(squares) / static_cast<float>(C);
    const Vector<float> scale = splat(1 / std::sqrt(variance + m.epsilon));
    for (int64_t c = 0; c < C; c += W)
      store(to + c, (load(to + c) - mean) * scale * load(m.norm_weight + c) + load(m.norm_bias + c));
  }
}

// u = SiLU(conv1d) of T tokens; x begins K - 1 tokens before the first.
template <int T>
DVMSR_INLINE void convolve(const Mixer &m, const float *x, float *u) {
  const int64_t row = round_up(m.inner, W);
  for (int64_t c = 0; c < row; c += W) {
    Vector<float> sum[T], open[T];
    DVMSR_UNROLL for (int j = 0; j < T; ++j) sum[j] = load(m.conv_bias + c);
    for (int64_t k = 0; k < m.width; ++k) {
      const Vector<float> tap = load(m.taps + k * row + c);
      DVMSR_UNROLL for (int j = 0; j < T; ++j) sum[j] = fused(tap, load(x + (j + k) * m.stride + c), sum[j]);
    }
    DVMSR_UNROLL for (int j = 0; j < T; ++j) open[j] = sum[j];
    sigmoid(open);
    DVMSR_UNROLL for (int j = 0; j < T; ++j) store(u + j * m.stride + c, sum[j] * open[j]);
  }
}

// From x to what the scan reads.
template <class Act>
void mixer_before(const MixerTile &t) {
  const Mixer &m = *t.mixer;
  const int64_t C = m.channels, D = m.inner, N = m.state, history = m.width - 1;
  const int64_t tokens = t.end_token - t.first_token, width = row_of(C);
  // Tokens of x that are computed anew, and those of the tail, before the block's own.
  const int64_t again = std::min(history, t.first_token), from_tail = history - again;
  const int64_t rows = again + tokens;
  const Act *x = static_cast<const Act *>(t.x) + (t.first_token - again) * C;
  float *normed = t.scratch, *seen = normed + (mixer_tokens + history) * width;
  float *projected = seen + (mixer_tokens + history) * m.stride, *convolved = seen + from_tail * m.stride;
  // Token first_token - history + i of tail and x together is row i of `seen`.
  if (from_tail)
    widen_rows(static_cast<const Act *>(t.tail) + t.first_token * D, D, from_tail, D, seen, m.stride);
  if (m.has_norm)
    normalise(m, x, rows, normed, width);
  else if (m.has_in_proj)
    widen_rows(x, C, rows, C, normed, width);
  if (m.has_in_proj) {
    product(normed, width, rows, m.in_proj_x, C, D, convolved, m.stride);
    product(normed + again * width, width, tokens, m.in_proj_z, C, D, t.block.z, m.stride);
  } else if (m.has_norm) {
    widen_rows(normed, width, rows, D, convolved, m.stride);
    widen_rows(normed + again * width + D, width, tokens, D, t.block.z, m.stride);
  } else {
    widen_rows(x, C, rows, D, convolved, m.stride);
    widen_rows(x + again * C + D, C, tokens, D, t.block.z, m.stride);
  }
  if (t.new_tail)
    for (int64_t i = 0; i < history; ++i)
      narrow_rows(seen + (tokens + i) * m.stride, 0, 1, D, static_cast<Act *>(t.new_tail) + i * D);
  int64_t token = 0;
  for (; token + tokens_at_once <= tokens; token += tokens_at_once)
    convolve<tokens_at_once>(m, seen + token * m.stride, t.block.u + token * m.stride);
  for (; token < tokens; ++token) convolve<1>(m, seen + token * m.stride, t.block.u + token * m.stride);
  product(t.block.u, m.stride, tokens, m.x_proj, D, 2 * N + m.rank, projected, m.projected);
  for (int64_t i = 0; i < tokens; ++i) {
    std::copy_n(projected + i * m.projected, N, t.block.B + i * N);
    std::copy_n(projected + i * m.projected + N, N, t.block.C + i * N);
  }
  product(projected + 2 * N, m.projected, tokens, m.dt_proj, m.rank, D, t.block.delta, m.stride);
}

// From the scan's y, which is where u was, to the operator's.
template <class Act>
void mixer_after(const MixerTile &t) {
  const Mixer &m = *t.mixer;
  const int64_t tokens = t.end_token - t.first_token, E = m.out_channels;
  Act *y = static_cast<Act *>(t.y) + t.first_token * E;
  if (!m.has_out_proj) return narrow_rows(t.block.u, m.stride, tokens, E, y);
  product(t.block.u, m.stride, tokens, m.out_proj, m.inner, E, t.scratch, row_of(E));
  narrow_rows(t.scratch, row_of(E), tokens, E, y);
}

// The scan of some blocks of channels, which goes on from block to block of tokens.
struct MixerScan {
  MixerScan(const Mixer &m, int64_t first, int64_t end, const float *h0, float *h_last, void *scratch)
      : tile(tile_of(m, first, end, h0, h_last, scratch)), task(tile) {
    task.in_memory = false;
  }

  static ScanTile tile_of(const Mixer &m, int64_t first, int64_t end, const float *h0, float *h_last,
                          void *scratch) {
    ScanTile tile{};
    tile.channels = m.stride;
    tile.state = tile.row_stride = m.state;
    tile.delta_softplus = true;
    tile.first_channel = first;
    tile.end_channel = end;
    tile.A = m.A;
    tile.D = m.D;
    tile.delta_bias = m.delta_bias;
    tile.h_first = h0;
    tile.h_end = h_last;
    tile.scratch = scratch;
    return tile;
  }

  void run(const MixerBlock &block, int64_t tokens) {
    task.u = task.y = block.u;
    task.delta = block.delta;
    task.z = block.z;
    task.B = block.B;
    task.C = block.C;
    with_states(tile.state, [&](auto states) {
      for (int64_t c = tile.first_channel; c < tile.end_channel; c += W)
        task.template channels_of<states>(c, tokens);
    });
  }

  const ScanTile tile;
  ScanTask<float, float> task;
};

void mixer_scan_begin(void *scan, const Mixer &m, int64_t first, int64_t end, const float *h0, float *h_last,
                      void *scratch) {
  new (scan) MixerScan(m, first, end, h0, h_last, scratch);
}
void mixer_scan_run(void *scan, const MixerBlock &block, int64_t tokens) {
  static_cast<MixerScan *>(scan)->run(block, tokens);
}
void mixer_scan_end(void *scan) { static_cast<MixerScan *>(scan)->task.finish(); }

}  // namespace
}  // namespace dvmsr
