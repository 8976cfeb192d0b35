// The causal depthwise convolution, with SiLU or without, and its gradient, on one tile. Rows of K weights are
// transposed once per tile, so that channels sit in the vector lanes.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "simd.h"

namespace dvmsr {
namespace {

int64_t conv_forward_scratch(int64_t channels, int64_t K) {
  return (channels + W - 1) / W * W * K;
}

template <bool Activation, class V>
DVMSR_INLINE V activated(V sum) {
  return Activation ? sum * sigmoid(sum) : sum;
}

template <class R, class Act, bool Activation>
void conv_forward(const ConvTile &t) {
  using V = Vector<R>;
  const int64_t D = t.channels, K = t.width;
  const int64_t stride = (D + W - 1) / W * W;
  R *w = static_cast<R *>(t.scratch);  // [tap][channel]
  for (int64_t k = 0; k < K; ++k)
    for (int64_t c = 0; c < stride; ++c)
      w[k * stride + c] = c < D ? static_cast<const R *>(t.weight)[c * K + k] : R(0);
  const Act *x = static_cast<const Act *>(t.x), *tail = static_cast<const Act *>(t.tail);
  const R *bias = static_cast<const R *>(t.bias);
  Act *y = static_cast<Act *>(t.y);
  // Token i of tail and x together; the tap k of token t reads number t + k.
  const auto token_row = [=](int64_t i) { return i < K - 1 ? tail + i * D : x + (i - (K - 1)) * D; };

  for (int64_t token = t.first_token; token < t.end_token; ++token) {
    int64_t c = 0;
    if (K == 4) {
      const Act *r0 = token_row(token), *r1 = token_row(token + 1), *r2 = token_row(token + 2),
                *r3 = x + token * D;
      for (; c + W <= D; c += W) {
        V sum = load(bias + c) + load(w + c) * load(r0 + c);
        sum += load(w + stride + c) * load(r1 + c);
        sum += load(w + 2 * stride + c) * load(r2 + c);
        sum += load(w + 3 * stride + c) * load(r3 + c);
        store(y + token * D + c, activated<Activation>(sum));
      }
    }
    for (; c < D; c += W) {
      const int64_t count = std::min<int64_t>(W, D - c);
      V sum = load(bias + c, count);
      for (int64_t k = 0; k < K; ++k)
        sum += load(w + k * stride + c) * load(token_row(token + k) + c, count);
      store(y + token * D + c, activated<Activation>(sum), count);
    }
  }
}

template <class R, class Act>
void conv_forward(const ConvTile &tile) {
  tile.activation ? conv_forward<R, Act, true>(tile) : conv_forward<R, Act, false>(tile);
}

int64_t conv_backward_scratch(int64_t tile_channels, int64_t K) {
  return (tile_channels + W - 1) / W * W * (2 * K + 1);
}

template <class R>
void conv_backward(const ConvBackwardTile &t) {
  using V = Vector<R>;
  const int64_t D = t.channels, K = t.width, L = t.length;
  const int64_t first = t.first_channel, end = t.end_channel;
  const int64_t stride = (end - first + W - 1) / W * W;
  R *w = static_cast<R *>(t.scratch), *w_sum = w + stride * K, *b_sum = w_sum + stride * K;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t c = 0; c < stride; ++c)
      w[k * stride + c] = first + c < end ? static_cast<const R *>(t.weight)[(first + c) * K + k] : R(0);
  std::fill(w_sum, b_sum + stride, R(0));

  const R *x = static_cast<const R *>(t.x), *tail = static_cast<const R *>(t.tail);
  const R *bias = static_cast<const R *>(t.bias), *dy = static_cast<const R *>(t.y_grad);
  R *dx = static_cast<R *>(t.x_grad), *dtail = static_cast<R *>(t.tail_grad);
  const auto token_row = [=](int64_t i) { return i < K - 1 ? tail + i * D : x + (i - (K - 1)) * D; };
  const auto grad_row = [=](int64_t i) { return i < K - 1 ? dtail + i * D : dx + (i - (K - 1)) * D; };

  // new_tail is the last K-1 of the L+K-1 tokens.
  for (int64_t i = 0; i < L + K - 1; ++i)
    for (int64_t c = first; c < end; ++c)
      grad_row(i)[c] = i < L ? R(0) : static_cast<const R *>(t.new_tail_grad)[(i - L) * D + c];

  for (int64_t token = 0; token < L; ++token)
    for (int64_t c = first; c < end; c += W) {
      const int64_t count = std::min<int64_t>(W, end - c), at = c - first;
      V grad = load(dy + token * D + c, count);
      if (t.activation) {
        V sum = load(bias + c, count);
        for (int64_t k = 0; k < K; ++k)
          sum += load(w + k * stride + at) * load(token_row(token + k) + c, count);
        const V open = sigmoid(sum);
        grad *= open * (1 + sum - sum * open);
      }
      store(b_sum + at, load(b_sum + at) + grad);
      for (int64_t k = 0; k < K; ++k) {
        R *to = w_sum + k * stride + at, *row = grad_row(token + k) + c;
        store(to, load(to) + grad * load(token_row(token + k) + c, count));
        store(row, load(row, count) + grad * load(w + k * stride + at), count);
      }
    }

  for (int64_t c = first; c < end; ++c) {
    static_cast<R *>(t.bias_grad)[c] = b_sum[c - first];
    for (int64_t k = 0; k < K; ++k)
      static_cast<R *>(t.weight_grad)[c * K + k] = w_sum[k * stride + c - first];
  }
}

}  // namespace
}  // namespace dvmsr
