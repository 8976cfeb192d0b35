// The causal depthwise convolution, with SiLU or without. Bound by memory: a thread takes a few
// neighbouring channels (64 bits where the tensors allow it) through kRun tokens and starts all its
// loads at once.
#pragma once

#include "causal_conv1d.h"
#include "device.cuh"

namespace dvmsr::cuda {

constexpr int kConvThreads = 128;
constexpr int kRun = 16;  // tokens per thread

template <class T, int Vector>
struct alignas(sizeof(T) * Vector) Packed {
  T values[Vector];
};

// `Vector` channels of token t >= -(K-1) of batch element b, out of tail or x.
template <int Vector, class T>
__device__ Packed<T, Vector> load(const dvmsr_cuda_conv_params &p, int64_t b, int64_t t, int64_t channel) {
  const T *x = static_cast<const T *>(p.x) + (b * p.length + t) * p.x_stride;
  const T *tail = static_cast<const T *>(p.tail) + ((b + 1) * (p.width - 1) + t) * p.channels;
  return *reinterpret_cast<const Packed<T, Vector> *>((t < 0 ? tail : x) + channel);
}

template <bool Silu, class T, int Vector>
__device__ void store(T *y, const float (&sums)[Vector]) {
  Packed<T, Vector> out;
  DVMSR_UNROLL for (int v = 0; v < Vector; ++v) out.values[v] = narrow<T>(Silu ? silu(sums[v]) : sums[v]);
  *reinterpret_cast<Packed<T, Vector> *>(y) = out;
}

// Width: K where it is known, else 0; then every token loads its own taps.
template <class T, int Vector, int Width, bool Silu>
__global__ void __launch_bounds__(kConvThreads) conv_tokens(const dvmsr_cuda_conv_params p) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  const int64_t kept = p.width - 1;
  for (int64_t i = thread; i < p.batch * kept * p.channels; i += int64_t{gridDim.x} * kConvThreads) {
    const int64_t row = i / p.channels, b = row / kept, t = p.length - kept + row % kept;
    static_cast<T *>(p.new_tail)[i] = load<1, T>(p, b, t, i % p.channels).values[0];
  }

  // Neighbouring threads take neighbouring channels, then the next run of tokens.
  const int64_t vectors = p.channels / Vector, runs = ceil_div(p.length, kRun);
  if (thread >= p.batch * runs * vectors) return;
  const int64_t channel = thread % vectors * Vector, b = thread / vectors / runs;
  const int64_t first = thread / vectors % runs * kRun;
  const int tokens = static_cast<int>(p.length - first < kRun ? p.length - first : kRun);
  T *y = static_cast<T *>(p.y) + (b * p.length + first) * p.y_stride + channel;
  float bias[Vector], sums[Vector];
  DVMSR_UNROLL for (int v = 0; v < Vector; ++v) bias[v] = p.bias[channel + v];

  if constexpr (Width != 0) {
    Packed<T, Vector> rows[kRun + Width - 1];  // from Width - 1 tokens before the first; the last repeats
    DVMSR_UNROLL for (int j = 0; j < kRun + Width - 1; ++j) {
      const int ahead = j - (Width - 1);
      rows[j] = load<Vector, T>(p, b, first + (ahead < tokens ? ahead : tokens - 1), channel);
    }
    Packed<float, Width> taps[Vector];
    DVMSR_UNROLL for (int v = 0; v < Vector; ++v)
      taps[v] = reinterpret_cast<const Packed<float, Width> *>(p.weight)[channel + v];
    DVMSR_UNROLL for (int j = 0; j < kRun; ++j) {
      DVMSR_UNROLL for (int v = 0; v < Vector; ++v) {
        sums[v] = bias[v];
        DVMSR_UNROLL for (int k = 0; k < Width; ++k)
          sums[v] += taps[v].values[k] * widen(rows[j + k].values[v]);
      }
      if (j < tokens) store<Silu>(y + j * p.y_stride, sums);
    }
  } else {
    for (int j = 0; j < tokens; ++j) {
      DVMSR_UNROLL for (int v = 0; v < Vector; ++v) sums[v] = bias[v];
      for (int64_t k = 0; k < p.width; ++k) {
        const Packed<T, Vector> row = load<Vector, T>(p, b, first + j + k - kept, channel);
        DVMSR_UNROLL for (int v = 0; v < Vector; ++v)
          sums[v] += p.weight[(channel + v) * p.width + k] * widen(row.values[v]);
      }
      store<Silu>(y + j * p.y_stride, sums);
    }
  }
}

template <class T, int Vector, int Width>
cudaError_t conv(const dvmsr_cuda_conv_params &p, cudaStream_t stream) {
  // One block at least: it carries the tail over where there are no tokens.
  const int64_t items = p.batch * ceil_div(p.length, kRun) * (p.channels / Vector);
  const auto kernel = p.activation ? conv_tokens<T, Vector, Width, true> : conv_tokens<T, Vector, Width, false>;
  return launch(kernel, items ? ceil_div(items, kConvThreads) : 1, kConvThreads, stream, p);
}

template <class T>
cudaError_t conv(const dvmsr_cuda_conv_params &p, cudaStream_t stream) {
  constexpr int Vector = 8 / sizeof(T);
  const auto aligned = [](const void *pointer, int bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  };
  if (p.width != 4 || !aligned(p.weight, 16)) return conv<T, 1, 0>(p, stream);
  const bool vectors = p.channels % Vector == 0 && p.x_stride % Vector == 0 && p.y_stride % Vector == 0 &&
                       aligned(p.x, 8) && aligned(p.tail, 8) && aligned(p.y, 8);
  return vectors ? conv<T, Vector, 4>(p, stream) : conv<T, 1, 4>(p, stream);
}

extern template cudaError_t conv<float>(const dvmsr_cuda_conv_params &, cudaStream_t);
extern template cudaError_t conv<__half>(const dvmsr_cuda_conv_params &, cudaStream_t);
extern template cudaError_t conv<__nv_bfloat16>(const dvmsr_cuda_conv_params &, cudaStream_t);

}  // namespace dvmsr::cuda
