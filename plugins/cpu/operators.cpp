// The C interface: checks the arguments, splits the work into tiles, and runs them.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "call.h"
#include "dvmsr_ops.h"
#include "executor.h"
#include "kernels.h"

namespace dvmsr {
namespace {

const Kernels &select_kernels() {
#if defined(DVMSR_WITH_X86_KERNELS)
  const char *wanted = std::getenv("DVMSR_ISA");
  const auto allowed = [wanted](const char *isa) {
    if (!wanted) return true;
    if (!std::strcmp(wanted, "baseline")) return false;
    return std::strcmp(wanted, "avx2") != 0 || !std::strcmp(isa, "avx2");
  };
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && allowed("avx512"))
    return kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && allowed("avx2"))
    return kernels_avx2;
#endif
  return kernels_baseline;
}

}  // namespace

const Kernels &kernels() {
  static const Kernels &chosen = select_kernels();
  return chosen;
}

namespace {

bool valid(dvmsr_dtype dtype, int64_t batch, int64_t length, int64_t channels, int64_t inner) {
  return dtype >= DVMSR_F32 && dtype <= DVMSR_F64 && batch >= 0 && length >= 0 && channels > 0 &&
         inner > 0;
}
bool valid(const dvmsr_scan_inputs &in) {
  return valid(in.dtype, in.batch, in.length, in.channels, in.state) && in.groups > 0 &&
         in.channels % in.groups == 0;
}
bool valid(const dvmsr_conv_inputs &in) {
  return valid(in.dtype, in.batch, in.length, in.channels, in.width);
}

// The D channels in blocks of whole vectors, about `wanted` of them and as equal as possible, none of
// which straddles one of the G groups that share rows of B and C.
struct Blocks {
  Blocks(int64_t channels, int64_t groups, int64_t wanted, int64_t lanes)
      : per_group(channels / groups),
        width(ceil_div(ceil_div(per_group, lanes),
                       std::clamp<int64_t>(ceil_div(wanted, groups), 1, ceil_div(per_group, lanes))) *
              lanes),
        in_group(ceil_div(per_group, width)),
        count(groups * in_group) {}
  int64_t group(int64_t block) const { return block / in_group; }
  int64_t first(int64_t block) const { return group(block) * per_group + block % in_group * width; }
  int64_t end(int64_t block) const {
    return std::min((group(block) + 1) * per_group, first(block) + width);
  }
  int64_t per_group, width, in_group, count;
};

// How a forward scan is cut: batch x blocks of channels first, which costs nothing, then, where that is
// too little for the threads, sequence chunks, which costs a correction pass.
struct ScanPlan {
  ScanPlan(const dvmsr_scan_inputs &in, int threads, int64_t lanes)
      : blocks(in.channels, in.groups,
               // As many blocks as threads, so that none waits for another, but no narrow ones:
               // they read every row of memory in pieces.
               std::min(ceil_div(threads, std::max<int64_t>(1, in.batch)), ceil_div(in.channels, 32)),
               lanes) {
    const int64_t tiles = in.batch * blocks.count;
    chunks = tiles == 0 || tiles >= threads
                 ? 1
                 : std::clamp<int64_t>(ceil_div(2 * threads, tiles), 1,
                                       std::max<int64_t>(1, in.length / shortest_chunk));
    chunk = std::max<int64_t>(1, ceil_div(in.length, chunks));
    chunks = std::max<int64_t>(1, ceil_div(in.length, chunk));
  }
  static constexpr int64_t shortest_chunk = 512;
  Blocks blocks;
  int64_t chunks, chunk;
};

dvmsr_status scan_forward(const dvmsr_scan_inputs &in, const dvmsr_scan_outputs &out,
                          const dvmsr_executor *executor) {
  if (!valid(in)) return DVMSR_INVALID_ARGUMENT;
  const Kernels &k = kernels();
  const int64_t act = act_size(in.dtype), par = par_size(in.dtype);
  const int64_t L = in.length, D = in.channels, N = in.state, row = in.groups * N;
  const ScanPlan plan(in, threads_of(executor), k.lanes);
  const Blocks &blocks = plan.blocks;
  const int64_t per_tile = k.scan_forward_scratch(blocks.width, N, in.channel_major);
  const int64_t tiles = in.batch * blocks.count * plan.chunks;
  // Per chunk: the state at its end and its sum of delta.
  const int64_t boundary = D * N + D;
  const int64_t boundaries = plan.chunks == 1 ? 0 : in.batch * plan.chunks * boundary;
  const Scratch scratch(tiles * per_tile + boundaries, par);
  char *const edges = scratch.get() + tiles * per_tile * par;

  const auto tile_at = [&](size_t index) {
    const int64_t i = static_cast<int64_t>(index);
    const int64_t block = i % blocks.count, chunk = i / blocks.count % plan.chunks,
                  b = i / blocks.count / plan.chunks;
    const int64_t first_row = b * L * row + blocks.group(block) * N * (in.channel_major ? L : 1);
    ScanTile tile{};
    tile.channels = D;
    tile.state = N;
    tile.row_stride = row;
    tile.length = L;
    tile.delta_softplus = in.delta_softplus;
    tile.channel_major = in.channel_major;
    tile.first_token = chunk * plan.chunk;
    tile.end_token = std::min(L, tile.first_token + plan.chunk);
    tile.first_channel = blocks.first(block);
    tile.end_channel = blocks.end(block);
    tile.u = at(in.u, b * L * D, act);
    tile.delta = at(in.delta, b * L * D, act);
    tile.A = in.A;
    tile.B = at(in.B, first_row, act);
    tile.C = at(in.C, first_row, act);
    tile.D = in.D;
    tile.z = at(in.z, b * L * D, act);
    tile.delta_bias = in.delta_bias;
    tile.h_first = chunk == 0 ? at(in.h0, b * D * N, par) : nullptr;
    tile.y = at(out.y, b * L * D, act);
    if (plan.chunks == 1) {
      tile.h_end = at(out.h_last, b * D * N, par);
    } else {
      tile.h_end = at(edges, (b * plan.chunks + chunk) * boundary, par);
      tile.delta_sum = at(tile.h_end, D * N, par);
    }
    tile.scratch = at(scratch.get(), i * per_tile, par);
    return tile;
  };

  parallel_for(executor, static_cast<size_t>(tiles),
               [&](size_t i) { k.scan_forward[in.dtype](tile_at(i)); });
  if (plan.chunks == 1) return DVMSR_OK;

  const auto edge = [&](int64_t b, int64_t chunk) {
    return at(edges, (b * plan.chunks + chunk) * boundary, par);
  };
  for (int64_t b = 0; b < in.batch; ++b) {
    for (int64_t chunk = 1; chunk < plan.chunks; ++chunk)
      k.scan_join[in.dtype](D, N, in.A, at(edge(b, chunk), D * N, par), edge(b, chunk - 1), edge(b, chunk));
    std::memcpy(at(out.h_last, b * D * N, par), edge(b, plan.chunks - 1), static_cast<size_t>(D * N * par));
  }
  parallel_for(executor, static_cast<size_t>(tiles), [&](size_t i) {
    ScanTile tile = tile_at(i);
    if (tile.first_token == 0) return;
    const int64_t b = static_cast<int64_t>(i) / blocks.count / plan.chunks;
    tile.h_first = edge(b, tile.first_token / plan.chunk - 1);
    k.scan_add_initial_state[in.dtype](tile);
  });
  return DVMSR_OK;
}

// Sums `parts` arrays of `count` elements, stored one after the other, into `to`, in order.
template <class R>
void sum_parts(const void *parts, int64_t number, int64_t count, void *to) {
  const R *from = static_cast<const R *>(parts);
  R *sum = static_cast<R *>(to);
  std::fill(sum, sum + count, R(0));
  for (int64_t p = 0; p < number; ++p)
    for (int64_t i = 0; i < count; ++i) sum[i] += from[p * count + i];
}
void sum_parts(dvmsr_dtype dtype, const void *parts, int64_t number, int64_t count, void *to) {
  dtype == DVMSR_F64 ? sum_parts<double>(parts, number, count, to)
                     : sum_parts<float>(parts, number, count, to);
}

// Likewise for arrays (rows, width), to rows that lie `stride` elements apart.
template <class R>
void sum_rows(const void *parts, int64_t number, int64_t rows, int64_t width, void *to, int64_t stride) {
  const R *from = static_cast<const R *>(parts);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < width; ++i) {
      R sum = 0;
      for (int64_t p = 0; p < number; ++p) sum += from[(p * rows + row) * width + i];
      static_cast<R *>(to)[row * stride + i] = sum;
    }
}
void sum_rows(dvmsr_dtype dtype, const void *parts, int64_t number, int64_t rows, int64_t width, void *to,
              int64_t stride) {
  dtype == DVMSR_F64 ? sum_rows<double>(parts, number, rows, width, to, stride)
                     : sum_rows<float>(parts, number, rows, width, to, stride);
}

dvmsr_status scan_backward(const dvmsr_scan_inputs &in, const void *y_grad, const void *h_last_grad,
                           const dvmsr_scan_gradients &out, const dvmsr_executor *executor) {
  const Kernels &k = kernels();
  if (!valid(in) || !k.scan_backward[in.dtype]) return DVMSR_INVALID_ARGUMENT;
  const int64_t size = act_size(in.dtype);
  const int64_t batch = in.batch, L = in.length, D = in.channels, G = in.groups, N = in.state;
  const Blocks blocks(D, G, ceil_div(threads_of(executor), std::max<int64_t>(1, batch)), k.lanes);
  const int64_t tiles = batch * blocks.count;
  const int64_t per_tile = k.scan_backward_scratch(L, blocks.width, N, in.channel_major);

  // Partial sums are kept apart and added in a fixed order: results do not depend on scheduling.
  const int64_t partial = D * N + 2 * D;
  const Scratch scratch(tiles * per_tile + batch * partial + tiles * 2 * L * N, size);
  char *const A_parts = at(scratch.get(), tiles * per_tile, size);
  char *const D_parts = at(A_parts, batch * D * N, size);
  char *const bias_parts = at(D_parts, batch * D, size);
  char *const B_parts = at(bias_parts, batch * D, size);
  char *const C_parts = at(B_parts, tiles * L * N, size);

  parallel_for(executor, static_cast<size_t>(tiles), [&](size_t index) {
    const int64_t i = static_cast<int64_t>(index), b = i / blocks.count, block = i % blocks.count;
    const int64_t first_row = b * L * G * N + blocks.group(block) * N * (in.channel_major ? L : 1);
    ScanBackwardTile tile{};
    tile.length = L;
    tile.channels = D;
    tile.state = N;
    tile.row_stride = G * N;
    tile.delta_softplus = in.delta_softplus;
    tile.channel_major = in.channel_major;
    tile.first_channel = blocks.first(block);
    tile.end_channel = blocks.end(block);
    tile.u = at(in.u, b * L * D, size);
    tile.delta = at(in.delta, b * L * D, size);
    tile.A = in.A;
    tile.B = at(in.B, first_row, size);
    tile.C = at(in.C, first_row, size);
    tile.D = in.D;
    tile.z = at(in.z, b * L * D, size);
    tile.delta_bias = in.delta_bias;
    tile.h0 = at(in.h0, b * D * N, size);
    tile.y_grad = at(y_grad, b * L * D, size);
    tile.h_last_grad = at(h_last_grad, b * D * N, size);
    tile.u_grad = at(out.u, b * L * D, size);
    tile.delta_grad = at(out.delta, b * L * D, size);
    tile.z_grad = at(out.z, b * L * D, size);
    tile.h0_grad = at(out.h0, b * D * N, size);
    tile.A_grad = at(A_parts, b * D * N, size);
    tile.D_grad = at(D_parts, b * D, size);
    tile.delta_bias_grad = at(bias_parts, b * D, size);
    tile.B_grad = at(B_parts, i * L * N, size);
    tile.C_grad = at(C_parts, i * L * N, size);
    tile.scratch = at(scratch.get(), i * per_tile, size);
    k.scan_backward[in.dtype](tile);
  });

  sum_parts(in.dtype, A_parts, batch, D * N, out.A);
  sum_parts(in.dtype, D_parts, batch, D, out.D);
  sum_parts(in.dtype, bias_parts, batch, D, out.delta_bias);
  for (int64_t i = 0; i < batch * G; ++i) {
    const int64_t parts = i * blocks.in_group * L * N;
    // Of the group: its row of the first token, or all of it.
    const int64_t to = in.channel_major ? i * L * N : (i / G * L * G + i % G) * N;
    const int64_t rows = in.channel_major ? 1 : L, width = in.channel_major ? L * N : N;
    sum_rows(in.dtype, at(B_parts, parts, size), blocks.in_group, rows, width, at(out.B, to, size), G * N);
    sum_rows(in.dtype, at(C_parts, parts, size), blocks.in_group, rows, width, at(out.C, to, size), G * N);
  }
  return DVMSR_OK;
}

dvmsr_status conv_forward(const dvmsr_conv_inputs &in, const dvmsr_conv_outputs &out,
                          const dvmsr_executor *executor) {
  if (!valid(in)) return DVMSR_INVALID_ARGUMENT;
  const Kernels &k = kernels();
  const int64_t act = act_size(in.dtype), par = par_size(in.dtype);
  const int64_t L = in.length, D = in.channels, K = in.width;
  const int64_t wanted = ceil_div(4 * threads_of(executor), std::max<int64_t>(1, in.batch));
  const int64_t chunk = std::max<int64_t>(64, ceil_div(L, wanted));
  const int64_t chunks = ceil_div(L, chunk), tiles = in.batch * chunks;
  const int64_t per_tile = k.conv_forward_scratch(D, K);
  const Scratch scratch(tiles * per_tile, par);

  parallel_for(executor, static_cast<size_t>(tiles), [&](size_t index) {
    const int64_t i = static_cast<int64_t>(index), b = i / chunks;
    ConvTile tile{};
    tile.channels = D;
    tile.width = K;
    tile.activation = in.activation;
    tile.first_token = i % chunks * chunk;
    tile.end_token = std::min(L, tile.first_token + chunk);
    tile.x = at(in.x, b * L * D, act);
    tile.weight = in.weight;
    tile.bias = in.bias;
    tile.tail = at(in.tail, b * (K - 1) * D, act);
    tile.y = at(out.y, b * L * D, act);
    tile.scratch = at(scratch.get(), i * per_tile, par);
    k.conv_forward[in.dtype](tile);
  });

  const int64_t from_x = std::min(L, K - 1), from_tail = K - 1 - from_x, row = D * act;
  for (int64_t b = 0; b < in.batch && K > 1; ++b) {
    char *to = at(out.new_tail, b * (K - 1) * D, act);
    std::memcpy(to, at(in.tail, (b * (K - 1) + from_x) * D, act), static_cast<size_t>(from_tail * row));
    if (from_x > 0)
      std::memcpy(to + from_tail * row, at(in.x, (b * L + L - from_x) * D, act),
                  static_cast<size_t>(from_x * row));
  }
  return DVMSR_OK;
}

dvmsr_status conv_backward(const dvmsr_conv_inputs &in, const void *y_grad, const void *new_tail_grad,
                           const dvmsr_conv_gradients &out, const dvmsr_executor *executor) {
  const Kernels &k = kernels();
  if (!valid(in) || !k.conv_backward[in.dtype])
    return DVMSR_INVALID_ARGUMENT;
  const int64_t size = act_size(in.dtype);
  const int64_t batch = in.batch, L = in.length, D = in.channels, K = in.width;
  const Blocks blocks(D, 1, ceil_div(threads_of(executor), std::max<int64_t>(1, batch)), k.lanes);
  const int64_t tiles = batch * blocks.count;
  const int64_t per_tile = k.conv_backward_scratch(blocks.width, K);
  const Scratch scratch(tiles * per_tile + batch * (D * K + D), size);
  char *const weight_parts = at(scratch.get(), tiles * per_tile, size);
  char *const bias_parts = at(weight_parts, batch * D * K, size);

  parallel_for(executor, static_cast<size_t>(tiles), [&](size_t index) {
    const int64_t i = static_cast<int64_t>(index), b = i / blocks.count, block = i % blocks.count;
    ConvBackwardTile tile{};
    tile.length = L;
    tile.channels = D;
    tile.width = K;
    tile.activation = in.activation;
    tile.first_channel = blocks.first(block);
    tile.end_channel = blocks.end(block);
    tile.x = at(in.x, b * L * D, size);
    tile.weight = in.weight;
    tile.bias = in.bias;
    tile.tail = at(in.tail, b * (K - 1) * D, size);
    tile.y_grad = at(y_grad, b * L * D, size);
    tile.new_tail_grad = at(new_tail_grad, b * (K - 1) * D, size);
    tile.x_grad = at(out.x, b * L * D, size);
    tile.tail_grad = at(out.tail, b * (K - 1) * D, size);
    tile.weight_grad = at(weight_parts, b * D * K, size);
    tile.bias_grad = at(bias_parts, b * D, size);
    tile.scratch = at(scratch.get(), i * per_tile, size);
    k.conv_backward[in.dtype](tile);
  });
  sum_parts(in.dtype, weight_parts, batch, D * K, out.weight);
  sum_parts(in.dtype, bias_parts, batch, D, out.bias);
  return DVMSR_OK;
}

}  // namespace
}  // namespace dvmsr

int dvmsr_abi_version(void) { return DVMSR_ABI_VERSION; }

const char *dvmsr_isa(void) { return dvmsr::kernels().isa; }

dvmsr_status dvmsr_selective_scan_forward(const dvmsr_scan_inputs *in, const dvmsr_scan_outputs *out,
                                          const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::scan_forward(*in, *out, executor); });
}

dvmsr_status dvmsr_selective_scan_backward(const dvmsr_scan_inputs *in, const void *y_grad,
                                           const void *h_last_grad, const dvmsr_scan_gradients *out,
                                           const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::scan_backward(*in, y_grad, h_last_grad, *out, executor); });
}

dvmsr_status dvmsr_causal_conv1d_forward(const dvmsr_conv_inputs *in, const dvmsr_conv_outputs *out,
                                         const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::conv_forward(*in, *out, executor); });
}

dvmsr_status dvmsr_causal_conv1d_backward(const dvmsr_conv_inputs *in, const void *y_grad,
                                          const void *new_tail_grad, const dvmsr_conv_gradients *out,
                                          const dvmsr_executor *executor) {
  return dvmsr::guarded(
      [&] { return dvmsr::conv_backward(*in, y_grad, new_tail_grad, *out, executor); });
}
