// The selective scan with one exponential per state and token (docs/cuda-scan.md).
//
//   reach_back  the state before every range of tokens but the first, as if the range before it had begun
//               from zero: a plain sum, which walks back no further than what still counts
//   relay       every range from its true start, which follows from these; one range needs no reach_back
//
// In relay a block owns 32 channels of a range, one to a lane, and its warps take slices of kTokens tokens in
// turn. A warp holds steps, drives and y of its slice in registers and walks over the states; what links the
// slices, the state of each channel, lies in shared memory together with the number of the slice whose turn it
// is. Every state has a turn of its own, so that the warps work on different states at the same time.
#pragma once

#include "scan.cuh"

namespace dvmsr::cuda::relay {

constexpr int kLanes = 32;   // channels of a block
constexpr int kTokens = 16;  // of a slice

// States whose rows of B and C are in shared memory together.
template <int N>
constexpr int kStates = N < 16 ? N : 16;
// How many such blocks a call's states take.
template <int N>
__host__ __device__ inline int state_blocks(const dvmsr_cuda_scan_params &p) {
  return N == kStates<N> ? 1 : static_cast<int>(ceil_div(p.state, kStates<N>));
}

// Of the loop over them, without the last one: more is more code, less has more of its own instructions.
template <int N>
#if DVMSR_CUDA_ACCURATE_DECAYS
constexpr int kUnrolled = 1;  // or it spills
#else
constexpr int kUnrolled = N >= 16 ? 5 : 1;
#endif

template <int N>
constexpr int kWarps = N <= 16 ? 16 : 8;

// Of up to kLanes channels.
__host__ __device__ inline int64_t columns_of(const dvmsr_cuda_scan_params &p) { return blocks_of_all(p, kLanes); }

// How the sequence is cut, and the workspace: what reach_back found before each range but the first.
struct Ranges {
  int32_t length;  // tokens, a multiple of kTokens where there are several
  int32_t count;
  float *states;  // by batch element, column, range and block of states: (kStates, kLanes)
  float *sums;    // likewise: of delta (kLanes)
};

// The number of states that the kernels are compiled for, at least so many.
__host__ __device__ constexpr int states_for(int64_t state) {
  return state == 1 ? 1 : state <= 8 ? 8 : state <= 16 ? 16 : 64;
}

// Floats of workspace for one column before one range, and where they lie.
inline int64_t states_of_column(const dvmsr_cuda_scan_params &p) {
  return (states_for(p.state) <= 16 ? states_for(p.state) : ceil_div(p.state, 16) * 16) * kLanes;
}
inline int64_t workspace_of_column(const dvmsr_cuda_scan_params &p) {
  return states_of_column(p) + ceil_div(p.state, 16) * kLanes;
}
inline Ranges place(const dvmsr_cuda_scan_params &p, int64_t length, int64_t count, float *workspace) {
  const int64_t columns = p.batch * (count - 1) * columns_of(p);
  return {static_cast<int32_t>(length), static_cast<int32_t>(count), workspace,
          workspace + columns * states_of_column(p)};
}

// The channels that a block works on.
struct Column {
  __device__ Column(const dvmsr_cuda_scan_params &p, int column) {
    const int of_group = blocks_of_group(p, kLanes), channels = channels_of_group(p);
    group = column / of_group;
    first = group * channels + column % of_group * kLanes;
    end = (group + 1) * channels;
  }
  // A lane without a channel of its own repeats the last one.
  __device__ int channel(int lane) const { return first + lane < end ? first + lane : end - 1; }

  int group, first, end;
};

// Element `channel` of a token, counted over all batch elements.
template <class T>
__device__ const T *at(const void *base, int64_t stride, int64_t token, int channel) {
  return static_cast<const T *>(base) + token * stride + channel;
}

// A warp's B and C of a slice: the tokens of a state side by side, to be read by all lanes at once.
template <int N>
struct alignas(16) Rows {
  float B[kStates<N>][kTokens], C[kStates<N>][kTokens];
#if DVMSR_CUDA_ACCURATE_DECAYS
  volatile float longest[kLanes];  // step, by magnitude; read where it is needed, as Part
#endif
};

// What a block works on. It lies in shared memory and is read where it is needed, so that none of it takes a register
// while a warp walks over the states: there all 128 are in use.
struct Part {
  int64_t token;      // the range's first, counted over all batch elements
  int64_t last_from;  // where its states are in h_last; below zero: they are no last ones
  int32_t tokens, channel, channels, first_state;  // first channel, and of a row of B and C
};

template <int N>
struct alignas(16) Shared {
  Turn turns[N][kLanes];
  float rates[N][kLanes];
  float skip[kLanes], bias[kLanes];
  volatile Part part;
  Rows<N> rows[kWarps<N>];
};

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T values[kWidth];
};

// How many neighbouring states of B and C a lane reads at once: sixteen bytes where rows are aligned.
template <class T, int N>
constexpr int kVector = kStates<N> % (16 / sizeof(T)) == 0 ? 16 / sizeof(T) : 1;

// Whether all rows of B and C are.
template <class T, int N>
bool aligned(const dvmsr_cuda_scan_params &p) {
  const auto bytes = [](const void *base, int64_t stride) {
    return reinterpret_cast<uintptr_t>(base) | static_cast<uintptr_t>(stride) * sizeof(T);
  };
  const uintptr_t all = bytes(p.B, p.B_stride) | bytes(p.C, p.C_stride) | static_cast<uintptr_t>(p.state) * sizeof(T);
  return p.state % kStates<N> == 0 && all % 16 == 0;
}

// Brings a block of states, of `count` tokens, into a warp's rows, kWidth states to a read; those that do not exist
// are zero. Where kWidth is above 1 all states do.
template <class T, int N, int kWidth, bool Whole>
__device__ void stage(const dvmsr_cuda_scan_params &p, int64_t token, int first, int block, int count, Rows<N> &rows) {
  constexpr int kOfToken = kStates<N> / kWidth, kOfTensor = kTokens * kOfToken;
  const int lane = threadIdx.x % kLanes, states = static_cast<int>(p.state) - block * kStates<N>;
  first += block * kStates<N>;
  const T *const B = at<T>(p.B, p.B_stride, token, first), *const C = at<T>(p.C, p.C_stride, token, first);
  DVMSR_UNROLL_BY(4) for (int pass = 0; pass < 2 * kOfTensor / kLanes; ++pass) {
    const int i = pass * kLanes + lane;
    const bool second = i >= kOfTensor;
    const int item = i % kOfTensor, t = item / kOfToken, n = item % kOfToken * kWidth;
    float *const to = &(second ? rows.C : rows.B)[n][t];
    if ((Whole || t < count) && (kWidth > 1 || n < states)) {
      const T *const from = (second ? C + t * p.C_stride : B + t * p.B_stride) + n;
      const auto values = *reinterpret_cast<const Vector<T, kWidth> *>(from);
      DVMSR_UNROLL for (int k = 0; k < kWidth; ++k) to[k * kTokens] = widen(values.values[k]);
    } else {
      DVMSR_UNROLL for (int k = 0; k < kWidth; ++k) to[k * kTokens] = 0.f;
    }
  }
}

// What a warp keeps of a slice: of its lane's channel and each token the step, the step times u, and y.
struct Slice {
  float step[kTokens], drive[kTokens], y[kTokens];
};

// The decays of a slice for a state's rate.
template <int N>
__device__ void decays_of(const Slice &s, [[maybe_unused]] const Rows<N> &rows, float rate, float (&decay)[kTokens]) {
#if DVMSR_CUDA_ACCURATE_DECAYS
  const float longest = rows.longest[threadIdx.x % kLanes];
  if (__all_sync(kAllLanes, fabsf(longest * rate) <= kNearZero)) {
    DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) decay[j] = exp2_near_zero(s.step[j] * rate);
    return;
  }
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) {
    const float x = s.step[j] * rate;
    decay[j] = fabsf(x) <= kNearZero ? exp2_near_zero(x) : fast_exp2(x);
  }
#else
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) decay[j] = fast_exp2(s.step[j] * rate);
#endif
}

// What the tokens of a slice add to a state.
__device__ inline void drives_of(const Slice &s, const float *B, float (&state)[kTokens]) {
  DVMSR_UNROLL for (int j = 0; j < kTokens; j += 4) {
    const float4 B4 = read_four(B + j);
    state[j] = s.drive[j] * B4.x;
    state[j + 1] = s.drive[j + 1] * B4.y;
    state[j + 2] = s.drive[j + 2] * B4.z;
    state[j + 3] = s.drive[j + 3] * B4.w;
  }
}

// Takes over a state from the slice before, walks it over the tokens, and hands it on before anything else.
__device__ inline void advance(Turn &turn, uint32_t slice, float (&decay)[kTokens], float (&state)[kTokens]) {
  float h = wait_for_turn(turn, slice);
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) state[j] = h = decay[j] * h + state[j];
  hand_on(turn, h, slice + 1);
  keep_order(decay);
}

// Adds a state's part to y.
__device__ inline void add_to_y(const float (&state)[kTokens], const float *C, float (&y)[kTokens]) {
  DVMSR_UNROLL for (int j = 0; j < kTokens; j += 4) {
    const float4 C4 = read_four(C + j);
    y[j] += state[j] * C4.x;
    y[j + 1] += state[j + 1] * C4.y;
    y[j + 2] += state[j + 2] * C4.z;
    y[j + 3] += state[j + 3] * C4.w;
  }
}

// Where a slice of a part begins, as a lane sees it.
struct Place {
  __device__ Place(const volatile Part &part, uint32_t slice) {
    const int lane = threadIdx.x % kLanes, first = part.channel, channels = part.channels;
    const int before = static_cast<int>(slice) * kTokens;
    exists = lane < channels;
    channel = first + (exists ? lane : channels - 1);  // a lane without a channel of its own repeats the last one
    token = part.token + before;
    count = part.tokens - before;
  }
  int64_t token;
  int channel, count;
  bool exists;
};

// The first part of a slice: its rows of the first block of states, and everything of its tokens that no state is
// needed for. Tokens beyond the last leave the states as they are: step and drive are zero.
template <class T, int N, bool Full, int kWidth, bool Whole>
__device__ void begin_slice(const dvmsr_cuda_scan_params &p, Shared<N> &shared, Rows<N> &rows, uint32_t slice, Slice &s) {
  const Form<Full> form(p);
  const Place place(shared.part, slice);
  __syncwarp();  // nobody still reads the rows of the slice before
  stage<T, N, kWidth, Whole>(p, place.token, shared.part.first_state, 0, place.count, rows);
  const T *u = at<T>(p.u, p.u_stride, place.token, place.channel);
  const T *delta = at<T>(p.delta, p.delta_stride, place.token, place.channel);
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) {
    const bool exists = Whole || j < place.count;
    s.drive[j] = exists ? widen(*steps_on(u, p.u_stride, j)) : 0.f;
    s.step[j] = exists ? widen(*steps_on(delta, p.delta_stride, j)) : 0.f;
  }
  const int lane = threadIdx.x % kLanes;
  const float skip = shared.skip[lane], bias = shared.bias[lane];
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) {
    s.y[j] = skip * s.drive[j];
    s.step[j] = Whole || j < place.count ? form.step_of(s.step[j] + bias) : 0.f;
    s.drive[j] *= s.step[j];
  }
#if DVMSR_CUDA_ACCURATE_DECAYS
  float longest = 0.f;
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j) longest = fmaxf(longest, fabsf(s.step[j]));
  rows.longest[lane] = longest;
#endif
  __syncwarp();
}

// The last part: the gate, and y into memory.
template <class T, int N, bool Full, bool Whole>
__device__ void end_slice(const dvmsr_cuda_scan_params &p, Shared<N> &shared, uint32_t slice, Slice &s) {
  const Form<Full> form(p);
  const Place place(shared.part, slice);
  if (form.gate) {
    const T *z = at<T>(p.z, p.z_stride, place.token, place.channel);
    DVMSR_UNROLL for (int j = 0; j < kTokens; ++j)
      if (Whole || j < place.count) s.y[j] *= silu(widen(*steps_on(z, p.z_stride, j)));
  }
  T *y = static_cast<T *>(p.y) + place.token * p.y_stride + place.channel;
  DVMSR_UNROLL for (int j = 0; j < kTokens; ++j)
    if (place.exists && (Whole || j < place.count)) *steps_on(y, p.y_stride, j) = narrow<T>(s.y[j]);
}

// One slice of a warp, of kTokens tokens where Whole.
template <class T, int N, bool Full, int kWidth, bool Whole>
__device__ void take_slice(const dvmsr_cuda_scan_params &p, Shared<N> &shared, uint32_t slice) {
  constexpr int kLast = kStates<N> - 1;
  const int lane = threadIdx.x % kLanes;
  Rows<N> &rows = shared.rows[threadIdx.x / kLanes];
  Slice s;
  begin_slice<T, N, Full, kWidth, Whole>(p, shared, rows, slice, s);
  float decay[kTokens], state[kTokens];
  for (int block = 0; block < state_blocks<N>(p); ++block) {
    if (block > 0) {
      const Place place(shared.part, slice);
      __syncwarp();
      stage<T, N, kWidth, Whole>(p, place.token, shared.part.first_state, block, place.count, rows);
      __syncwarp();
    }
    const int first = block * kStates<N>;
    decays_of(s, rows, shared.rates[first][lane], decay);
    drives_of(s, rows.B[0], state);
    DVMSR_UNROLL_BY(kUnrolled<N>) for (int n = 0; n < kLast; ++n) {
      const float rate = shared.rates[first + n + 1][lane];
      advance(shared.turns[first + n][lane], slice, decay, state);
      decays_of(s, rows, rate, decay);
      add_to_y(state, rows.C[n], s.y);
      drives_of(s, rows.B[n + 1], state);
    }
    advance(shared.turns[first + kLast][lane], slice, decay, state);
    add_to_y(state, rows.C[kLast], s.y);
  }
  end_slice<T, N, Full, Whole>(p, shared, slice, s);
}

// A state before a range: what reach_back found of the ranges before it, as far as it still counts, and h0.
template <int N>
__device__ float start_of(const dvmsr_cuda_scan_params &p, const Ranges &ranges, int64_t column, int range, int n,
                          int lane, float rate, float h0) {
  constexpr int kTogether = 4;  // ranges that are read at once
  float h = 0.f, after = 0.f;
  for (int last = range - 1; last >= 0; last -= kTogether) {
    float states[kTogether], sums[kTogether];
    DVMSR_UNROLL for (int i = 0; i < kTogether; ++i) {
      const int64_t of_column = column * (ranges.count - 1) + (last - i > 0 ? last - i : 0);
      const int64_t place = of_column * state_blocks<N>(p) + n / kStates<N>;
      states[i] = ranges.states[(place * kStates<N> + n % kStates<N>) * kLanes + lane];
      sums[i] = ranges.sums[place * kLanes + lane];
    }
    DVMSR_UNROLL for (int i = 0; i < kTogether; ++i) {
      if (last - i < 0) break;
      h += carried(rate * after, states[i]);
      after += sums[i];
      if (p.delta_softplus && rate * after <= kNegligible) return h;
    }
  }
  return h + carried(rate * after, h0);
}

template <class T, int N, bool Full, int kWidth>
__global__ void __launch_bounds__(kWarps<N> *kLanes, 1) relay(const dvmsr_cuda_scan_params p, const Ranges ranges) {
  Shared<N> &shared = shared_memory<Shared<N>>();
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const unsigned columns = static_cast<unsigned>(columns_of(p));
  const unsigned index = blockIdx.x % columns, range = blockIdx.x / columns % ranges.count;
  const int64_t batch = blockIdx.x / columns / ranges.count;
  const Column column(p, static_cast<int>(index));
  const int channel = column.channel(lane);

  for (int n = warp; n < N; n += kWarps<N>) {
    float h = 0.f, a = 0.f;
    if (n < p.state) {
      a = rate(p.A[channel * p.state + n]);
      const float h0 = p.h0[(batch * p.channels + channel) * p.state + n];
      h = start_of<N>(p, ranges, batch * columns + index, static_cast<int>(range), n, lane, a, h0);
    }
    shared.rates[n][lane] = a;
    hand_on(shared.turns[n][lane], h, 0);
  }
  if (warp == 0) {
    shared.skip[lane] = p.D[channel];
    shared.bias[lane] = p.delta_bias[channel];
  }
  if (threadIdx.x == 0) {
    const int64_t first = static_cast<int64_t>(range) * ranges.length, rest = p.length - first;
    volatile Part &part = shared.part;
    part.token = batch * p.length + first;
    part.tokens = static_cast<int>(rest < ranges.length ? rest : ranges.length);
    part.channel = column.first;
    part.channels = column.end - column.first < kLanes ? column.end - column.first : kLanes;
    part.first_state = static_cast<int>(column.group * p.state);
    part.last_from = range + 1 == static_cast<unsigned>(ranges.count) ? (batch * p.channels + column.first) * p.state : -1;
  }
  __syncthreads();

  for (int slice = warp; slice * kTokens < shared.part.tokens; slice += kWarps<N>) {
    if ((slice + 1) * kTokens <= shared.part.tokens)
      take_slice<T, N, Full, kWidth, true>(p, shared, slice);
    else
      take_slice<T, N, Full, kWidth, false>(p, shared, slice);
  }
  __syncthreads();
  const int64_t last = shared.part.last_from;
  if (last < 0 || lane >= shared.part.channels) return;
  for (int n = warp; n < N; n += kWarps<N>)
    if (n < p.state) p.h_last[last + lane * p.state + n] = read_turn(shared.turns[n][lane]).value;
}

constexpr int kTile = 128;                     // tokens whose u, delta and B are in shared memory together
constexpr int kSlice = 2 * kLanes;             // tokens that a warp sums at a time, two to a lane
constexpr int kReachWarps = 16;
constexpr int kOfWarp = kLanes / kReachWarps;  // channels

template <int S>
constexpr int kAtOnce = S < 4 ? S : 4;  // rates that are read together

template <int S>
struct alignas(16) Tile {
  float u[kTile][kLanes + 1], delta[kTile][kLanes + 1];
  float B[S][kTile + 2];  // an even row, for pairs, that starts two banks after the one before
  float rates[kLanes][S];
};

// The state before range k + 1 from zero at the start of range k, of one column and one block of S states:
//   sum over t of exp(A sum of delta behind t) delta_t u_t B_t.
// Lanes are tokens, and a warp takes a channel at a time: so every channel stops where nothing before still
// counts, and every state is left out from where it does not.
template <class T, int S, bool Softplus>
__global__ void __launch_bounds__(kReachWarps *kLanes, 1) reach_back(const dvmsr_cuda_scan_params p, const Ranges ranges,
                                                                      int blocks) {
  Tile<S> &tile = shared_memory<Tile<S>>();
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const unsigned columns = static_cast<unsigned>(columns_of(p)), befores = ranges.count - 1;
  unsigned index = blockIdx.x;
  const int block = static_cast<int>(index % blocks);
  index /= blocks;
  const Column column(p, static_cast<int>(index % columns));
  const int64_t range = index / columns % befores, batch = index / columns / befores;
  const int64_t place = ((batch * columns + index % columns) * befores + range) * blocks + block;
  const int64_t origin = batch * p.length + range * ranges.length;  // the range's first token
  const int states = static_cast<int>(p.state) - block * S;         // those beyond decay at once

  for (int i = threadIdx.x; i < kLanes * S; i += kReachWarps * kLanes) {
    const int channel = column.channel(i / S), n = i % S;
    tile.rates[i / S][n] = n < states ? rate(p.A[channel * p.state + block * S + n]) : -kLargest;
  }
  __syncthreads();

  float sums[kOfWarp][S], after[kOfWarp], bias[kOfWarp], slowest[kOfWarp];
  bool alive[kOfWarp];
  DVMSR_UNROLL for (int c = 0; c < kOfWarp; ++c) {
    DVMSR_UNROLL for (int n = 0; n < S; ++n) sums[c][n] = 0.f;
    after[c] = 0.f;
    slowest[c] = -kLargest;
    DVMSR_UNROLL for (int n = 0; n < S; ++n) {
      const float a = tile.rates[warp * kOfWarp + c][n];
      slowest[c] = a <= slowest[c] || slowest[c] != slowest[c] ? slowest[c] : a;  // NaN stays
    }
    bias[c] = p.delta_bias[column.channel(warp * kOfWarp + c)];
    alive[c] = column.first + warp * kOfWarp + c < column.end;
  }

  // From the end of the range to its start; tokens before the start have step and drive zero.
  for (int begin = ranges.length - kTile; begin > -kTile; begin -= kTile) {
    bool any = false;
    DVMSR_UNROLL for (int c = 0; c < kOfWarp; ++c) any |= alive[c];
    if (!__syncthreads_or(any)) break;
    const int64_t token = origin + begin;
    DVMSR_UNROLL_BY(4) for (int t = warp; t < kTile; t += kReachWarps) {
      const bool exists = begin + t >= 0;
      const int channel = column.channel(lane);
      tile.u[t][lane] = exists ? widen(*at<T>(p.u, p.u_stride, token + t, channel)) : 0.f;
      tile.delta[t][lane] = exists ? widen(*at<T>(p.delta, p.delta_stride, token + t, channel)) : 0.f;
    }
    DVMSR_UNROLL_BY(4) for (int i = threadIdx.x; i < kTile * S; i += kReachWarps * kLanes) {
      const int t = i / S, n = i % S;
      const bool exists = begin + t >= 0 && n < states;
      const int at_state = static_cast<int>(column.group * p.state) + block * S + n;
      tile.B[n][t] = exists ? widen(*at<T>(p.B, p.B_stride, token + t, at_state)) : 0.f;
    }
    __syncthreads();

    DVMSR_UNROLL for (int c = 0; c < kOfWarp; ++c) {
      const int of_column = warp * kOfWarp + c;
      for (int t = kTile - kSlice; alive[c] && t >= 0; t -= kSlice) {
        float step[2], drive[2];
        DVMSR_UNROLL for (int j = 0; j < 2; ++j) {
          const int at_token = t + 2 * lane + j;
          const float biased = tile.delta[at_token][of_column] + bias[c];
          const bool exists = begin + at_token >= 0;
          step[j] = exists ? (Softplus ? softplus(biased) : biased) : 0.f;
          drive[j] = step[j] * tile.u[at_token][of_column];
        }
        // The sum of the steps from this lane's on.
        float behind = step[0] + step[1];
        DVMSR_UNROLL for (int k = 1; k < kLanes; k *= 2) {
          const float more = __shfl_down_sync(kAllLanes, behind, k);
          behind += lane + k < kLanes ? more : 0.f;
        }
        // Not by subtraction: what is left of rounding would be a negative time, in which a fast decay grows.
        const float next = __shfl_down_sync(kAllLanes, behind, 1);
        const float before = (lane + 1 < kLanes ? next : 0.f) + after[c];
        // A token that adds nothing has no time behind it, in which a state that grows would become infinite: of nothing,
        // not a number.
        const float first = drive[0] == 0.f ? 0.f : before + step[1], last = drive[1] == 0.f ? 0.f : before;
        DVMSR_UNROLL for (int group = 0; group < S; group += kAtOnce<S>) {
          const auto rates = *reinterpret_cast<const Vector<float, kAtOnce<S>> *>(&tile.rates[of_column][group]);
          DVMSR_UNROLL for (int k = 0; k < kAtOnce<S>; ++k) {
            // The same for all lanes, which the vote tells the compiler. What is negligible stays so, unless steps
            // may be negative.
            const float a = rates.values[k];
            if (!__any_sync(kAllLanes, !Softplus || !(a * after[c] <= kNegligible))) continue;
            const int n = group + k;
            const float2 B = *reinterpret_cast<const float2 *>(&tile.B[n][t + 2 * lane]);
            sums[c][n] += fast_exp2(a * first) * drive[0] * B.x;
            sums[c][n] += fast_exp2(a * last) * drive[1] * B.y;
          }
        }
        after[c] += __shfl_sync(kAllLanes, behind, 0);
        alive[c] = !Softplus || !(slowest[c] * after[c] <= kNegligible);
      }
    }
  }

  DVMSR_UNROLL for (int c = 0; c < kOfWarp; ++c) {
    const int of_column = warp * kOfWarp + c;
    DVMSR_UNROLL for (int n = 0; n < S; ++n) {
      float sum = sums[c][n];
      DVMSR_UNROLL for (int k = kLanes / 2; k > 0; k /= 2) sum += __shfl_xor_sync(kAllLanes, sum, k);
      if (lane == 0) ranges.states[(place * S + n) * kLanes + of_column] = sum;
    }
    // Infinite where the walk ended early: nothing before the range counts.
    if (lane == 0) ranges.sums[place * kLanes + of_column] = alive[c] ? after[c] : INFINITY;
  }
}

// The launches for one activation type, up to N states, one form, and how rows are read.
template <class T, int N, bool Full, int kWidth>
cudaError_t scan(const dvmsr_cuda_scan_params &p, const Ranges &ranges, cudaStream_t stream) {
  const int64_t columns = p.batch * columns_of(p);
  if (ranges.count > 1) {
    const int blocks = state_blocks<N>(p);
    const auto kernel = p.delta_softplus ? reach_back<T, kStates<N>, true> : reach_back<T, kStates<N>, false>;
    const cudaError_t status = launch(kernel, columns * (ranges.count - 1) * blocks,
                                      kReachWarps * kLanes, stream, p, ranges, blocks);
    if (status != cudaSuccess) return status;
  }
  return launch(relay<T, N, Full, kWidth>, columns * ranges.count, kWarps<N> * kLanes, stream, p, ranges);
}

// Softplus and gate with aligned rows is a kernel of its own, and so is every form with aligned rows.
template <class T, int N>
cudaError_t scan(const dvmsr_cuda_scan_params &p, const Ranges &ranges, cudaStream_t stream) {
  constexpr int kWidth = kVector<T, N>;
  if (kWidth > 1 && !aligned<T, N>(p)) return scan<T, N, false, 1>(p, ranges, stream);
  if (p.delta_softplus && p.z) return scan<T, N, true, kWidth>(p, ranges, stream);
  return scan<T, N, false, kWidth>(p, ranges, stream);
}

template <class T>
cudaError_t scan(const dvmsr_cuda_scan_params &p, const Ranges &ranges, cudaStream_t stream) {
  switch (states_for(p.state)) {
    case 1: return scan<T, 1>(p, ranges, stream);
    case 8: return scan<T, 8>(p, ranges, stream);
    case 16: return scan<T, 16>(p, ranges, stream);
    default: return scan<T, 64>(p, ranges, stream);
  }
}

extern template cudaError_t scan<float>(const dvmsr_cuda_scan_params &, const Ranges &, cudaStream_t);
extern template cudaError_t scan<__half>(const dvmsr_cuda_scan_params &, const Ranges &, cudaStream_t);
extern template cudaError_t scan<__nv_bfloat16>(const dvmsr_cuda_scan_params &, const Ranges &, cudaStream_t);

}  // namespace dvmsr::cuda::relay
