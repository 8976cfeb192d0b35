// The backward scan on a tile of token-major or of channel-major tensors.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels.h"
#include "scan_tiles.h"
#include "simd.h"
#include "transpose.h"

namespace dvmsr {
namespace {

// The gradient keeps the state before every `segment` tokens, recomputes one segment at a time into
// the cache, and walks it backwards.
constexpr int64_t segment = 32;

int64_t scan_backward_scratch(int64_t L, int64_t tile_channels, int64_t N, bool channel_major) {
  const int64_t block = W * N, blocks = round_up(tile_channels, W) / W;
  const int64_t kept = (L + segment - 1) / segment;
  return blocks * block * (3 + kept) + block * (2 * segment + 1) + block * 2 * segment +
         4 * W * segment + 2 * blocks * W + (channel_major ? segment * (7 * W + 2 * N) : 0);
}

// Usual: softplus and a gate, known at compile time. Channel-major tensors are transposed into the cache,
// a segment of a block of channels at a time, and what comes of them is transposed back.
template <class R, bool Usual, bool ChannelMajor>
struct ScanGradient {
  using V = Vector<R>;

  explicit ScanGradient(const ScanBackwardTile &tile) : t(tile), D(tile.channels), N(tile.state) {
    block = W * N;
    blocks = round_up(t.end_channel - t.first_channel, W) / W;
    R *next = static_cast<R *>(t.scratch);
    const auto take = [&next](int64_t count) { return std::exchange(next, next + count); };
    a = take(blocks * block);
    g = take(blocks * block);
    A_sum = take(blocks * block);
    kept = take(blocks * block * ((t.length + segment - 1) / segment));
    h = take(block * (segment + 1));
    decay = take(block * segment);
    B_sum = take(block * segment);
    C_sum = take(block * segment);
    step = take(W * segment);
    raw = take(W * segment);
    unit = take(W * segment);
    plain = take(W * segment);
    D_sum = take(blocks * W);
    bias_sum = take(blocks * W);
    stride = ChannelMajor ? W : D;
    row_stride = ChannelMajor ? N : t.row_stride;
    if (ChannelMajor) {
      for (R **buffer : {&taken.u, &taken.delta, &taken.z, &taken.y_grad, &u_grad, &delta_grad, &z_grad})
        *buffer = take(segment * W);
      taken.B = take(segment * N);
      taken.C = take(segment * N);
    }
  }

  static const R *in(const void *p) { return static_cast<const R *>(p); }
  static R *out(void *p) { return static_cast<R *>(p); }
  static R sum_of_lanes(const R *lanes) {
    R sum = 0;
    for (int64_t lane = 0; lane < W; ++lane) sum += lanes[lane];
    return sum;
  }

  // Lets u, delta and, for the way back, what else belongs to each channel point to the first of these
  // tokens of block b. `next` is the first token that will be asked for after them.
  void enter(int64_t b, int64_t first, int64_t end, int64_t next, bool back) {
    const int64_t c = t.first_channel + b * W;
    if constexpr (ChannelMajor) {
      const auto from = [&](const void *tensor, R *buffer) {
        const R *rows = in(tensor) + c * t.length;
        to_tokens(rows + first, t.length, lanes_at(c, t.end_channel), end - first, rows + next, buffer, W);
        return buffer;
      };
      u = from(t.u, taken.u);
      delta = from(t.delta, taken.delta);
      if (back) y_grad = from(t.y_grad, taken.y_grad);
      if (back && t.z) z = from(t.z, taken.z);
    } else {
      const int64_t at = first * D + c;
      u = in(t.u) + at;
      delta = in(t.delta) + at;
      y_grad = in(t.y_grad) + at;
      u_grad = out(t.u_grad) + at;
      delta_grad = out(t.delta_grad) + at;
      if (!t.z) return;
      z = in(t.z) + at;
      z_grad = out(t.z_grad) + at;
    }
  }

  // The same for B and C, which all blocks share.
  void enter_rows(int64_t first, int64_t end) {
    if constexpr (ChannelMajor) {
      rows_to_tokens(in(t.B) + first, t.length, N, end - first, taken.B);
      rows_to_tokens(in(t.C) + first, t.length, N, end - first, taken.C);
      B = taken.B;
      C = taken.C;
    } else {
      B = in(t.B) + first * row_stride;
      C = in(t.C) + first * row_stride;
    }
  }

  // Puts the gradients of these tokens of block b where they belong.
  void leave(int64_t b, int64_t first, int64_t end) const {
    if constexpr (ChannelMajor) {
      const int64_t c = t.first_channel + b * W, at = c * t.length + first;
      const auto give = [&](const R *buffer, void *tensor) {
        to_channels(buffer, W, out(tensor) + at, t.length, lanes_at(c, t.end_channel), end - first);
      };
      give(u_grad, t.u_grad);
      give(delta_grad, t.delta_grad);
      if (t.z) give(z_grad, t.z_grad);
    }
  }

  // States after the tokens of block b, from the state in h[0]; `Keep`: all of them, the
  // decays and y before the gate, for the way back; otherwise only the last, in h[0].
  template <int N0, bool Keep>
  void recompute(int64_t b, int64_t tokens) {
    int64_t i = 0;
    for (; i + tokens_at_once <= tokens; i += tokens_at_once) advance<tokens_at_once, N0, Keep>(b, i);
    for (; i < tokens; ++i) advance<1, N0, Keep>(b, i);
  }

  // T tokens of block b, the first of them number i of its segment.
  template <int T, int N0, bool Keep>
  DVMSR_INLINE void advance(int64_t b, int64_t i) {
    const int64_t states = N0 ? N0 : N;
    const int64_t c = t.first_channel + b * W, count = lanes_at(c, t.end_channel);
    const V skip = load(in(t.D) + c, count), bias = load(in(t.delta_bias) + c, count);
    const R *ab = a + b * W * states;
    const R *B_t = B + i * row_stride, *C_t = C + i * row_stride;
    V d[T], drive[T], sum_n[T];
    DVMSR_UNROLL for (int j = 0; j < T; ++j) {
      d[j] = load(delta + (i + j) * stride, count) + bias;
      if (Keep) store(raw + (i + j) * W, d[j]);
    }
    if (Usual || t.delta_softplus) softplus(d);
    DVMSR_UNROLL for (int j = 0; j < T; ++j) {
      const V x = load(u + (i + j) * stride, count);
      drive[j] = d[j] * x;
      sum_n[j] = skip * x;
      if (Keep) {
        store(step + (i + j) * W, d[j]);
        store(unit + (i + j) * W, x);
      }
    }
    R *hb = Keep ? h + i * W * states : h;
    for (int64_t n = 0; n < states; ++n) {
      const V an = load(ab + n * W);
      V s = load(hb + n * W);
      V e[T];
      DVMSR_UNROLL for (int j = 0; j < T; ++j) e[j] = d[j] * an;
      exp2<Exponents::any>(e);
      DVMSR_UNROLL for (int j = 0; j < T; ++j) {
        s = fused(e[j], s, drive[j] * splat(B_t[j * row_stride + n]));
        if (Keep) {
          store(hb + ((j + 1) * states + n) * W, s);
          store(decay + ((i + j) * states + n) * W, e[j]);
          sum_n[j] = fused(s, splat(C_t[j * row_stride + n]), sum_n[j]);
        }
      }
      if (!Keep) store(hb + n * W, s);
    }
    if (Keep)
      DVMSR_UNROLL for (int j = 0; j < T; ++j) store(plain + (i + j) * W, sum_n[j]);
  }

  // The way back through the tokens of block b; g holds dLoss/dh after the last of them.
  template <int N0>
  void reverse(int64_t b, int64_t tokens) {
    const int64_t states = N0 ? N0 : N;
    const int64_t c = t.first_channel + b * W, count = lanes_at(c, t.end_channel);
    const V skip = load(in(t.D) + c, count);
    const R *ab = a + b * W * states;
    R *gb = g + b * W * states, *Ab = A_sum + b * W * states;
    V D_b = load(D_sum + b * W), bias_b = load(bias_sum + b * W);
    for (int64_t i = tokens - 1; i >= 0; --i) {
      const int64_t at = i * stride;
      const V d = load(step + i * W), x = load(unit + i * W);
      V dp = load(y_grad + at, count);  // gradient of y, and once past the gate, of y before it
      if (Usual || t.z) {
        const V gate = load(z + at, count), open = sigmoid(gate);
        const V silu = gate * open;
        store(z_grad + at, dp * load(plain + i * W) * open * (1 + gate - silu), count);
        dp *= silu;
      }
      const V drive = d * x;
      const R *B_t = B + i * row_stride, *C_t = C + i * row_stride;
      const R *hb = h + i * W * states, *ha = hb + W * states, *eb = decay + i * W * states;
      R *Bs = B_sum + i * W * states, *Cs = C_sum + i * W * states;
      V drive_grad{}, step_grad{};
#pragma GCC unroll 16
      for (int64_t n = 0; n < states; ++n) {
        const V gn = load(gb + n * W) + dp * C_t[n];
        store(Cs + n * W, load(Cs + n * W) + dp * load(ha + n * W));
        store(Bs + n * W, load(Bs + n * W) + gn * drive);
        drive_grad += gn * B_t[n];
        const V back = gn * load(eb + n * W);
        store(gb + n * W, back);
        const V q = back * load(hb + n * W);
        step_grad += q * load(ab + n * W);
        store(Ab + n * W, load(Ab + n * W) + q * d);
      }
      store(u_grad + at, drive_grad * d + dp * skip, count);
      V through = step_grad * (1 / log2e<R>) + drive_grad * x;
      if (Usual || t.delta_softplus) through *= sigmoid(load(raw + i * W));
      store(delta_grad + at, through, count);
      D_b += dp * x;
      bias_b += through;
    }
    store(D_sum + b * W, D_b);
    store(bias_sum + b * W, bias_b);
  }

  template <int N0>
  void backward() {
    const int64_t states = N0 ? N0 : N;
    const int64_t segments = (t.length + segment - 1) / segment;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t c = t.first_channel + b * W, count = lanes_at(c, t.end_channel);
      load_states(in(t.A), c, count, states, log2e<R>, a + b * block);
      load_states(in(t.h_last_grad), c, count, states, R(1), g + b * block);
      load_states(in(t.h0), c, count, states, R(1), h);
      for (int64_t s = 0; s < segments; ++s) {
        std::copy(h, h + block, kept + (b * segments + s) * block);
        if (s + 1 == segments) continue;
        const int64_t first = s * segment, end = first + segment;
        enter(b, first, end, end, false);
        enter_rows(first, end);
        recompute<N0, false>(b, segment);
      }
    }
    std::fill(A_sum, A_sum + blocks * block, R(0));
    std::fill(D_sum, D_sum + blocks * W, R(0));
    std::fill(bias_sum, bias_sum + blocks * W, R(0));
    for (int64_t s = segments - 1; s >= 0; --s) {
      const int64_t first = s * segment, end = std::min(t.length, first + segment);
      std::fill(B_sum, B_sum + block * (end - first), R(0));
      std::fill(C_sum, C_sum + block * (end - first), R(0));
      enter_rows(first, end);
      for (int64_t b = 0; b < blocks; ++b) {
        std::copy_n(kept + (b * segments + s) * block, block, h);
        const int64_t next = b + 1 < blocks ? first + W * t.length : first - segment;
        enter(b, first, end, next, true);
        recompute<N0, true>(b, end - first);
        reverse<N0>(b, end - first);
        leave(b, first, end);
      }
      for (int64_t i = 0; i < end - first; ++i)
        for (int64_t n = 0; n < states; ++n) {
          const int64_t at = ChannelMajor ? n * t.length + first + i : (first + i) * states + n;
          out(t.B_grad)[at] = sum_of_lanes(B_sum + (i * states + n) * W);
          out(t.C_grad)[at] = sum_of_lanes(C_sum + (i * states + n) * W);
        }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t c = t.first_channel + b * W, count = lanes_at(c, t.end_channel);
      store_states(out(t.A_grad), c, count, states, A_sum + b * block);
      store_states(out(t.h0_grad), c, count, states, g + b * block);
      std::copy_n(D_sum + b * W, count, out(t.D_grad) + c);
      std::copy_n(bias_sum + b * W, count, out(t.delta_bias_grad) + c);
    }
  }

  const ScanBackwardTile &t;
  const int64_t D, N;
  int64_t block, blocks;
  int64_t stride, row_stride;  // from a token to the next: of what each channel has, and of B and C
  const R *u, *delta, *z, *y_grad, *B, *C;
  R *u_grad, *delta_grad, *z_grad;
  struct {
    R *u, *delta, *z, *y_grad, *B, *C;
  } taken;  // buffers of a segment
  R *a, *g, *A_sum, *kept, *h, *decay, *B_sum, *C_sum, *step, *raw, *unit, *plain, *D_sum, *bias_sum;
};

template <class R, bool Usual, bool ChannelMajor>
void scan_backward(const ScanBackwardTile &tile) {
  ScanGradient<R, Usual, ChannelMajor> gradient(tile);
  with_states(tile.state, [&](auto states) { gradient.template backward<states>(); });
}

template <class R>
void scan_backward(const ScanBackwardTile &tile) {
  const bool usual = tile.z && tile.delta_softplus;
  if (tile.channel_major)
    usual ? scan_backward<R, true, true>(tile) : scan_backward<R, false, true>(tile);
  else
    usual ? scan_backward<R, true, false>(tile) : scan_backward<R, false, false>(tile);
}

}  // namespace
}  // namespace dvmsr
