// The part of the CUDA runtime that plugins/cuda_library uses, on the host: one device of 1 GiB, whose
// memory starts as NaN. Streams run what they are given at once, or record it for a graph. Copies must
// stay inside what was allocated, in device or page-locked memory, and nothing may be allocated,
// freed or waited for while a stream is being recorded.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <vector>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamNonBlocking = 1;

namespace host_cuda {

using Work = std::vector<std::function<void()>>;

struct State {
  std::map<const char *, size_t> allocated;
  size_t device_bytes = 0;
  int recording = 0;
};
inline State &state() {
  static State state;
  return state;
}

constexpr size_t kMemory = size_t{1} << 30;

inline bool inside(const void *pointer, size_t bytes) {
  const char *first = static_cast<const char *>(pointer);
  auto after = state().allocated.upper_bound(first);
  if (after == state().allocated.begin()) return false;
  const auto &[start, size] = *--after;
  return first + bytes <= start + size;
}

}  // namespace host_cuda

struct CUstream_st {
  host_cuda::Work work;
  bool recording = false;
};
typedef struct CUstream_st *cudaStream_t;
typedef host_cuda::Work *cudaGraph_t, *cudaGraphExec_t;
typedef std::chrono::steady_clock::time_point *cudaEvent_t;

namespace host_cuda {

template <class Action>
cudaError_t put(cudaStream_t stream, const Action &action) {
  if (stream && stream->recording)
    stream->work.push_back(action);
  else
    action();
  return cudaSuccess;
}

inline cudaError_t allocate(void **pointer, size_t bytes) {
  if (state().recording) return cudaErrorStreamCaptureUnsupported;
  *pointer = std::aligned_alloc(256, (bytes + 256) / 256 * 256);
  std::memset(*pointer, 0xff, bytes);
  state().allocated[static_cast<char *>(*pointer)] = bytes;
  return cudaSuccess;
}
inline cudaError_t release(void *pointer) {
  if (!pointer) return cudaSuccess;
  if (state().recording) return cudaErrorStreamCaptureUnsupported;
  if (!state().allocated.erase(static_cast<char *>(pointer))) return cudaErrorInvalidValue;
  std::free(pointer);
  return cudaSuccess;
}

}  // namespace host_cuda

struct cudaDeviceProp {
  char name[256] = "host emulation";
  int major = 9, minor = 0, multiProcessorCount = 4, l2CacheSize = 1 << 20;
};
inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) { return *value = 4, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  return *properties = {}, cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = host_cuda::kMemory;
  return *free_bytes = host_cuda::kMemory - host_cuda::state().device_bytes, cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
inline const char *cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "out of memory" : status ? "invalid argument" : "no error";
}

inline cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  auto &used = host_cuda::state().device_bytes;
  if (used + bytes > host_cuda::kMemory) return cudaErrorMemoryAllocation;
  const cudaError_t status = host_cuda::allocate(pointer, bytes);
  if (status == cudaSuccess) used += bytes;
  return status;
}
inline cudaError_t cudaFree(void *pointer) {
  const auto &all = host_cuda::state().allocated;
  const auto found = all.find(static_cast<char *>(pointer));
  const size_t bytes = found == all.end() ? 0 : found->second;
  const cudaError_t status = host_cuda::release(pointer);
  if (status == cudaSuccess) host_cuda::state().device_bytes -= bytes;
  return status;
}
inline cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return host_cuda::allocate(pointer, bytes); }
inline cudaError_t cudaFreeHost(void *pointer) { return host_cuda::release(pointer); }

inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (!host_cuda::inside(to, bytes) || !host_cuda::inside(from, bytes)) return cudaErrorInvalidValue;
  return host_cuda::put(stream, [=] { std::memcpy(to, from, bytes); });
}
inline cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream) {
  if (!host_cuda::inside(to, bytes)) return cudaErrorInvalidValue;
  return host_cuda::put(stream, [=] { std::memset(to, byte, bytes); });
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  return *stream = new CUstream_st, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream && stream->recording ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->recording) return cudaErrorStreamCaptureUnsupported;
  stream->work.clear();
  stream->recording = true;
  ++host_cuda::state().recording;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!stream->recording) return cudaErrorInvalidValue;
  stream->recording = false;
  --host_cuda::state().recording;
  return *graph = new host_cuda::Work(stream->work), cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new host_cuda::Work(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const auto &action : *graph) host_cuda::put(stream, action);
  return cudaSuccess;
}

inline cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return *event = new std::chrono::steady_clock::time_point, cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return host_cuda::put(stream, [=] { *event = std::chrono::steady_clock::now(); });
}
inline cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t second) {
  *milliseconds = std::chrono::duration<float, std::milli>(*second - *first).count();
  return cudaSuccess;
}

// For tests that stand for TensorRT: puts a function on a stream, and tells whether it is recorded.
extern "C" __attribute__((used)) inline int host_cuda_put(cudaStream_t stream, void (*action)(void *),
                                                          void *data) {
  return host_cuda::put(stream, [=] { action(data); });
}
extern "C" __attribute__((used)) inline int host_cuda_recording(cudaStream_t stream) {
  return stream && stream->recording;
}
