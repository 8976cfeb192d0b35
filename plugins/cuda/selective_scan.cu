// The C interface of the scan: checks the arguments, places the workspace, calls the plan's variant.
#include "scan_chunks.cuh"
#include "scan_plan.h"
#include "scan_relay.cuh"

namespace dvmsr::cuda {
namespace {

template <class T>
cudaError_t scan(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan, float *workspace,
                 cudaStream_t stream) {
  const int64_t parts = parts_of(p, plan);
  if (plan.variant == DVMSR_CUDA_SCAN_CHUNKS)
    return scan<T>(p, plan.length, Edges{workspace, workspace + p.batch * parts * p.channels * p.state, parts}, stream);
  return relay::scan<T>(p, relay::place(p, plan.length, parts, workspace), stream);
}

bool valid_plan(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan) {
  if (plan.length <= 0) return false;
  if (plan.variant == DVMSR_CUDA_SCAN_CHUNKS) return true;
  return plan.variant == DVMSR_CUDA_SCAN_RELAY && (parts_of(p, plan) == 1 || plan.length % relay::kTokens == 0);
}

}  // namespace
}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

int dvmsr_cuda_selective_scan(const dvmsr_cuda_scan_params *params, dvmsr_cuda_scan_plan plan, void *workspace,
                              cudaStream_t stream) {
  const dvmsr_cuda_scan_params &p = *params;
  if (!valid_sizes(p) || !valid_strides(p) || !valid_stride(p.y_stride, p.channels) || !valid_plan(p, plan))
    return cudaErrorInvalidValue;
  if (p.batch == 0) return cudaSuccess;
  if (parts_of(p, plan) > 1 && !workspace) return cudaErrorInvalidValue;
  float *const floats = static_cast<float *>(workspace);
  switch (p.dtype) {
    case DVMSR_CUDA_F32: return scan<float>(p, plan, floats, stream);
    case DVMSR_CUDA_F16: return scan<__half>(p, plan, floats, stream);
    case DVMSR_CUDA_BF16: return scan<__nv_bfloat16>(p, plan, floats, stream);
  }
  return cudaErrorInvalidValue;
}
