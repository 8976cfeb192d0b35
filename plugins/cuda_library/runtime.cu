// One call into the CUDA runtime each.
#include "runtime.h"

#include <cstring>

#include "device.cuh"

int32_t dvmsr_cuda_abi_version(void) { return DVMSR_CUDA_ABI_VERSION; }

int dvmsr_cuda_device_of_thread(dvmsr_cuda_device_info *info) {
  *info = {};
  int device;
  cudaDeviceProp properties;
  size_t free_bytes, total_bytes;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&properties, device);
  if (status == cudaSuccess) status = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (status == cudaSuccess) status = cudaDriverGetVersion(&info->driver_version);
  if (status == cudaSuccess) status = cudaRuntimeGetVersion(&info->runtime_version);
  if (status != cudaSuccess) return status;
  std::strncpy(info->name, properties.name, sizeof info->name - 1);
  info->major = properties.major;
  info->minor = properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->l2_bytes = properties.l2CacheSize;
  info->total_bytes = static_cast<int64_t>(total_bytes);
  info->free_bytes = static_cast<int64_t>(free_bytes);
  return cudaSuccess;
}

const char *dvmsr_cuda_error_text(int status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

int dvmsr_cuda_malloc(void **pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
int dvmsr_cuda_free(void *pointer) { return cudaFree(pointer); }
int dvmsr_cuda_malloc_host(void **pointer, size_t bytes) { return cudaMallocHost(pointer, bytes); }
int dvmsr_cuda_free_host(void *pointer) { return cudaFreeHost(pointer); }

int dvmsr_cuda_copy(void *to, const void *from, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}
int dvmsr_cuda_fill(void *to, int32_t byte, size_t bytes, cudaStream_t stream) {
  return cudaMemsetAsync(to, byte, bytes, stream);
}

int dvmsr_cuda_stream_create(cudaStream_t *stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
}
int dvmsr_cuda_stream_destroy(cudaStream_t stream) { return cudaStreamDestroy(stream); }
int dvmsr_cuda_stream_synchronize(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

int dvmsr_cuda_graph_begin(cudaStream_t stream) {
  return cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}
int dvmsr_cuda_graph_end(cudaStream_t stream, void **graph) {
  *graph = nullptr;
  cudaGraph_t recorded = nullptr;
  cudaError_t status = cudaStreamEndCapture(stream, &recorded);
  if (status != cudaSuccess) return status;
  cudaGraphExec_t executable = nullptr;
  status = cudaGraphInstantiate(&executable, recorded, 0);
  cudaGraphDestroy(recorded);
  if (status == cudaSuccess) *graph = executable;
  return status;
}
int dvmsr_cuda_graph_launch(void *graph, cudaStream_t stream) {
  return cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream);
}
int dvmsr_cuda_graph_destroy(void *graph) {
  return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

int dvmsr_cuda_event_create(void **event) {
  cudaEvent_t created = nullptr;
  const cudaError_t status = cudaEventCreate(&created);
  *event = created;
  return status;
}
int dvmsr_cuda_event_destroy(void *event) { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); }
int dvmsr_cuda_event_record(void *event, cudaStream_t stream) {
  return cudaEventRecord(static_cast<cudaEvent_t>(event), stream);
}
int dvmsr_cuda_event_elapsed(void *first, void *second, float *milliseconds) {
  return cudaEventElapsedTime(milliseconds, static_cast<cudaEvent_t>(first), static_cast<cudaEvent_t>(second));
}
