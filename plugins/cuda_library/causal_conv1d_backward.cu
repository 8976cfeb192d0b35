// The gradients of the causal depthwise convolution. With p the tail and x together and g_t the gradient
// of the sum in y_t = silu(sum), or y_t = sum without activation,
//
//   grad p_j = sum_k weight_k g_{j-k},    grad weight_k = sum_t g_t p_{t+k},    grad bias = sum_t g_t
//
// conv_sums finds g and, per run of tokens, the sums; conv_inputs the gradients of x and tail.
#include "causal_conv1d.cuh"
#include "gradients.h"
#include "sum_rows.cuh"

namespace dvmsr::cuda {
namespace {

constexpr int kTokensPerThread = 64;

struct Scratch {
  float *sums;           // (B, L, D): g
  float *weight, *bias;  // per run (D, K) and (D)
  int64_t runs;          // per batch element
};

// A thread takes one channel of one run; neighbouring threads take neighbouring channels.
template <class T>
__global__ void __launch_bounds__(kConvThreads)
    conv_sums(const dvmsr_cuda_conv_params p, const dvmsr_cuda_conv_output_gradients outputs, Scratch scratch) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  const int64_t channel = thread % p.channels, row = thread / p.channels;
  if (row >= p.batch * scratch.runs) return;
  const int64_t b = row / scratch.runs, first = row % scratch.runs * kTokensPerThread, kept = p.width - 1;
  const int64_t last = first + kTokensPerThread < p.length ? first + kTokensPerThread : p.length;
  const auto input = [&](int64_t t) { return widen(load<1, T>(p, b, t, channel).values[0]); };
  const T *y_grad = static_cast<const T *>(outputs.y) + b * p.length * p.channels + channel;
  float *sums = scratch.sums + b * p.length * p.channels + channel;

  float bias_grad = 0.f;
  for (int64_t t = first; t < last; ++t) {
    float grad = widen(y_grad[t * p.channels]);
    if (p.activation) {
      float sum = p.bias[channel];
      for (int64_t k = 0; k < p.width; ++k) sum += p.weight[channel * p.width + k] * input(t + k - kept);
      const float gate = __fdividef(1.f, 1.f + fast_exp2(-sum * kLog2e));
      grad *= gate * (1.f + sum * (1.f - gate));
    }
    sums[t * p.channels] = grad;
    bias_grad += grad;
  }
  scratch.bias[row * p.channels + channel] = bias_grad;
  for (int64_t k = 0; k < p.width; ++k) {
    float weight_grad = 0.f;
    for (int64_t t = first; t < last; ++t) weight_grad += sums[t * p.channels] * input(t + k - kept);
    scratch.weight[(row * p.channels + channel) * p.width + k] = weight_grad;
  }
}

// A thread takes one element of x or tail.
template <class T>
__global__ void __launch_bounds__(kConvThreads)
    conv_inputs(const dvmsr_cuda_conv_params p, const dvmsr_cuda_conv_output_gradients outputs,
                const dvmsr_cuda_conv_gradients gradients, Scratch scratch) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  const int64_t kept = p.width - 1, rows = p.length + kept;
  const int64_t channel = thread % p.channels, j = thread / p.channels % rows, b = thread / p.channels / rows;
  if (b >= p.batch) return;
  float sum = 0.f;
  if (j >= p.length)
    sum = widen(static_cast<const T *>(outputs.new_tail)[(b * kept + j - p.length) * p.channels + channel]);
  for (int64_t k = 0; k < p.width; ++k)
    if (j >= k && j - k < p.length)
      sum += p.weight[channel * p.width + k] * scratch.sums[(b * p.length + j - k) * p.channels + channel];
  T *const to = j < kept ? static_cast<T *>(gradients.tail) + (b * kept + j) * p.channels
                         : static_cast<T *>(gradients.x) + (b * p.length + j - kept) * p.channels;
  to[channel] = narrow<T>(sum);
}

Scratch place(const dvmsr_cuda_conv_params &p, void *workspace) {
  Scratch scratch{};
  scratch.runs = ceil_div(p.length, kTokensPerThread);
  scratch.sums = static_cast<float *>(workspace);
  scratch.weight = scratch.sums + p.batch * p.length * p.channels;
  scratch.bias = scratch.weight + p.batch * scratch.runs * p.channels * p.width;
  return scratch;
}

template <class T>
cudaError_t backward(const dvmsr_cuda_conv_params &p, const dvmsr_cuda_conv_output_gradients &outputs,
                     const dvmsr_cuda_conv_gradients &gradients, void *workspace, cudaStream_t stream) {
  const Scratch scratch = place(p, workspace);
  const int64_t rows = p.batch * scratch.runs;
  cudaError_t status = cudaSuccess;
  if (rows > 0)
    status = launch(conv_sums<T>, ceil_div(rows * p.channels, kConvThreads), kConvThreads, stream, p, outputs, scratch);
  const int64_t inputs = p.batch * (p.length + p.width - 1) * p.channels;
  if (status == cudaSuccess && inputs > 0)
    status = launch(conv_inputs<T>, ceil_div(inputs, kConvThreads), kConvThreads, stream, p, outputs, gradients,
                    scratch);
  if (status == cudaSuccess) status = sum_rows(scratch.weight, rows, p.channels * p.width, gradients.weight, stream);
  if (status == cudaSuccess) status = sum_rows(scratch.bias, rows, p.channels, gradients.bias, stream);
  return status;
}

}  // namespace
}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

size_t dvmsr_cuda_conv_backward_workspace_size(const dvmsr_cuda_conv_params *params) {
  const dvmsr_cuda_conv_params &p = *params;
  const int64_t runs = ceil_div(p.length, kTokensPerThread);
  return static_cast<size_t>(p.batch * p.channels * (p.length + runs * (p.width + 1))) * sizeof(float);
}

int dvmsr_cuda_causal_conv1d_backward(const dvmsr_cuda_conv_params *params,
                                      const dvmsr_cuda_conv_output_gradients *outputs,
                                      const dvmsr_cuda_conv_gradients *gradients, void *workspace,
                                      cudaStream_t stream) {
  const dvmsr_cuda_conv_params &p = *params;
  if (p.batch < 0 || p.length < 0 || p.channels <= 0 || p.width <= 0 || p.x_stride < p.channels)
    return cudaErrorInvalidValue;
  switch (p.dtype) {
    case DVMSR_CUDA_F32: return backward<float>(p, *outputs, *gradients, workspace, stream);
    case DVMSR_CUDA_F16: return backward<__half>(p, *outputs, *gradients, workspace, stream);
    case DVMSR_CUDA_BF16: return backward<__nv_bfloat16>(p, *outputs, *gradients, workspace, stream);
  }
  return cudaErrorInvalidValue;
}
