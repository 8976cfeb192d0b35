/* The part of the CUDA runtime that Python needs to run a network: memory, a stream, graphs, events.
 *
 * It is here, and not in a Python package for CUDA, so that one library serves whatever CUDA the
 * machine has: the runtime is linked into it. Every status is a cudaError_t, 0 for success. All calls
 * are about the device that is current in the calling thread.
 */
#ifndef DVMSR_CUDA_RUNTIME_H
#define DVMSR_CUDA_RUNTIME_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every incompatible change of any function of this library. */
#define DVMSR_CUDA_ABI_VERSION 3
DVMSR_CUDA_API int32_t dvmsr_cuda_abi_version(void);

typedef struct {
  char name[256];
  int32_t major, minor; /* compute capability */
  int32_t multiprocessors;
  int32_t driver_version, runtime_version; /* 1000 * major + 10 * minor */
  int64_t l2_bytes, total_bytes, free_bytes;
} dvmsr_cuda_device_info;

DVMSR_CUDA_API int dvmsr_cuda_device_of_thread(dvmsr_cuda_device_info *info);

/* A sentence on a status. */
DVMSR_CUDA_API const char *dvmsr_cuda_error_text(int status);

/* Device memory, and page-locked host memory. */
DVMSR_CUDA_API int dvmsr_cuda_malloc(void **pointer, size_t bytes);
DVMSR_CUDA_API int dvmsr_cuda_free(void *pointer);
DVMSR_CUDA_API int dvmsr_cuda_malloc_host(void **pointer, size_t bytes);
DVMSR_CUDA_API int dvmsr_cuda_free_host(void *pointer);

/* Between host and device memory in any direction, in the order of the stream. */
DVMSR_CUDA_API int dvmsr_cuda_copy(void *to, const void *from, size_t bytes, struct CUstream_st *stream);
DVMSR_CUDA_API int dvmsr_cuda_fill(void *to, int32_t byte, size_t bytes, struct CUstream_st *stream);

/* A stream that does not wait for the default one. */
DVMSR_CUDA_API int dvmsr_cuda_stream_create(struct CUstream_st **stream);
DVMSR_CUDA_API int dvmsr_cuda_stream_destroy(struct CUstream_st *stream);
DVMSR_CUDA_API int dvmsr_cuda_stream_synchronize(struct CUstream_st *stream);

/* What this thread puts on the stream between begin and end becomes a graph instead of running;
 * `end` must be called after every successful `begin`, and leaves NULL where it fails. */
DVMSR_CUDA_API int dvmsr_cuda_graph_begin(struct CUstream_st *stream);
DVMSR_CUDA_API int dvmsr_cuda_graph_end(struct CUstream_st *stream, void **graph);
DVMSR_CUDA_API int dvmsr_cuda_graph_launch(void *graph, struct CUstream_st *stream);
DVMSR_CUDA_API int dvmsr_cuda_graph_destroy(void *graph);

/* Moments on a stream; the time from one to another in milliseconds, once both have passed. */
DVMSR_CUDA_API int dvmsr_cuda_event_create(void **event);
DVMSR_CUDA_API int dvmsr_cuda_event_destroy(void *event);
DVMSR_CUDA_API int dvmsr_cuda_event_record(void *event, struct CUstream_st *stream);
DVMSR_CUDA_API int dvmsr_cuda_event_elapsed(void *first, void *second, float *milliseconds);

#ifdef __cplusplus
}
#endif
#endif
