/* The selective scan on a CUDA device, behind a C interface without framework types.
 *
 * The operator is the project's SelectiveScan (README, "The operators"):
 *
 *   delta_t = softplus(delta_t + delta_bias)
 *   h_t     = exp(delta_t A) h_{t-1} + delta_t u_t B_t        h_{-1} = h0
 *   y_t     = (h_t . C_t + D u_t) silu(z_t)
 *
 * where channel d uses group d / (D / G) of B and C.
 *
 * The sequence is cut into chunks that run in parallel; the caller says how long they are. Nothing
 * here allocates, copies from or to the host, synchronises or keeps state, so a call can be captured
 * in a CUDA graph. Every status is a cudaError_t, 0 for success; arguments outside the limits below
 * give cudaErrorInvalidValue.
 */
#ifndef DVMSR_CUDA_SELECTIVE_SCAN_H
#define DVMSR_CUDA_SELECTIVE_SCAN_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "act" tensors have the type `dtype`; the token stride of each is the number of elements from one
 * token to the next (D, or G N for B and C, where the tensor is dense), below 2^31. Batch elements
 * follow each other at length x stride. All else is dense float. Pointers are device pointers;
 * outputs must not overlap inputs or each other. */
typedef struct {
  dvmsr_cuda_dtype dtype;
  int32_t delta_softplus;                         /* 0: delta + delta_bias is the step itself */
  int64_t batch, length, channels, groups, state; /* B, L >= 0; D > 0; G divides D; 0 < N <= 64, fastest at 16 */
  const void *u;                                  /* act (B, L, D) */
  const void *delta;                              /* act (B, L, D), before bias and softplus */
  const float *A;                                 /* (D, N) */
  const void *B;                                  /* act (B, L, G, N) */
  const void *C;                                  /* act (B, L, G, N) */
  const float *D;                                 /* (D) */
  const float *delta_bias;                        /* (D) */
  const float *h0;                                /* (B, D, N) */
  const void *z;                                  /* act (B, L, D); NULL: no gate */
  void *y;                                        /* act (B, L, D) */
  float *h_last;                                  /* (B, D, N) */
  int64_t u_stride, delta_stride, B_stride, C_stride, z_stride, y_stride; /* token strides */
} dvmsr_cuda_scan_params;

/* The chunk length that makes the whole sequence one chunk: a single kernel, no workspace. */
#define DVMSR_CUDA_SCAN_WHOLE INT32_MAX

/* Chunk lengths worth timing, ascending; the last is DVMSR_CUDA_SCAN_WHOLE. Any positive length is
 * valid in the functions below. */
DVMSR_CUDA_API int32_t dvmsr_cuda_scan_tactics(const int32_t **lengths);

/* The chunk length that a simple cost model prefers for these sizes (pointers are not read) on a
 * device of so many multiprocessors. */
DVMSR_CUDA_API int32_t dvmsr_cuda_scan_best_chunk(const dvmsr_cuda_scan_params *params,
                                                  int32_t multiprocessors);

/* Bytes of device memory that the call needs, 0 for one chunk; grows with batch and length. */
DVMSR_CUDA_API size_t dvmsr_cuda_scan_workspace_size(const dvmsr_cuda_scan_params *params,
                                                     int32_t chunk);

/* Launches the scan on `stream`. The workspace is aligned to 4 bytes and needs no initial value. */
DVMSR_CUDA_API int dvmsr_cuda_selective_scan(const dvmsr_cuda_scan_params *params, int32_t chunk,
                                             void *workspace, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
