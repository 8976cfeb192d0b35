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
// A block works on a chunk of one group of channels, a set of them at a time; a thread owns states of one
// channel. In chunk_gradients a block walks all sets, so that the gradients of the group's B and C are sums in
// registers and need no atomic additions.
#include "gradients.h"
#include "scan_chunks.cuh"
#include "sum_rows.cuh"

namespace dvmsr::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kTokens = 16;            // of a chunk
constexpr int kPart = 8;               // tokens whose sums over states are made together
constexpr int kFour = 4;               // tokens that are read together
constexpr int kRow = kTokens + kFour;  // of B or C in shared memory: eight neighbouring rows meet in no bank

// Blocks of chunk_gradients with S states per thread that a multiprocessor should have room for; it bounds the
// registers per thread, which the kernel's order is made for: machine_code.py tells spills.
template <int S>
constexpr int kResidentGradients = S == 1 ? 2 : 1;

// The workspace. The rows of `adjoints` and `adjoint_sums` are in the order of the walk backwards.
struct Walks {
  float *states, *sums;            // (B, chunks, D, N) and (B, chunks, D)
  float *adjoints, *adjoint_sums;  // likewise
  float *h_last;                   // (B, D, N)
  int64_t chunks;
};

// The same number, of which the compiler does not know that it is: what follows from it is computed where it is
// wanted, and not kept in registers.
__device__ inline int anew(int x) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

__device__ inline float sigmoid(float x) { return __fdividef(1.f, 1.f + fast_exp2(-x * kLog2e)); }

// What a token and channel bring; zero beyond the last. `gated` is g; the slopes are those of the step by
// delta, and of y by z for a sum of 1 before the gate, times the gradient of y.
struct Item {
  float u = 0.f, step = 0.f, gated = 0.f, step_slope = 0.f, z_slope = 0.f;
};

// A chunk in shared memory: a set of channels, and the rows of B and C with N states each, token by token.
template <int Channels, int N>
struct alignas(16) Tile {
  float step[Channels][kTokens], drive[Channels][kTokens], gated[Channels][kTokens];
  float B[N][kRow], C[N][kRow];
};

// One chunk of one batch element and one group of channels, seen by a thread in two roles: as loader of
// token `t` and channel `c` of the current set, and as owner of states lane + Lanes i of the set's channel
// `own`. A set is given by its first channel.
template <class T, int Lanes>
struct Walker {
  static constexpr int kChannels = kBlock / Lanes;  // of a set

  // `position` counts the groups of a chunk, then chunks, then batch elements; divisions of 64 bits would be
  // subroutines, and no grid has as many blocks.
  __device__ Walker(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs, int64_t chunks,
                    unsigned position)
      : p(p), outputs(outputs), chunks(chunks) {
    const unsigned groups = static_cast<unsigned>(p.groups), row = position / groups;
    group = static_cast<int>(position % groups);
    begin = static_cast<unsigned>(group * channels_of_group(p));
    end = begin + static_cast<unsigned>(channels_of_group(p));
    index = row % static_cast<unsigned>(chunks);
    batch = row / static_cast<unsigned>(chunks);
    first = batch * p.length + index * kTokens;
    const int64_t rest = p.length - index * kTokens;
    tokens = static_cast<int>(rest < kTokens ? rest : kTokens);
  }

  __device__ bool loads() const { return t < kTokens; }
  __device__ bool exists(unsigned set) const { return t < tokens && set + c < end; }

  __device__ Item load(unsigned set) const {
    Item item;
    if (!exists(set)) return item;
    const int64_t token = first + t, channel = set + c;
    item.u = widen(static_cast<const T *>(p.u)[token * p.u_stride + channel]);
    const float biased =
        widen(static_cast<const T *>(p.delta)[token * p.delta_stride + channel]) + p.delta_bias[channel];
    item.step = p.delta_softplus ? softplus(biased) : biased;
    item.step_slope = p.delta_softplus ? sigmoid(biased) : 1.f;
    item.gated = widen(static_cast<const T *>(outputs.y)[token * p.channels + channel]);
    if (p.z) {
      const float z = widen(static_cast<const T *>(p.z)[token * p.z_stride + channel]), gate = sigmoid(z);
      item.z_slope = item.gated * gate * (1.f + z * (1.f - gate));
      item.gated *= silu(z);
    }
    return item;
  }

  template <int N>
  __device__ void put(Tile<kChannels, N> &tile, const Item &item) const {
    if (!loads()) return;
    tile.step[c][t] = item.step;
    tile.drive[c][t] = item.step * item.u;
    tile.gated[c][t] = item.gated;
  }

  template <int N>
  __device__ void put_rows(Tile<kChannels, N> &tile) const {
    for (int i = threadIdx.x; i < kTokens * N; i += kBlock) {
      const int row = i / N, n = i % N;
      const bool there = row < tokens && n < p.state;
      const int64_t B_at = (first + row) * p.B_stride + group * p.state + n;
      const int64_t C_at = (first + row) * p.C_stride + group * p.state + n;
      tile.B[n][row] = there ? widen(static_cast<const T *>(p.B)[B_at]) : 0.f;
      tile.C[n][row] = there ? widen(static_cast<const T *>(p.C)[C_at]) : 0.f;
    }
  }

  __device__ int state(int i) const { return lane + Lanes * i; }
  __device__ bool owns(unsigned set, int i) const { return set + own < end && state(i) < p.state; }
  // The place of state i in a matrix (D, N).
  __device__ int64_t at(unsigned set, int i) const { return (set + anew(own)) * p.state + state(i); }
  // A as `dvmsr::cuda::rate`.
  __device__ float rate(unsigned set, int i) const { return owns(set, i) ? dvmsr::cuda::rate(p.A[at(set, i)]) : 0.f; }
  // The number of the chunk's row in the order of the walk forwards, and in that backwards.
  __device__ int64_t row() const { return batch * chunks + index; }
  __device__ int64_t row_backwards() const { return batch * chunks + chunks - 1 - index; }

  const dvmsr_cuda_scan_params &p;
  const dvmsr_cuda_scan_output_gradients &outputs;
  const int64_t chunks;
  const int t = threadIdx.x / kChannels;
  const unsigned c = threadIdx.x % kChannels, own = threadIdx.x / Lanes;
  const int lane = threadIdx.x % Lanes;
  int64_t batch, index, first;
  int group, tokens;    // group: of all
  unsigned begin, end;  // its first channel, and the one behind its last
};

constexpr int kEdgeLanes = 16;  // neighbouring threads with the states of a channel, S each

template <class T, int S>
__global__ void __launch_bounds__(kBlock)
    chunk_edges(const dvmsr_cuda_scan_params p, const dvmsr_cuda_scan_output_gradients outputs, Walks walks,
                float *h0_grad) {
  using W = Walker<T, kEdgeLanes>;
  auto &tile = shared_memory<Tile<W::kChannels, kEdgeLanes * S>>();
  const unsigned sets = (static_cast<unsigned>(channels_of_group(p)) + W::kChannels - 1) / W::kChannels;
  const W walker(p, outputs, walks.chunks, blockIdx.x / sets);
  const unsigned set = walker.begin + blockIdx.x % sets * W::kChannels;
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
    const float step = tile.step[walker.own][t];
    total += step;
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      const int n = walker.state(i);
      h[i] = fast_exp2(step * a[i]) * h[i] + tile.drive[walker.own][t] * tile.B[n][t];
      r[i] += fast_exp2(total * a[i]) * tile.gated[walker.own][t] * tile.C[n][t];
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

// Adds each of the values over kPart lanes; lane t of them gets the sum of values[t].
template <int Half = kPart / 2>
__device__ float reduce_scatter(float (&values)[kPart], int lane) {
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

// What chunk_gradients has in shared memory, for channels with N states in so many lanes.
template <int Lanes, int N>
struct alignas(16) Gradients : Tile<kBlock / Lanes, N> {
  static constexpr int kChannels = kBlock / Lanes;
  static constexpr bool kPairs = Lanes == 16;  // a warp has two channels, or one
  static constexpr int kWarps = kBlock / 32;
  static_assert(kPairs || Lanes == 32, "a warp has whole channels");

  float sums[3][kTokens][kChannels];
  float rows[kWarps][kTokens][Lanes];

  // Adds the values of tokens from `first` on over the lanes of each channel.
  template <class T>
  __device__ void put_sums(const Walker<T, Lanes> &walker, int which, int first, float (&values)[kPart]) {
    float sum = reduce_scatter(values, walker.lane % kPart);
    DVMSR_UNROLL for (int bit = kPart; bit < Lanes; bit *= 2) sum += __shfl_xor_sync(kAllLanes, sum, bit);
    if (walker.lane < kPart) sums[which][first + walker.lane][walker.own] = sum;
  }

  // Adds the gradients of the rows of B or C over the block's channels and stores them.
  template <class T, int S>
  __device__ void store_rows(const Walker<T, Lanes> &walker, const float (&values)[S][kTokens], T *to) {
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      __syncthreads();
      DVMSR_UNROLL for (int t = 0; t < kTokens; ++t) {
        float value = values[i][t];
        if (kPairs) value += __shfl_xor_sync(kAllLanes, value, Lanes);
        if (threadIdx.x % 32 < Lanes) rows[threadIdx.x / 32][t][walker.lane] = value;
      }
      __syncthreads();
      for (int place = threadIdx.x; place < kTokens * Lanes; place += kBlock) {
        const int t = place / Lanes, lane = place % Lanes, n = lane + Lanes * i;
        float sum = 0.f;
        DVMSR_UNROLL for (int warp = 0; warp < kWarps; ++warp) sum += rows[warp][t][lane];
        const int64_t row = (walker.first + t) * walker.p.groups + walker.group;
        if (t < walker.tokens && n < walker.p.state) to[row * walker.p.state + n] = narrow<T>(sum);
      }
    }
  }
};

template <class T, int Lanes, int S>
__global__ void __launch_bounds__(kBlock, kResidentGradients<S>)
    chunk_gradients(const dvmsr_cuda_scan_params p, const dvmsr_cuda_scan_output_gradients outputs,
                    const dvmsr_cuda_scan_gradients gradients, Walks walks) {
  using W = Walker<T, Lanes>;
  auto &tile = shared_memory<Gradients<Lanes, Lanes * S>>();
  const W walker(p, outputs, walks.chunks, blockIdx.x);
  const int64_t states = p.channels * p.state;
  const bool from_start = walker.index == 0, to_end = walker.index == walks.chunks - 1;
  const float *before = from_start ? p.h0 + walker.batch * states : walks.states + (walker.row() - 1) * states;
  // The q behind the chunk; only this block reads it, and of the first chunk's nobody the q before it:
  // these places take the gradient of A.
  const int64_t place = (to_end ? (walker.batch + 1) * walks.chunks : walker.row_backwards()) - 1;
  float *const A_grad = walks.adjoints + place * states;
  const float *const after = to_end ? outputs.h_last + walker.batch * states : A_grad;

  walker.put_rows(tile);
  float B_grad[S][kTokens], C_grad[S][kTokens];
  DVMSR_UNROLL for (int i = 0; i < S; ++i)
    DVMSR_UNROLL for (int t = 0; t < kTokens; ++t) B_grad[i][t] = C_grad[i][t] = 0.f;

  for (unsigned set = walker.begin; set < walker.end; set += W::kChannels) {
    const Item item = walker.load(set);
    __syncthreads();  // nobody still reads the set before
    walker.put(tile, item);
    __syncthreads();

    const float *const steps = tile.step[walker.own], *const drives = tile.drive[walker.own];
    const float *const gates = tile.gated[walker.own];
    bool owns[S];
    float a[S], h[S][kTokens + 1], decay[S][kTokens];  // h[i][t]: before token t
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      owns[i] = walker.owns(set, i);
      a[i] = walker.rate(set, i);
      h[i][0] = owns[i] ? before[walker.at(set, i)] : 0.f;
    }
    DVMSR_UNROLL for (int part = 0; part < kTokens; part += kPart) {
      float y[kPart];  // before skip and gate
      DVMSR_UNROLL for (int four = 0; four < kPart; four += kFour) {
        const float4 step = read_four(steps + part + four), drive = read_four(drives + part + four);
        DVMSR_UNROLL for (int i = 0; i < S; ++i) {
          const float4 B4 = read_four(tile.B[walker.state(i)] + part + four);
          const float4 C4 = read_four(tile.C[walker.state(i)] + part + four);
          const auto advance = [&](int j, float step_t, float drive_t, float B_t, float C_t) {
            const int t = part + j;
            decay[i][t] = fast_exp2(step_t * a[i]);
            h[i][t + 1] = decay[i][t] * h[i][t] + drive_t * B_t;
            y[j] = i ? y[j] + h[i][t + 1] * C_t : h[i][t + 1] * C_t;
          };
          advance(four, step.x, drive.x, B4.x, C4.x);
          advance(four + 1, step.y, drive.y, B4.y, C4.y);
          advance(four + 2, step.z, drive.z, B4.z, C4.z);
          advance(four + 3, step.w, drive.w, B4.w, C4.w);
        }
      }
      tile.put_sums(walker, 0, part, y);
    }
    float q[S], A_sum[S];
    DVMSR_UNROLL for (int i = 0; i < S; ++i) {
      const int64_t at = walker.at(set, i);
      // Where registers are few, the place is found when it is wanted.
      const auto found = [&] { return to_end ? outputs.h_last[walker.batch * states + at] : A_grad[at]; };
      q[i] = !owns[i] ? 0.f : S == 1 ? found() : after[at];
      A_sum[i] = 0.f;
    }
    DVMSR_UNROLL for (int part = kTokens - kPart; part >= 0; part -= kPart) {
      float qB[kPart], qA[kPart];  // q B, and q times the change of the decay with delta
      DVMSR_UNROLL for (int four = kPart - kFour; four >= 0; four -= kFour) {
        const float4 step = read_four(steps + part + four), drive = read_four(drives + part + four);
        const float4 gated = read_four(gates + part + four);
        DVMSR_UNROLL for (int i = 0; i < S; ++i) {
          const float4 B4 = read_four(tile.B[walker.state(i)] + part + four);
          const float4 C4 = read_four(tile.C[walker.state(i)] + part + four);
          const auto retreat = [&](int j, float step_t, float drive_t, float gated_t, float B_t, float C_t) {
            const int t = part + j;
            q[i] += gated_t * C_t;
            C_grad[i][t] += gated_t * h[i][t + 1];
            B_grad[i][t] += q[i] * drive_t;
            qB[j] = i ? qB[j] + q[i] * B_t : q[i] * B_t;
            q[i] *= decay[i][t];
            A_sum[i] += step_t * (q[i] * h[i][t]);
            qA[j] = i ? qA[j] + a[i] * (q[i] * h[i][t]) : a[i] * (q[i] * h[i][t]);
          };
          retreat(four + 3, step.w, drive.w, gated.w, B4.w, C4.w);
          retreat(four + 2, step.z, drive.z, gated.z, B4.z, C4.z);
          retreat(four + 1, step.y, drive.y, gated.y, B4.y, C4.y);
          retreat(four, step.x, drive.x, gated.x, B4.x, C4.x);
        }
      }
      DVMSR_UNROLL for (int i = 0; i < S; ++i)
        if (owns[i] && part == 0) A_grad[walker.at(set, i)] = A_sum[i];
      tile.put_sums(walker, 1, part, qB);
      tile.put_sums(walker, 2, part, qA);
    }
    __syncthreads();

    const int64_t channel = set + walker.c, at = (walker.first + walker.t) * p.channels + channel;
    float D_part = 0.f, delta_grad = 0.f;
    if (walker.exists(set)) {
      const float skip = p.D[channel], gated = tile.gated[walker.c][walker.t];
      const float qB_sum = tile.sums[1][walker.t][walker.c], qA_sum = tile.sums[2][walker.t][walker.c] / kLog2e;
      delta_grad = (qA_sum + item.u * qB_sum) * item.step_slope;
      D_part = gated * item.u;
      static_cast<T *>(gradients.u)[at] = narrow<T>(gated * skip + tile.step[walker.c][walker.t] * qB_sum);
      static_cast<T *>(gradients.delta)[at] = narrow<T>(delta_grad);
      if (p.z) {
        const float sum = tile.sums[0][walker.t][walker.c] + skip * item.u;
        static_cast<T *>(gradients.z)[at] = narrow<T>(item.z_slope * sum);
      }
    }
    __syncthreads();
    if (walker.loads()) {
      tile.sums[0][walker.t][walker.c] = D_part;
      tile.sums[1][walker.t][walker.c] = delta_grad;
    }
    __syncthreads();
    if (threadIdx.x < 2 * W::kChannels && channel < walker.end) {  // t is 0 or 1 here
      float sum = 0.f;
      for (int t = 0; t < kTokens; ++t) sum += tile.sums[walker.t][t][walker.c];
      (walker.t == 0 ? walks.sums : walks.adjoint_sums)[walker.row() * p.channels + channel] = sum;
    }
  }
  tile.store_rows(walker, B_grad, static_cast<T *>(gradients.B));
  tile.store_rows(walker, C_grad, static_cast<T *>(gradients.C));
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

// For up to Lanes S states, S to a thread of chunk_gradients.
template <class T, int Lanes, int S>
cudaError_t walk(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs,
                 const dvmsr_cuda_scan_gradients &gradients, const Walks &walks, cudaStream_t stream) {
  const int64_t blocks = p.batch * walks.chunks * p.groups;
  const int64_t sets = ceil_div(channels_of_group(p), kBlock / kEdgeLanes);
  cudaError_t status =
      launch(chunk_edges<T, Lanes * S / kEdgeLanes>, blocks * sets, kBlock, stream, p, outputs, walks, gradients.h0);
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
  return launch(chunk_gradients<T, Lanes, S>, blocks, kBlock, stream, p, outputs, gradients, walks);
}

template <class T>
cudaError_t walk(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_output_gradients &outputs,
                 const dvmsr_cuda_scan_gradients &gradients, void *workspace, cudaStream_t stream) {
  const Walks walks = place(p, workspace);
  cudaError_t status = cudaSuccess;
  if (p.batch > 0)
    status = p.state <= 16 ? walk<T, 16, 1>(p, outputs, gradients, walks, stream)
                           : walk<T, 32, 2>(p, outputs, gradients, walks, stream);
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
