// ONNX Runtime's custom operators over the CUDA kernels, on the stream of its CUDA provider, with
// workspace from that provider's arena.
#include <stdexcept>
#include <string>

#include "causal_conv1d.h"
#include "custom_ops.h"
#include "device.cuh"
#include "selective_scan.h"

// The tests run the operators in ONNX Runtime's CPU provider, over the emulated device.
#if !defined(DVMSR_ORT_PROVIDER)
#define DVMSR_ORT_PROVIDER "CUDAExecutionProvider"
#define DVMSR_ORT_MEMORY "Cuda"
#endif

namespace dvmsr::ort {

const char *const provider = DVMSR_ORT_PROVIDER;
const bool reads_channel_major = false;

namespace {

constexpr const Definition *table[] = {&selective_scan, &causal_conv1d};

void check_cuda(int status, const char *name) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("dvmsr ") + name + ": CUDA failed (" +
                           cudaGetErrorString(static_cast<cudaError_t>(status)) + ")");
}

int device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "device");
  return device;
}

cudaStream_t stream_of(const Call &call) {
  void *stream = nullptr;
  check(call.api.KernelContext_GetGPUComputeStream(call.context, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Memory of the provider's arena. Given back when the work that uses it is on the stream, as the
// provider's own kernels do: what gets it next runs after that work.
class Workspace {
 public:
  Workspace(const Call &call, size_t bytes) : api_(call.api) {
    if (!bytes) return;
    OrtMemoryInfo *info = nullptr;
    check(api_.CreateMemoryInfo(DVMSR_ORT_MEMORY, OrtArenaAllocator, device(), OrtMemTypeDefault, &info));
    OrtStatus *status = api_.KernelContext_GetAllocator(call.context, info, &allocator_);
    api_.ReleaseMemoryInfo(info);
    check(status);
    if ((status = api_.AllocatorAlloc(allocator_, bytes, &pointer_))) {
      api_.ReleaseAllocator(allocator_);
      check(status);
    }
  }
  Workspace(const Workspace &) = delete;
  ~Workspace() {
    if (!allocator_) return;
    if (OrtStatus *status = api_.AllocatorFree(allocator_, pointer_)) api_.ReleaseStatus(status);
    api_.ReleaseAllocator(allocator_);
  }
  void *get() const { return pointer_; }

 private:
  const OrtApi &api_;
  OrtAllocator *allocator_ = nullptr;
  void *pointer_ = nullptr;
};

dvmsr_cuda_dtype dtype_of(const Call &call) { return call.half ? DVMSR_CUDA_F16 : DVMSR_CUDA_F32; }

const float *floats(const void *data) { return static_cast<const float *>(data); }

}  // namespace

const Constants<const Definition *> operators = table;

void run_selective_scan(const Call &call, bool delta_softplus, bool) {
  const int64_t D = call.size['D'], G = call.size['G'], N = call.size['N'];
  void *const *in = call.in;
  const dvmsr_cuda_scan_params params = {
      dtype_of(call), delta_softplus, call.size['B'], call.size['L'], D, G, N, in[0], in[1], floats(in[2]), in[3], in[4],
      floats(in[5]), floats(in[6]), floats(in[7]), in[8], call.out[0], static_cast<float *>(call.out[1]), D, D, G * N,
      G * N, D, D};
  int multiprocessors = 0;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device()), "SelectiveScan");
  const dvmsr_cuda_scan_plan plan = dvmsr_cuda_scan_plan_of(&params, 0, multiprocessors);
  const Workspace workspace(call, dvmsr_cuda_scan_workspace_size(&params, plan));
  check_cuda(dvmsr_cuda_selective_scan(&params, plan, workspace.get(), stream_of(call)), "SelectiveScan");
}

void run_causal_conv1d(const Call &call, bool silu) {
  const int64_t D = call.size['D'];
  void *const *in = call.in;
  const dvmsr_cuda_conv_params params = {
      dtype_of(call), silu, call.size['B'], call.size['L'], D, call.size['K'], in[0], floats(in[1]), floats(in[2]), in[3],
      call.out[0], call.out[1], D, D};
  check_cuda(dvmsr_cuda_causal_conv1d(&params, stream_of(call)), "CausalConv1d");
}

}  // namespace dvmsr::ort
