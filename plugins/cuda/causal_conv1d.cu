// The C interface of the convolution: checks the arguments.
#include "causal_conv1d.cuh"

using namespace dvmsr::cuda;

int dvmsr_cuda_causal_conv1d(const dvmsr_cuda_conv_params *params, cudaStream_t stream) {
  const dvmsr_cuda_conv_params &p = *params;
  const auto fits = [&p](int64_t stride) { return stride >= p.channels && stride <= INT32_MAX; };
  if (p.batch < 0 || p.length < 0 || p.channels <= 0 || p.width <= 0 || !fits(p.x_stride) ||
      !fits(p.y_stride))
    return cudaErrorInvalidValue;
  if (p.batch == 0) return cudaSuccess;
  switch (p.dtype) {
    case DVMSR_CUDA_F32: return conv<float>(p, stream);
    case DVMSR_CUDA_F16: return conv<__half>(p, stream);
    case DVMSR_CUDA_BF16: return conv<__nv_bfloat16>(p, stream);
  }
  return cudaErrorInvalidValue;
}
