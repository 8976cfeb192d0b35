// The forward scan on a tile of token-major or of channel-major tensors.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels.h"
#include "scan_tiles.h"
#include "simd.h"
#include "transpose.h"

namespace dvmsr {
namespace {

// Tokens of channel-major tensors that are in the cache at a time; whole vectors.
constexpr int64_t run_of_tokens = 64;

// A tile of channel-major tensors: runs of tokens of a few blocks of channels are transposed into the
// cache, scanned there as token-major ones of the parameter type, and transposed back. Channels are
// padded to whole blocks with zeros.
template <class R, class Act>
struct ChannelMajorScan {
  using V = Vector<R>;
  static constexpr int64_t columns = 2 * W;  // of a buffer

  static int64_t scratch(int64_t tile_channels, int64_t N) {
    return token_major_scratch(tile_channels, N) + 2 * round_up(tile_channels, W) +
           run_of_tokens * (3 * columns + 2 * N);
  }

  explicit ChannelMajorScan(const ScanTile &tile)
      : t(tile), N(tile.state), width(tile.end_channel - tile.first_channel), local(buffered()), task(local) {
    task.in_memory = false;
  }

  template <int N0>
  void forward() {
    for (int64_t token = t.first_token; token < t.end_token; token += run_of_tokens) {
      const int64_t tokens = std::min(run_of_tokens, t.end_token - token);
      take_rows(t.B, token, tokens, B);
      take_rows(t.C, token, tokens, C);
      for (int64_t c = 0; c < width; c += columns) {
        take(t.u, c, columns, token, tokens, u);
        take(t.delta, c, columns, token, tokens, delta);
        if (z) take(t.z, c, columns, token, tokens, z);
        task.origin = c;
        for (int64_t block = c; block < std::min(c + columns, width); block += W)
          task.template channels_of<N0>(block, tokens);
        give(u, c, columns, token, tokens);
      }
    }
    task.finish();
  }

  template <int N0>
  void add_initial_state() {
    task.keep_initial_state();
    for (int64_t c = 0; c < width; c += W) {
      task.origin = c;
      bool more = true;
      for (int64_t token = t.first_token; more && token < t.end_token; token += run_of_tokens) {
        const int64_t tokens = std::min(run_of_tokens, t.end_token - token);
        take_rows(t.C, token, tokens, C);
        take(t.delta, c, W, token, tokens, delta);
        if (z) take(t.z, c, W, token, tokens, z);
        take(t.y, c, W, token, tokens, u);
        more = task.template add_initial_state_to<N0>(c, 0, tokens, W);
        give(u, c, W, token, tokens);
      }
    }
  }

 private:
  ScanTile buffered() {
    ScanTile tile = t;
    const int64_t padded = round_up(width, W), from = t.first_channel;
    R *next = static_cast<R *>(t.scratch) + token_major_scratch(width, N);
    const auto buffer = [&next](int64_t count) { return std::exchange(next, next + count); };
    R *skip = buffer(padded), *bias = buffer(padded);
    u = buffer(run_of_tokens * columns);
    delta = buffer(run_of_tokens * columns);
    z = buffer(run_of_tokens * columns);
    B = buffer(run_of_tokens * N);
    C = buffer(run_of_tokens * N);
    if (!t.z) z = nullptr;
    std::fill(skip, bias + padded, R(0));
    std::copy_n(static_cast<const R *>(t.D) + from, width, skip);
    std::copy_n(static_cast<const R *>(t.delta_bias) + from, width, bias);
    tile.channels = columns;
    tile.row_stride = N;
    tile.first_channel = 0;
    tile.end_channel = width;
    tile.u = tile.y = u;
    tile.delta = delta;
    tile.z = z;
    tile.B = B;
    tile.C = C;
    tile.D = skip;
    tile.delta_bias = bias;
    tile.A = static_cast<const R *>(t.A) + from * N;
    tile.h_first = t.h_first ? static_cast<const R *>(t.h_first) + from * N : nullptr;
    tile.h_end = static_cast<R *>(t.h_end) + from * N;
    tile.delta_sum = t.delta_sum ? static_cast<R *>(t.delta_sum) + from : nullptr;
    return tile;
  }

  // Tokens of up to `count` channels from c on of `from` (D, L) to a buffer; lanes beyond are zero.
  void take(const void *from, int64_t c, int64_t count, int64_t token, int64_t tokens, R *to) const {
    for (int64_t block = 0; block < count && c + block < width; block += W) {
      const int64_t channels = lanes_at(c + block, width);
      const Act *first = static_cast<const Act *>(from) + (t.first_channel + c + block) * t.length + token;
      const Act *next = first + (c + columns < width ? columns * t.length : run_of_tokens - c * t.length);
      to_tokens(first, t.length, channels, tokens, next, to + block, columns);
    }
  }

  // The same way back to y.
  void give(const R *from, int64_t c, int64_t count, int64_t token, int64_t tokens) const {
    for (int64_t block = 0; block < count && c + block < width; block += W) {
      Act *first = static_cast<Act *>(t.y) + (t.first_channel + c + block) * t.length + token;
      to_channels(from + block, columns, first, t.length, lanes_at(c + block, width), tokens);
    }
  }

  void take_rows(const void *from, int64_t token, int64_t tokens, R *to) const {
    rows_to_tokens(static_cast<const Act *>(from) + token, t.length, N, tokens, to);
  }

  const ScanTile &t;
  const int64_t N, width;
  R *u, *delta, *z, *B, *C;  // buffers; y replaces u in its own
  const ScanTile local;
  ScanTask<R, R> task;
};

int64_t scan_forward_scratch(int64_t tile_channels, int64_t N, bool channel_major) {
  return channel_major ? ChannelMajorScan<float, float>::scratch(tile_channels, N)
                       : token_major_scratch(tile_channels, N);
}

template <class R, class Act>
void scan_forward(const ScanTile &tile) {
  if (tile.channel_major) {
    ChannelMajorScan<R, Act> scan(tile);
    return with_states(tile.state, [&](auto states) { scan.template forward<states>(); });
  }
  ScanTask<R, Act> task(tile);
  with_states(tile.state, [&](auto states) { task.template forward<states>(); });
}

template <class R, class Act>
void scan_add_initial_state(const ScanTile &tile) {
  if (tile.channel_major) {
    ChannelMajorScan<R, Act> scan(tile);
    return with_states(tile.state, [&](auto states) { scan.template add_initial_state<states>(); });
  }
  ScanTask<R, Act> task(tile);
  with_states(tile.state, [&](auto states) { task.template add_initial_state<states>(); });
}

}  // namespace
}  // namespace dvmsr
