// What the kernels ask of a device: types, elementary functions, shared memory and launches. Compiled
// by nvcc, or by a C++ compiler against the tests' host_cuda.h, which runs kernels on the host.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define DVMSR_UNROLL _Pragma("unroll")
#define DVMSR_PRAGMA(text) _Pragma(#text)
#define DVMSR_UNROLL_BY(count) DVMSR_PRAGMA(unroll count)
#else
#include "host_cuda.h"
#define DVMSR_UNROLL
#define DVMSR_UNROLL_BY(count)
#endif

namespace dvmsr::cuda {

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounds to nearest, ties to even.
template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

constexpr float kLog2e = 1.44269504088896340736f;

// 2^x in one instruction, to 2 ulp; below 2^-126 it is zero.
__device__ inline float fast_exp2(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return host_exp2(x);
#endif
}

// log(1 + exp(x)), with full relative precision where it is tiny.
__device__ inline float softplus(float x) {
  const float w = fast_exp2(-fabsf(x) * kLog2e);  // NaN for NaN
  const float s = __fdividef(w, w + 2.f);         // log(1 + w) = 2 artanh(s)
  const float q = s * s;
  float p = 0.14089198f;  // minimax for q <= 1/9; error 4e-9
  p = p * q + 0.13980295f;
  p = p * q + 0.20012456f;
  p = p * q + 0.33333158f;
  p = p * q + 1.f;
  return fmaxf(x, 0.f) + 2.f * s * p;
}

__device__ inline float silu(float x) { return __fdividef(x, 1.f + fast_exp2(-x * kLog2e)); }

// The block's one object of type S in shared memory; it has no initial value.
template <class S>
__device__ inline S &shared_memory() {
#if defined(__CUDACC__)
  __shared__ S object;
  return object;
#else
  return host_shared_memory<S>();
#endif
}

constexpr unsigned kAllLanes = 0xffffffffu;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
                   const Arguments &...arguments) {
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
#if defined(__CUDACC__)
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
#else
  return host_launch(kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), stream,
                     Parameters(arguments)...);
#endif
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace dvmsr::cuda
