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

// 2^x for |x| <= kNearZero, rounded without a bias: a state that hardly decays is a product of thousands of these,
// and an error of one sign would add up.
constexpr float kNearZero = 0.25f;
__device__ inline float exp2_near_zero(float x) {
  float p = 0.0013350229f;  // minimax; off by 2e-9 at most
  p = p * x + 0.0096316074f;
  p = p * x + 0.055504057f;
  p = p * x + 0.24022624f;
  p = p * x + 0.693147181f;
  return p * x + 1.f;
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

// Four neighbouring values in shared memory, in one read.
__device__ inline float4 read_four(const float *from) { return *reinterpret_cast<const float4 *>(from); }

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

// base + steps * stride in global memory, for strides below 2^31: one instruction, and nothing of it in a register before it is needed.
template <class T>
__device__ inline T *steps_on(T *base, int64_t stride, int steps) {
#if defined(__CUDACC__)
  uint64_t place;
  asm("mad.wide.u32 %0, %1, %2, %3;"
      : "=l"(place)
      : "r"(static_cast<uint32_t>(stride)), "r"(static_cast<uint32_t>(steps * sizeof(T))),
        "l"(static_cast<uint64_t>(__cvta_generic_to_global(base))));
  return static_cast<T *>(__cvta_global_to_generic(place));
#else
  return base + stride * steps;
#endif
}

constexpr unsigned kAllLanes = 0xffffffffu;

// A number in shared memory that slices of work pass on in order, and the slice whose turn it is. Both are
// one word, read and written whole and by these functions alone: no fence and no barrier orders them.
struct alignas(8) Turn {
  float value;
  uint32_t slice;
};

__device__ inline Turn read_turn(const Turn &turn) {
#if defined(__CUDACC__)
  unsigned long long word;
  asm volatile("ld.relaxed.cta.shared.b64 %0, [%1];"
               : "=l"(word)
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(&turn))));
  return {__uint_as_float(static_cast<uint32_t>(word)), static_cast<uint32_t>(word >> 32)};
#else
  return host_read_turn(turn);
#endif
}

// Waits until the turns of all lanes have come to a slice; returns the lane's number.
__device__ inline float wait_for_turn(const Turn &turn, uint32_t slice) {
#if defined(__CUDACC__)
  Turn found;
  do
    found = read_turn(turn);
  while (!__all_sync(kAllLanes, found.slice == slice));
  return found.value;
#else
  return host_wait_for_turn(turn, slice);
#endif
}

__device__ inline void hand_on(Turn &turn, float value, uint32_t slice) {
#if defined(__CUDACC__)
  const unsigned long long word = static_cast<unsigned long long>(slice) << 32 | __float_as_uint(value);
  asm volatile("st.relaxed.cta.shared.b64 [%0], %1;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(&turn))),
               "l"(word));
#else
  host_hand_on(turn, value, slice);
#endif
}

// Nothing that makes these values is moved up beyond this place.
template <int Count>
__device__ inline void keep_order([[maybe_unused]] float (&values)[Count]) {
#if defined(__CUDACC__)
  DVMSR_UNROLL for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(values[i]));
#endif
}

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
