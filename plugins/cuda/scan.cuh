// What the variants of the selective scan share: the limits of their arguments, the rate of a decay and the
// forms of the operator.
#pragma once

#include "device.cuh"
#include "selective_scan.h"

// 1: decays near one by a polynomial, for a device whose ex2.approx is biased (docs/cuda-scan.md).
#if !defined(DVMSR_CUDA_ACCURATE_DECAYS)
#define DVMSR_CUDA_ACCURATE_DECAYS 0
#endif

namespace dvmsr::cuda {

constexpr float kLargest = 3.402823466e38f;  // finite number

// An element of A in units of exp2, no less than the lowest float: its product with a delta of zero is zero.
__device__ inline float rate(float A) {
  const float a = A * kLog2e;
  return a < -kLargest ? -kLargest : a;
}

// What a state has become by 2^exponent. Nothing stays nothing, however it grows: infinity times zero would be no
// number.
__device__ inline float carried(float exponent, float state) {
  return state == 0.f ? 0.f : fast_exp2(exponent) * state;
}

// A state that has decayed below 2^kNegligible of what it was is forgotten: below FP32 rounding of any state that is
// not as many times smaller.
constexpr float kNegligible = -30.f;

inline bool valid_sizes(const dvmsr_cuda_scan_params &p) {
  return p.batch >= 0 && p.length >= 0 && p.length <= INT32_MAX / 2 && p.channels > 0 && p.channels <= INT32_MAX &&
         p.groups > 0 && p.channels % p.groups == 0 && p.state > 0 && p.state <= 64;
}

inline bool valid_stride(int64_t stride, int64_t row) { return stride >= row && stride <= INT32_MAX; }

// The strides of all inputs.
inline bool valid_strides(const dvmsr_cuda_scan_params &p) {
  const int64_t row = p.groups * p.state;  // of B and C
  return valid_stride(p.u_stride, p.channels) && valid_stride(p.delta_stride, p.channels) &&
         valid_stride(p.B_stride, row) && valid_stride(p.C_stride, row) &&
         (!p.z || valid_stride(p.z_stride, p.channels));
}

// The channels that share a group's B and C.
__host__ __device__ inline int channels_of_group(const dvmsr_cuda_scan_params &p) {
  return static_cast<int>(p.channels) / static_cast<int>(p.groups);
}

// How many blocks of so many channels take those of a group: none has channels of two groups.
__host__ __device__ inline int blocks_of_group(const dvmsr_cuda_scan_params &p, int channels) {
  return static_cast<int>(ceil_div(channels_of_group(p), channels));
}
__host__ __device__ inline int64_t blocks_of_all(const dvmsr_cuda_scan_params &p, int channels) {
  return p.groups * blocks_of_group(p, channels);
}

// The form of the operator: with softplus and gate, or whatever the call says, at the price of a few
// instructions per token.
template <bool Full>
struct Form {
  __device__ explicit Form(const dvmsr_cuda_scan_params &p) : softplus(Full || p.delta_softplus), gate(Full || p.z) {}

  // The step from delta + bias, and what y is multiplied with.
  __device__ float step_of(float biased) const { return softplus ? cuda::softplus(biased) : biased; }
  __device__ float gate_of(float z) const { return gate ? silu(z) : 1.f; }

  const bool softplus, gate;
};

}  // namespace dvmsr::cuda
