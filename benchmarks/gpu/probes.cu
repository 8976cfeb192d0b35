// What the benchmarks measure beside dvmsr: the device's rates, the results of its exponential, and the
// selective scan as it is often written, one thread and one loop per channel.
#include "device.cuh"
#include "selective_scan.h"

using namespace dvmsr::cuda;

namespace {

constexpr int kChains = 8;  // independent results that a thread works on, to hide latencies

// kChains * iterations operations per thread.
template <bool exponential>
__global__ void rate(float *out, int iterations, float factor) {
  float x[kChains];
  for (int c = 0; c < kChains; ++c) x[c] = factor * static_cast<float>(threadIdx.x + c);
  for (int i = 0; i < iterations; ++i) {
    DVMSR_UNROLL
    for (int c = 0; c < kChains; ++c) x[c] = exponential ? fast_exp2(x[c]) : fmaf(x[c], factor, factor);
  }
  float sum = 0.f;
  for (int c = 0; c < kChains; ++c) sum += x[c];
  if (sum == 12345.f) *out = sum;  // never: keeps the compiler from dropping the loop
}

// The exponential that the scan uses, of each of `count` numbers.
__global__ void exponentials(const float *in, float *out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = fast_exp2(in[i]);
}

template <class T>
__global__ void scan_per_channel(const dvmsr_cuda_scan_params p) {
  constexpr int N = 16;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= p.batch * p.channels) return;
  const int64_t b = row / p.channels, channel = row % p.channels;
  float h[N], a[N];
  for (int n = 0; n < N; ++n) {
    h[n] = p.h0[row * N + n];
    a[n] = p.A[channel * N + n] * kLog2e;
  }
  for (int64_t token = b * p.length; token < (b + 1) * p.length; ++token) {
    const float u = widen(static_cast<const T *>(p.u)[token * p.channels + channel]);
    const float z = widen(static_cast<const T *>(p.z)[token * p.channels + channel]);
    const float d =
        softplus(widen(static_cast<const T *>(p.delta)[token * p.channels + channel]) + p.delta_bias[channel]);
    float y = p.D[channel] * u;
    DVMSR_UNROLL
    for (int n = 0; n < N; ++n) {
      h[n] = fast_exp2(d * a[n]) * h[n] + d * u * widen(static_cast<const T *>(p.B)[token * N + n]);
      y += h[n] * widen(static_cast<const T *>(p.C)[token * N + n]);
    }
    static_cast<T *>(p.y)[token * p.channels + channel] = narrow<T>(y * silu(z));
  }
  for (int n = 0; n < N; ++n) p.h_last[row * N + n] = h[n];
}

}  // namespace

extern "C" {

// Operations per launch, so that the caller need not know kChains.
int64_t probe_operations(int blocks, int threads, int iterations) {
  return int64_t{blocks} * threads * iterations * kChains;
}
int probe_ex2(float *out, int blocks, int threads, int iterations, cudaStream_t stream) {
  return launch(rate<true>, blocks, threads, stream, out, iterations, -0.001f);
}
int probe_fma(float *out, int blocks, int threads, int iterations, cudaStream_t stream) {
  return launch(rate<false>, blocks, threads, stream, out, iterations, 0.999f);
}
int probe_exponentials(const float *in, float *out, int64_t count, cudaStream_t stream) {
  const int threads = 256;
  return launch(exponentials, ceil_div(count, threads), threads, stream, in, out, count);
}
// Dense tensors, N = 16, FP32 or FP16.
int probe_scan_per_channel(const dvmsr_cuda_scan_params *params, cudaStream_t stream) {
  const int threads = 32;
  const auto blocks = ceil_div(params->batch * params->channels, threads);
  const auto kernel = params->dtype == DVMSR_CUDA_F32 ? scan_per_channel<float> : scan_per_channel<__half>;
  return launch(kernel, blocks, threads, stream, *params);
}
}
