// The gradients of the selective scan. With g_t the gradient of y_t before the gate and q_t that of h_t,
//
//   q_t = g_t C_t + exp(delta_{t+1} A) q_{t+1}
//
// runs from the last token to the first as h runs from the first to the last. The sequence is cut into
// chunks of kTokens:
//
//   chunk_edges     every chunk from a zero state in both directions: its last h, what it gives to the q
//                   before it, and the sum of its delta
//   join_chunks     (scan_chunks.cuh) the true h after every chunk; once more, backwards, the true q
//   chunk_gradients walks every chunk forwards and backwards, its states in registers
//   sum_rows        adds up what the chunks found for A, D and delta_bias
//
// A thread owns a channel and every kStateLanes-th state of it. A block owns a chunk of one group of channels
// and walks them all, so that the gradients of the group's B and C need no atomic additions.
#include "gradients.h"
#include "scan_chunks.cuh"
#include "sum_rows.cuh"

namespace dvmsr::cuda {
namespace {

constexpr int kTokens = 16;    // of a chunk
constexpr int kChannels = 16;  // a set, that a block works on together
constexpr int kStateLanes = 16;  // neighbouring threads with the states of one channel
constexpr int kBlock = kChannels * kStateLanes;
constexpr int kWarps = kBlock / 32;
static_assert(kTokens == kStateLanes, "reduce_scatter gives every lane a token");
static_assert(kTokens * kChannels == kBlock, "every thread loads one token of one channel");

// The workspace. The rows of `adjoints` and `adjoint_sums` are in the order of the walk backwards.
struct Walks {
  float *states, *sums;            // (B, chunks, D, N) and (B, chunks, D)
  float *adjoints, *adjoint_sums;  // likewise
  float *h_last;                   // (B, D, N)
  int64_t chunks;
};

__device__ inline float sigmoid(float x) { return __fdividef(1.f, 1.f + fast_exp2(-x * kLog2e)); }

// What a token and channel bring; zero beyond the last. `gated` is g.
struct Item {
  float u = 0.f, biased = 0.f, step = 0.f, z = 0.f, y_grad = 0.f, gated = 0.f;
};

template <int S>
struct alignas(16) Tile {
  float step[kTokens][kChannels], drive[kTokens][kChannels], gated[kTokens][kChannels];
  float B[kTokens][S * kStateLanes], C[kTokens][S * kStateLanes];
  float sums[3][kTokens][kChannels];
  float warps[kWarps][kTokens][kStateLanes];
};

// One chunk of one batch element and one group of channels, seen by a thread in two roles: as loader of
// token `t` and channel `c` of the current set, and as owner of states lane + kStateLanes i of the set's
// channel `own`. A set is given by its first channel.
template <class T, int S>
struct Walker {
  // `position` counts the groups of a chunk, then chunks, then batch elements.
  __device__ Walker(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs, int64_t chunks,
                    int64_t position)
      : p(p), outputs(outputs), chunks(chunks) {
    group = static_cast<int>(position % p.groups);
    end = (group + 1) * channels_of_group(p);
    begin = end - channels_of_group(p);
    index = position / p.groups % chunks;
    batch = position / p.groups / chunks;
    first = batch * p.length + index * kTokens;
    const int64_t rest = p.length - index * kTokens;
    tokens = static_cast<int>(rest < kTokens ? rest : kTokens);
  }

  __device__ bool exists(int64_t set) const { return t < tokens && set + c < end; }

  __device__ Item load(int64_t set) const {
    Item item;
    if (!exists(set)) return item;
    const int64_t token = first + t, channel = set + c;
    item.u = widen(static_cast<const T *>(p.u)[token * p.u_stride + channel]);
    item.biased = widen(static_cast<const T *>(p.delta)[token * p.delta_stride + channel]) + p.delta_bias[channel];
    item.step = p.delta_softplus ? softplus(item.biased) : item.biased;
    item.y_grad = widen(static_cast<const T *>(outputs.y)[token * p.channels + channel]);
    if (p.z) item.z = widen(static_cast<const T *>(p.z)[token * p.z_stride + channel]);
    item.gated = p.z ? item.y_grad * silu(item.z) : item.y_grad;
    return item;
  }

  __device__ void put(Tile<S> &tile, const Item &item) const {
    tile.step[t][c] = item.step;
    tile.drive[t][c] = item.step * item.u;
    tile.gated[t][c] = item.gated;
  }

  __device__ void put_rows(Tile<S> &tile) const {
    constexpr int N = S * kStateLanes;
    for (int i = threadIdx.x; i < kTokens * N; i += kBlock) {
      const int row = i / N, n = i % N;
      const bool there = row < tokens && n < p.state;
      const int64_t B_at = (first + row) * p.B_stride + group * p.state + n;
      const int64_t C_at = (first + row) * p.C_stride + group * p.state + n;
      tile.B[row][n] = there ? widen(static_cast<const T *>(p.B)[B_at]) : 0.f;
      tile.C[row][n] = there ? widen(static_cast<const T *>(p.C)[C_at]) : 0.f;
    }
  }

  __device__ int state(int i) const { return lane + kStateLanes * i; }
  __device__ bool owns(int64_t set, int i) const { return set + own < end && state(i) < p.state; }
  // The place of state i in a matrix (D, N).
  __device__ int64_t at(int64_t set, int i) const { return (set + own) * p.state + state(i); }
  // A as `dvmsr::cuda::rate`.
  __device__ float rate(int64_t set, int i) const { return owns(set, i) ? dvmsr::cuda::rate(p.A[at(set, i)]) : 0.f; }
  // The number of the chunk's row in the order of the walk forwards, and in that backwards.
  __device__ int64_t row() const { return batch * chunks + index; }
  __device__ int64_t row_backwards() const { return batch * chunks + chunks - 1 - index; }

  const dvmsr_cuda_scan_params &p;
  const dvmsr_cuda_scan_output_gradients &outputs;
  const int64_t chunks;
  const int t = threadIdx.x / kChannels, c = threadIdx.x % kChannels;
  const int own = threadIdx.x / kStateLanes, lane = threadIdx.x % kStateLanes;
  int64_t batch, index, first;
  int group, begin, end;  // of all groups; its first channel, and the one behind its last
  int tokens;
};

template <class T, int S>
__global__ void __launch_bounds__(kBlock)
    chunk_edges(const dvmsr_cuda_scan_params p, const dvmsr_cuda_scan_output_gradients outputs, Walks walks,
                float *h0_grad) {
  Tile<S> &tile = shared_memory<Tile<S>>();
  const int64_t sets = ceil_div(channels_of_group(p), kChannels);
  const Walker<T, S> walker(p, outputs, walks.chunks, blockIdx.x / sets);
  const int64_t set = walker.begin + blockIdx.x % sets * kChannels;
  walker.put(tile, walker.load(set));
  walker.put_rows(tile);
  __syncthreads();

  const int64_t states = p.channels * p.state;
  float a[S], h[S], r[S], total = 0.f;
  DVMSR_UNROLL for (int i = 0; i < S; ++i) {
    a[i] = walker.rate(set, i);
    h[i] = walker.index == 0 && walker.owns(set, i) ? p.h0[walker.batch * states + walker.at(set, i)] : 0.f;
    r[i] = 0.f;
  }
  for (int t = 0; t < walker.tokens; ++t) {
    const float step = tile.step[t][walker.own];
    total += step;
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      const int n = walker.state(i);
      h[i] = fast_exp2(step * a[i]) * h[i] + tile.drive[t][walker.own] * tile.B[t][n];
      r[i] += fast_exp2(total * a[i]) * tile.gated[t][walker.own] * tile.C[t][n];
    }
  }
  DVMSR_UNROLL for (int i = 0; i < S; ++i) {
    if (!walker.owns(set, i)) continue;
    const int64_t at = walker.at(set, i);
    if (walker.index == walks.chunks - 1)
      r[i] += fast_exp2(total * a[i]) * outputs.h_last[walker.batch * states + at];
    walks.states[walker.row() * states + at] = h[i];
    walks.adjoints[walker.row_backwards() * states + at] = r[i];
    if (walks.chunks == 1) h0_grad[walker.batch * states + at] = r[i];
  }
  const int64_t channel = set + walker.own;
  if (walker.lane == 0 && channel < walker.end) {
    walks.sums[walker.row() * p.channels + channel] = total;
    walks.adjoint_sums[walker.row_backwards() * p.channels + channel] = total;
  }
}

// Adds each of the values over the lanes of a channel; lane t gets the sum of values[t].
template <int Half = kTokens / 2>
__device__ float reduce_scatter(float (&values)[kTokens], int lane) {
  if constexpr (Half == 0) {
    return values[0];
  } else {
    const bool upper = lane & Half;
    DVMSR_UNROLL for (int i = 0; i < Half; ++i) {
      const float kept = upper ? values[i + Half] : values[i], sent = upper ? values[i] : values[i + Half];
      values[i] = kept + __shfl_xor_sync(kAllLanes, sent, Half);
    }
    return reduce_scatter<Half / 2>(values, lane);
  }
}

// Adds the gradients of the rows of B or C over the block's channels and stores them.
template <class T, int S>
__device__ void store_rows(const Walker<T, S> &walker, Tile<S> &tile, const float (&sums)[kTokens][S], T *rows) {
  const int warp = threadIdx.x / 32;
  for (int i = 0; i < S; ++i) {
    __syncthreads();
    DVMSR_UNROLL for (int t = 0; t < kTokens; ++t) {
      float both = 0.f;  // channels of this warp
      DVMSR_UNROLL for (int j = 0; j < S; ++j) both = j == i ? sums[t][j] : both;
      both += __shfl_xor_sync(kAllLanes, both, kStateLanes);
      if (threadIdx.x % 32 < kStateLanes) tile.warps[warp][t][walker.lane] = both;
    }
    __syncthreads();
    const int t = threadIdx.x / kStateLanes, n = walker.state(i);
    float sum = 0.f;
    DVMSR_UNROLL for (int w = 0; w < kWarps; ++w) sum += tile.warps[w][t][walker.lane];
    const int64_t row = (walker.first + t) * walker.p.groups + walker.group;
    if (t < walker.tokens && n < walker.p.state) rows[row * walker.p.state + n] = narrow<T>(sum);
  }
}

template <class T, int S>
__global__ void __launch_bounds__(kBlock)
    chunk_gradients(const dvmsr_cuda_scan_params p, const dvmsr_cuda_scan_output_gradients outputs,
                    const dvmsr_cuda_scan_gradients gradients, Walks walks) {
  Tile<S> &tile = shared_memory<Tile<S>>();
  const Walker<T, S> walker(p, outputs, walks.chunks, blockIdx.x);
  const int64_t states = p.channels * p.state;
  const bool from_start = walker.index == 0, to_end = walker.index == walks.chunks - 1;
  const float *before = from_start ? p.h0 + walker.batch * states : walks.states + (walker.row() - 1) * states;
  // The q behind the chunk; only this block reads it, and of the first chunk's nobody the q before it:
  // these places take the gradient of A.
  const int64_t place = (to_end ? (walker.batch + 1) * walks.chunks : walker.row_backwards()) - 1;
  float *const A_grad = walks.adjoints + place * states;
  const float *after = to_end ? outputs.h_last + walker.batch * states : A_grad;

  walker.put_rows(tile);
  float B_grad[kTokens][S], C_grad[kTokens][S];
  DVMSR_UNROLL for (int t = 0; t < kTokens; ++t)
    DVMSR_UNROLL for (int i = 0; i < S; ++i) B_grad[t][i] = C_grad[t][i] = 0.f;

  for (int64_t set = walker.begin; set < walker.end; set += kChannels) {
    const Item item = walker.load(set);
    __syncthreads();  // nobody still reads the set before
    walker.put(tile, item);
    __syncthreads();

    // y before skip and gate, the sum of q B, and that of q times the change of the decay with delta.
    float y[kTokens], qB[kTokens], qA[kTokens];
    DVMSR_UNROLL for (int t = 0; t < kTokens; ++t) y[t] = qB[t] = qA[t] = 0.f;
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      const bool owns = walker.owns(set, i);
      const int n = walker.state(i);
      const float a = walker.rate(set, i);
      float h[kTokens + 1], decay[kTokens];  // h[t]: before token t
      h[0] = owns ? before[walker.at(set, i)] : 0.f;
      DVMSR_UNROLL for (int t = 0; t < kTokens; ++t) {
        decay[t] = fast_exp2(tile.step[t][walker.own] * a);
        h[t + 1] = decay[t] * h[t] + tile.drive[t][walker.own] * tile.B[t][n];
        y[t] += h[t + 1] * tile.C[t][n];
      }
      float q = owns ? after[walker.at(set, i)] : 0.f, A_sum = 0.f;
      DVMSR_UNROLL for (int t = kTokens - 1; t >= 0; --t) {
        const float gated = tile.gated[t][walker.own];
        q += gated * tile.C[t][n];
        C_grad[t][i] += gated * h[t + 1];
        B_grad[t][i] += q * tile.drive[t][walker.own];
        qB[t] += q * tile.B[t][n];
        q *= decay[t];
        A_sum += tile.step[t][walker.own] * (q * h[t]);
        qA[t] += a * (q * h[t]);
      }
      if (owns) A_grad[walker.at(set, i)] = A_sum;
    }
    tile.sums[0][walker.lane][walker.own] = reduce_scatter(y, walker.lane);
    tile.sums[1][walker.lane][walker.own] = reduce_scatter(qB, walker.lane);
    tile.sums[2][walker.lane][walker.own] = reduce_scatter(qA, walker.lane);
    __syncthreads();

    const int64_t channel = set + walker.c, at = (walker.first + walker.t) * p.channels + channel;
    float D_part = 0.f, delta_grad = 0.f;
    if (walker.exists(set)) {
      const float skip = p.D[channel];
      const float sum = tile.sums[0][walker.t][walker.c] + skip * item.u;
      const float qB_sum = tile.sums[1][walker.t][walker.c], qA_sum = tile.sums[2][walker.t][walker.c] / kLog2e;
      delta_grad = (qA_sum + item.u * qB_sum) * (p.delta_softplus ? sigmoid(item.biased) : 1.f);
      D_part = item.gated * item.u;
      static_cast<T *>(gradients.u)[at] = narrow<T>(item.gated * skip + item.step * qB_sum);
      static_cast<T *>(gradients.delta)[at] = narrow<T>(delta_grad);
      if (p.z) {
        const float gate = sigmoid(item.z);
        static_cast<T *>(gradients.z)[at] = narrow<T>(item.y_grad * sum * gate * (1.f + item.z * (1.f - gate)));
      }
    }
    __syncthreads();
    tile.sums[0][walker.t][walker.c] = D_part;
    tile.sums[1][walker.t][walker.c] = delta_grad;
    __syncthreads();
    if (threadIdx.x < 2 * kChannels && channel < walker.end) {  // t is 0 or 1 here
      float sum = 0.f;
      for (int t = 0; t < kTokens; ++t) sum += tile.sums[walker.t][t][walker.c];
      (walker.t == 0 ? walks.sums : walks.adjoint_sums)[walker.row() * p.channels + channel] = sum;
    }
  }
  store_rows(walker, tile, B_grad, static_cast<T *>(gradients.B));
  store_rows(walker, tile, C_grad, static_cast<T *>(gradients.C));
}

Walks place(const dvmsr_cuda_scan_params &p, void *workspace) {
  Walks walks{};
  walks.chunks = p.length ? ceil_div(p.length, kTokens) : 1;
  const int64_t channels = p.batch * walks.chunks * p.channels;
  walks.states = static_cast<float *>(workspace);
  walks.adjoints = walks.states + channels * p.state;
  walks.sums = walks.adjoints + channels * p.state;
  walks.adjoint_sums = walks.sums + channels;
  walks.h_last = walks.adjoint_sums + channels;
  return walks;
}

template <class T, int S>
cudaError_t walk(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs,
                 const dvmsr_cuda_scan_gradients &gradients, const Walks &walks, cudaStream_t stream) {
  const int64_t blocks = p.batch * walks.chunks * p.groups, sets = ceil_div(channels_of_group(p), kChannels);
  cudaError_t status =
      launch(chunk_edges<T, S>, blocks * sets, kBlock, stream, p, outputs, walks, gradients.h0);
  if (status == cudaSuccess && walks.chunks > 1) {
    const int64_t joins = p.batch * ceil_div(p.channels * p.state, kJoinStates);
    dvmsr_cuda_scan_params forwards = p, backwards = p;
    forwards.h_last = walks.h_last;
    backwards.h_last = gradients.h0;
    status = launch(join_chunks, joins, kJoinStates * kJoinRanges, stream, forwards,
                    Edges{walks.states, walks.sums, walks.chunks});
    if (status == cudaSuccess)
      status = launch(join_chunks, joins, kJoinStates * kJoinRanges, stream, backwards,
                      Edges{walks.adjoints, walks.adjoint_sums, walks.chunks});
  }
  if (status != cudaSuccess) return status;
  return launch(chunk_gradients<T, S>, blocks, kBlock, stream, p, outputs, gradients, walks);
}

template <class T>
cudaError_t walk(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs,
                 const dvmsr_cuda_scan_gradients &gradients, void *workspace, cudaStream_t stream) {
  const Walks walks = place(p, workspace);
  cudaError_t status = cudaSuccess;
  if (p.batch > 0)
    status = p.state <= kStateLanes ? walk<T, 1>(p, outputs, gradients, walks, stream)
                                    : walk<T, 4>(p, outputs, gradients, walks, stream);
  const int64_t rows = p.batch * walks.chunks;
  if (status == cudaSuccess) status = sum_rows(walks.adjoints, rows, p.channels * p.state, gradients.A, stream);
  if (status == cudaSuccess) status = sum_rows(walks.sums, rows, p.channels, gradients.D, stream);
  if (status == cudaSuccess) status = sum_rows(walks.adjoint_sums, rows, p.channels, gradients.delta_bias, stream);
  return status;
}

}  // namespace
}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

size_t dvmsr_cuda_scan_backward_workspace_size(const dvmsr_cuda_scan_params *params) {
  const dvmsr_cuda_scan_params &p = *params;
  const Walks walks = place(p, nullptr);
  return static_cast<size_t>(p.batch * p.channels * (2 * walks.chunks * (p.state + 1) + p.state)) * sizeof(float);
}

int dvmsr_cuda_selective_scan_backward(const dvmsr_cuda_scan_params *params,
                                       const dvmsr_cuda_scan_output_gradients *outputs,
                                       const dvmsr_cuda_scan_gradients *gradients, void *workspace,
                                       cudaStream_t stream) {
  if (!valid_sizes(*params) || !valid_strides(*params)) return cudaErrorInvalidValue;
  switch (params->dtype) {
    case DVMSR_CUDA_F32: return walk<float>(*params, *outputs, *gradients, workspace, stream);
    case DVMSR_CUDA_F16: return walk<__half>(*params, *outputs, *gradients, workspace, stream);
    case DVMSR_CUDA_BF16: return walk<__nv_bfloat16>(*params, *outputs, *gradients, workspace, stream);
  }
  return cudaErrorInvalidValue;
}
