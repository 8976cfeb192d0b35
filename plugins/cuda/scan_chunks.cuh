// The selective scan (Mamba, arXiv 2312.00752, Algorithm 2), parallel over chunks of the sequence.
//
//   scan_chunks     every chunk from a zero state (the first from h0): its y, its last state, and the
//                   sum of its delta, which gives its decay: exp(A sum)
//   join_chunks     from these, the true state after every chunk
//   add_initial     to the y of every later chunk, what the state before it contributes,
//                   silu(z_t) C_t . (exp(A sum of delta since the chunk's start) h), until that decay
//                   has gone below rounding
//
// With a single chunk the first kernel is the whole scan.
//
// A thread owns a channel: it reads u, delta and z and writes y, so that neighbouring threads touch
// neighbouring addresses. The states of a channel are split over kLanes neighbouring threads, each
// keeping N / kLanes states of kLanes channels in registers: that many times fewer reads of B_t and
// C_t from shared memory, at the price of a few shuffles. What is left to bound the kernel is the
// N + 4 special functions per token and channel.
#pragma once

#include "scan.cuh"

namespace dvmsr::cuda {

constexpr int kThreads = 128;  // channels per block
constexpr int kLanes = 2;      // neighbouring threads that share their channels
constexpr int kTile = 16;      // tokens whose B and C are in shared memory together

// Blocks that a multiprocessor should have room for; it bounds the registers per thread.
template <int N>
constexpr int kResident = N <= 16 ? 4 : 2;

// Tokens whose u, delta and z are loaded ahead, as many as there are registers for.
template <int N>
constexpr int kAhead = N <= 16 ? 4 : 2;

__host__ __device__ inline int64_t channel_blocks(const dvmsr_cuda_scan_params &p) {
  return blocks_of_all(p, kThreads);
}

// The workspace: per batch element and chunk the state (D, N) after it, then all sums of delta (D).
struct Edges {
  float *states, *sums;
  int64_t chunks;
};

// The part of the tensors that a block works on: a chunk of some channels of one group. Made from the
// block's index, the blocks of all channels fastest.
template <class T, int N>
struct Part {
  static constexpr int kStates = N / kLanes;  // of each channel, in this thread

  __device__ Part(const dvmsr_cuda_scan_params &p, int32_t chunk, int64_t first_chunk, int64_t chunks)
      : p(p) {
    const int64_t blocks = channel_blocks(p), row = blockIdx.x / blocks;
    index = first_chunk + row % (chunks - first_chunk);
    batch = row / (chunks - first_chunk);
    const int block = static_cast<int>(blockIdx.x % blocks), of_group = blocks_of_group(p, kThreads);
    group = block / of_group;
    end = (group + 1) * channels_of_group(p);
    channel = end - channels_of_group(p) + block % of_group * kThreads + static_cast<int>(threadIdx.x);
    active = channel < end;
    const int64_t first = index * chunk;
    token = batch * p.length + first;
    tokens = static_cast<int>(p.length - first < chunk ? p.length - first : chunk);
  }

  // The thread's channel in the first token, for the tensors with D channels. Threads without one read, and
  // do not write, the last.
  template <class P>
  __device__ P *at(P *base, int64_t stride) const {
    return base + token * stride + existing();
  }
  __device__ int existing() const { return active ? channel : end - 1; }

  // The group's part of the rows of B or C from the first token.
  __device__ const T *rows(const void *base, int64_t stride) const {
    return static_cast<const T *>(base) + token * stride + group * p.state;
  }

  // Which of the threads that share their channels.
  __device__ static int lane() { return threadIdx.x % kLanes; }
  // Slot s of the lane holds states of the channel of thread `threadIdx.x ^ s`.
  __device__ int channel_in(int s) const { return channel - lane() + (lane() ^ s); }
  // Number of its state i.
  __device__ int state(int i) const { return lane() * kStates + i; }

  // Reads a (D, N) matrix into the lane's slots; zero where there is no such channel or state.
  __device__ void load(const float *matrix, float (&to)[kLanes][kStates]) const {
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s)
      DVMSR_UNROLL for (int i = 0; i < kStates; ++i)
        to[s][i] = exists(s, i) ? matrix[channel_in(s) * p.state + state(i)] : 0.f;
  }
  // A as `rate`.
  __device__ void load_rates(float (&a)[kLanes][kStates]) const {
    load(p.A, a);
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s)
      DVMSR_UNROLL for (int i = 0; i < kStates; ++i) a[s][i] = rate(a[s][i]);
  }
  __device__ void store(const float (&from)[kLanes][kStates], float *matrix) const {
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s)
      DVMSR_UNROLL for (int i = 0; i < kStates; ++i)
        if (exists(s, i)) matrix[channel_in(s) * p.state + state(i)] = from[s][i];
  }
  __device__ bool exists(int s, int i) const { return channel_in(s) < end && state(i) < p.state; }

  const dvmsr_cuda_scan_params &p;
  int64_t batch, index, token;  // index of the chunk; its first token, counted over all batch elements
  int group, end;  // the group of channels, and the first one behind it
  int channel, tokens;
  bool active;
};

// Rows of B or C on their way into shared memory: fetch() starts the loads of one tile, put() ends
// them. Tokens and states beyond the last are zero.
template <class T, int N>
struct Rows {
  static constexpr int kPerThread = kTile * N / kThreads;
  static_assert(kTile * N % kThreads == 0, "every thread carries equally many elements");

  __device__ void fetch(const T *rows, int64_t stride, int count, int states) {
    DVMSR_UNROLL for (int i = 0; i < kPerThread; ++i) {
      const int at = i * kThreads + static_cast<int>(threadIdx.x), t = at / N, n = at % N;
      values[i] = t < count && n < states ? rows[t * stride + n] : narrow<T>(0.f);
    }
  }
  __device__ void put(float (&tile)[kTile][N]) const {
    DVMSR_UNROLL for (int i = 0; i < kPerThread; ++i) {
      const int at = i * kThreads + static_cast<int>(threadIdx.x);
      tile[at / N][at % N] = widen(values[i]);
    }
  }
  T values[kPerThread];
};

// The sum of a channel, gathered in the thread that owns it.
__device__ inline float gather(const float (&sums)[kLanes]) {
  float total = sums[0];
  DVMSR_UNROLL for (int s = 1; s < kLanes; ++s) total += __shfl_xor_sync(kAllLanes, sums[s], s);
  return total;
}

// A thread's channel in a tensor, token after token: so many of them loaded before they are needed, or one when
// it is. A pointer that goes along saves what a product of token and stride costs.
template <class T, int Ahead>
struct Column {
  __device__ Column(const T *next, int64_t stride) : next(next), stride(static_cast<int>(stride)) {}
  __device__ T take() {
    const T value = *next;
    next += stride;
    return value;
  }
  __device__ void load_ahead() {
    DVMSR_UNROLL for (int j = 0; j < Ahead; ++j) ahead[j] = take();
  }
  const T *next;  // token not yet loaded
  const int stride;
  T ahead[Ahead];
};

template <int N>
struct alignas(16) BAndC {
  float B[2][kTile][N], C[2][kTile][N];
};
template <int N>
struct alignas(16) OnlyC {
  float C[2][kTile][N];
};

template <class T, int N, bool Full>
__global__ void __launch_bounds__(kThreads, kResident<N>)
    scan_chunks(const dvmsr_cuda_scan_params p, int32_t chunk, Edges edges) {
  using P = Part<T, N>;
  constexpr int kGroup = kAhead<N>;
  const P part(p, chunk, 0, edges.chunks);
  // Threads without a channel help those of their warp with theirs; whole warps of them only load rows.
  const bool busy = __any_sync(kAllLanes, part.active);
  const int tokens = part.tokens;
  const Form<Full> form(p);
  BAndC<N> &shared = shared_memory<BAndC<N>>();

  const T *B = part.rows(p.B, p.B_stride);
  const T *C = part.rows(p.C, p.C_stride);
  T *y = part.at(static_cast<T *>(p.y), p.y_stride);
  const int y_stride = static_cast<int>(p.y_stride);
  const float skip = p.D[part.existing()], bias = p.delta_bias[part.existing()];

  float a[kLanes][P::kStates], h[kLanes][P::kStates];
  part.load_rates(a);
  const int64_t states = p.channels * p.state;
  if (part.index == 0)
    part.load(p.h0 + part.batch * states, h);
  else
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s)
      DVMSR_UNROLL for (int i = 0; i < P::kStates; ++i) h[s][i] = 0.f;
  float delta_sum = 0.f;

  Rows<T, N> next_B, next_C;
  next_B.fetch(B, p.B_stride, tokens, static_cast<int>(p.state));
  next_C.fetch(C, p.C_stride, tokens, static_cast<int>(p.state));
  Column<T, kGroup> us(part.at(static_cast<const T *>(p.u), p.u_stride), p.u_stride);
  Column<T, kGroup> deltas(part.at(static_cast<const T *>(p.delta), p.delta_stride), p.delta_stride);
  const int64_t z_stride = form.gate ? p.z_stride : p.u_stride;  // without a gate: u once more, unused
  Column<T, kGroup> zs(part.at(static_cast<const T *>(form.gate ? p.z : p.u), z_stride), z_stride);
  const auto load_ahead = [&] {
    us.load_ahead();
    deltas.load_ahead();
    zs.load_ahead();
  };
  if (tokens >= kGroup) load_ahead();

  // A token, whose rows of B and C these are.
  const auto advance = [&](T u, T delta, T z, const float(&B_row)[N], const float(&C_row)[N]) {
    const float x = widen(u), d = form.step_of(widen(delta) + bias);
    delta_sum += d;
    float step[kLanes], drive[kLanes], sums[kLanes];
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) {
      step[s] = s ? __shfl_xor_sync(kAllLanes, d, s) : d;
      drive[s] = s ? __shfl_xor_sync(kAllLanes, d * x, s) : d * x;
      sums[s] = 0.f;
    }
    const float *B_t = B_row + part.state(0), *C_t = C_row + part.state(0);
    DVMSR_UNROLL for (int i = 0; i < P::kStates; i += 4) {
      const float4 B4 = read_four(B_t + i), C4 = read_four(C_t + i);
      DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) {
        const auto one = [&](float &state, float decay, float B_tn, float C_tn) {
          state = fast_exp2(step[s] * decay) * state + drive[s] * B_tn;
          sums[s] += state * C_tn;
        };
        one(h[s][i], a[s][i], B4.x, C4.x);
        one(h[s][i + 1], a[s][i + 1], B4.y, C4.y);
        one(h[s][i + 2], a[s][i + 2], B4.z, C4.z);
        one(h[s][i + 3], a[s][i + 3], B4.w, C4.w);
      }
    }
    const float out = (skip * x + gather(sums)) * form.gate_of(widen(z));
    if (part.active) *y = narrow<T>(out);
    y += y_stride;
  };

  for (int tile = 0, buffer = 0; tile < tokens; tile += kTile, buffer ^= 1) {
    next_B.put(shared.B[buffer]);
    next_C.put(shared.C[buffer]);
    __syncthreads();  // also: nobody still reads the other buffer, which is written next
    const int after = tile + kTile;
    if (after < tokens) {
      next_B.fetch(B + after * p.B_stride, p.B_stride, tokens - after, static_cast<int>(p.state));
      next_C.fetch(C + after * p.C_stride, p.C_stride, tokens - after, static_cast<int>(p.state));
    }
    if (!busy) continue;
    const float(*B_rows)[N] = shared.B[buffer], (*C_rows)[N] = shared.C[buffer];
    const int left = tokens - tile, count = left < kTile ? left : kTile;
    int t = 0;
    for (; t + kGroup <= count; t += kGroup) {
      const Column<T, kGroup> u = us, delta = deltas, z = zs;
      if (t + 2 * kGroup <= left) load_ahead();
      DVMSR_UNROLL for (int j = 0; j < kGroup; ++j)
        advance(u.ahead[j], delta.ahead[j], z.ahead[j], B_rows[t + j], C_rows[t + j]);
    }
    DVMSR_UNROLL_BY(1) for (; t < count; ++t) {
      const T u = us.take(), delta = deltas.take();
      advance(u, delta, zs.take(), B_rows[t], C_rows[t]);
    }
  }

  if (edges.chunks == 1) {
    part.store(h, p.h_last + part.batch * states);
  } else {
    const int64_t edge = part.batch * edges.chunks + part.index;
    part.store(h, edges.states + edge * states);
    if (part.active) edges.sums[edge * p.channels + part.channel] = delta_sum;
  }
}

constexpr int kJoinStates = 32;  // per block, one to a lane
constexpr int kJoinRanges = 16;  // ranges of chunks per block, one to a warp

struct Ranges {
  float state[kJoinRanges][kJoinStates], sum[kJoinRanges][kJoinStates];
};

// Replaces the state after every chunk from a zero state by the true one, and writes h_last. Every
// warp first composes the chunks of its range into one, then walks them from their true start.
static __global__ void __launch_bounds__(kJoinStates *kJoinRanges, 1)
    join_chunks(const dvmsr_cuda_scan_params p, Edges edges) {
  Ranges &shared = shared_memory<Ranges>();
  const int lane = threadIdx.x % kJoinStates, range = threadIdx.x / kJoinStates;
  const int64_t states = p.channels * p.state, blocks = ceil_div(states, kJoinStates);
  const int64_t batch = blockIdx.x / blocks, wanted = blockIdx.x % blocks * kJoinStates + lane;
  const bool active = wanted < states;
  const int64_t i = active ? wanted : states - 1, channel = i / p.state;
  const float a = rate(p.A[i]);
  float *const state = edges.states + batch * edges.chunks * states + i;
  const float *const sum = edges.sums + batch * edges.chunks * p.channels + channel;

  // The first chunk is true already.
  const int64_t length = ceil_div(edges.chunks - 1, kJoinRanges);
  const int64_t first = 1 + range * length;
  const int64_t last = first + length < edges.chunks ? first + length : edges.chunks;
  const int64_t end = active ? last : first;
  float h = 0.f, total = 0.f;
  DVMSR_UNROLL_BY(8) for (int64_t k = first; k < end; ++k) {
    const float delta = sum[k * p.channels];
    h = carried(a * delta, h) + state[k * states];
    total += delta;
  }
  shared.state[range][lane] = h;
  shared.sum[range][lane] = total;
  __syncthreads();

  h = state[0];
  for (int r = 0; r < range; ++r)
    h = carried(a * shared.sum[r][lane], h) + shared.state[r][lane];
  DVMSR_UNROLL_BY(8) for (int64_t k = first; k < end; ++k) {
    h = carried(a * sum[k * p.channels], h) + state[k * states];
    if (active) state[k * states] = h;
  }
  if (active && first < edges.chunks && end == edges.chunks) p.h_last[batch * states + i] = h;
}

template <class T, int N, bool Full>
__global__ void __launch_bounds__(kThreads, kResident<N>)
    add_initial(const dvmsr_cuda_scan_params p, int32_t chunk, Edges edges) {
  using P = Part<T, N>;
  constexpr int kGroup = kAhead<N>;
  const P part(p, chunk, 1, edges.chunks);
  const int tokens = part.tokens;
  const Form<Full> form(p);
  OnlyC<N> &shared = shared_memory<OnlyC<N>>();

  const T *C = part.rows(p.C, p.C_stride);
  T *y = part.at(static_cast<T *>(p.y), p.y_stride);
  const int y_stride = static_cast<int>(p.y_stride);
  const float bias = p.delta_bias[part.existing()];

  float a[kLanes][P::kStates], h[kLanes][P::kStates];
  part.load_rates(a);
  const int64_t before = part.batch * edges.chunks + part.index - 1;
  part.load(edges.states + before * p.channels * p.state, h);

  // The sum of delta at which a slot's last decay becomes negligible. Never, where a decay does not
  // shrink or is no number, a state is not finite, or steps may be negative; at once, where all states
  // are zero.
  float reach[kLanes], sum[kLanes];
  DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) {
    sum[s] = 0.f;
    reach[s] = -INFINITY;
    DVMSR_UNROLL for (int i = 0; i < P::kStates; ++i) {
      if (h[s][i] == 0.f) a[s][i] = 0.f;  // as `carried`
      const bool decays = form.softplus && a[s][i] < 0.f && fabsf(h[s][i]) <= kLargest;
      const float needed = decays ? kNegligible / a[s][i] : INFINITY;
      if (h[s][i] != 0.f) reach[s] = fmaxf(reach[s], needed);
    }
  }
  const auto alive = [&] {
    bool any = false;
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) any |= !(sum[s] >= reach[s]);  // true for NaN
    return any;
  };

  Rows<T, N> next_C;
  next_C.fetch(C, p.C_stride, tokens, static_cast<int>(p.state));
  Column<T, kGroup> deltas(part.at(static_cast<const T *>(p.delta), p.delta_stride), p.delta_stride);
  const int64_t z_stride = form.gate ? p.z_stride : p.delta_stride;  // as in scan_chunks
  Column<T, kGroup> zs(part.at(static_cast<const T *>(form.gate ? p.z : p.delta), z_stride), z_stride);
  // A lane without a channel must not read the y that another lane writes: it reads delta once more.
  const T *from = part.active ? y : part.at(static_cast<const T *>(p.delta), p.delta_stride);
  Column<T, kGroup> ys(from, part.active ? p.y_stride : p.delta_stride);
  const auto load_ahead = [&] {
    deltas.load_ahead();
    ys.load_ahead();
    zs.load_ahead();
  };
  if (tokens >= kGroup) load_ahead();

  const auto add = [&](T delta, T before, T z, const float(&C_row)[N]) {
    const float d = form.step_of(widen(delta) + bias);
    float sums[kLanes];
    DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) {
      sum[s] += s ? __shfl_xor_sync(kAllLanes, d, s) : d;
      sums[s] = 0.f;
    }
    const float *C_t = C_row + part.state(0);
    DVMSR_UNROLL for (int i = 0; i < P::kStates; i += 4) {
      const float4 C4 = read_four(C_t + i);
      DVMSR_UNROLL for (int s = 0; s < kLanes; ++s) {
        sums[s] += fast_exp2(sum[s] * a[s][i]) * h[s][i] * C4.x;
        sums[s] += fast_exp2(sum[s] * a[s][i + 1]) * h[s][i + 1] * C4.y;
        sums[s] += fast_exp2(sum[s] * a[s][i + 2]) * h[s][i + 2] * C4.z;
        sums[s] += fast_exp2(sum[s] * a[s][i + 3]) * h[s][i + 3] * C4.w;
      }
    }
    const float out = widen(before) + gather(sums) * form.gate_of(widen(z));
    if (part.active) *y = narrow<T>(out);
    y += y_stride;
  };

  for (int tile = 0, buffer = 0; tile < tokens; tile += kTile, buffer ^= 1) {
    next_C.put(shared.C[buffer]);
    if (!__syncthreads_or(alive())) break;
    const int after = tile + kTile;
    if (after < tokens)
      next_C.fetch(C + after * p.C_stride, p.C_stride, tokens - after, static_cast<int>(p.state));
    if (!__any_sync(kAllLanes, alive())) continue;  // for good: sums do not shrink, or all states are zero
    const float(*C_rows)[N] = shared.C[buffer];
    const int left = tokens - tile, count = left < kTile ? left : kTile;
    int t = 0;
    for (; t + kGroup <= count; t += kGroup) {
      const Column<T, kGroup> delta = deltas, before = ys, z = zs;
      if (t + 2 * kGroup <= left) load_ahead();
      DVMSR_UNROLL for (int j = 0; j < kGroup; ++j)
        add(delta.ahead[j], before.ahead[j], z.ahead[j], C_rows[t + j]);
    }
    DVMSR_UNROLL_BY(1) for (; t < count; ++t) {
      const T delta = deltas.take(), before = ys.take();
      add(delta, before, zs.take(), C_rows[t]);
    }
  }
}

// The launches for one activation type, up to N states, and one form.
template <class T, int N, bool Full>
cudaError_t scan(const dvmsr_cuda_scan_params &p, int32_t chunk, Edges edges, cudaStream_t stream) {
  const int64_t columns = p.batch * channel_blocks(p);
  cudaError_t status = launch(scan_chunks<T, N, Full>, columns * edges.chunks, kThreads, stream, p, chunk, edges);
  if (status != cudaSuccess || edges.chunks == 1) return status;
  const int64_t joins = p.batch * ceil_div(p.channels * p.state, kJoinStates);
  status = launch(join_chunks, joins, kJoinStates * kJoinRanges, stream, p, edges);
  if (status != cudaSuccess) return status;
  return launch(add_initial<T, N, Full>, columns * (edges.chunks - 1), kThreads, stream, p, chunk, edges);
}

template <class T, int N>
cudaError_t scan(const dvmsr_cuda_scan_params &p, int32_t chunk, Edges edges, cudaStream_t stream) {
  const bool full = p.delta_softplus && p.z;
  return full ? scan<T, N, true>(p, chunk, edges, stream) : scan<T, N, false>(p, chunk, edges, stream);
}

template <class T>
cudaError_t scan(const dvmsr_cuda_scan_params &p, int32_t chunk, Edges edges, cudaStream_t stream) {
  return p.state <= 16 ? scan<T, 16>(p, chunk, edges, stream) : scan<T, 64>(p, chunk, edges, stream);
}

extern template cudaError_t scan<float>(const dvmsr_cuda_scan_params &, int32_t, Edges, cudaStream_t);
extern template cudaError_t scan<__half>(const dvmsr_cuda_scan_params &, int32_t, Edges, cudaStream_t);
extern template cudaError_t scan<__nv_bfloat16>(const dvmsr_cuda_scan_params &, int32_t, Edges,
                                                cudaStream_t);

}  // namespace dvmsr::cuda
