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
 * There are two variants, which cut the sequence into parts that run in parallel; a plan says which and how
 * long the parts are. Nothing here allocates, copies from or to the host, synchronises or keeps state, so a
 * call can be captured in a CUDA graph. Every status is a cudaError_t, 0 for success; arguments outside the
 * limits below give cudaErrorInvalidValue.
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
  /* B >= 0; 0 <= L < 2^30; D > 0; G divides D; 0 < N <= 64, compiled for 1, 8, 16 and 64 (CHUNKS: 16 and 64) */
  int64_t batch, length, channels, groups, state;
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

typedef enum {
  /* One exponential per state and token; the state before a part is found by walking back from it, which
   * goes no further than a decay of 2^-30: what is older, NaN and infinity included, ends with its part. */
  DVMSR_CUDA_SCAN_RELAY = 0,
  /* Every part from a zero state, and a correction for as long as the state before it counts. Of several parts y is
   * rounded twice, before the correction, too: in 16 bits what cancels between both is lost, and either may
   * overflow. */
  DVMSR_CUDA_SCAN_CHUNKS = 1
} dvmsr_cuda_scan_variant;

typedef struct {
  dvmsr_cuda_scan_variant variant;
  int32_t length; /* tokens of a part, > 0, and for several parts of RELAY a multiple of 16; the last may be shorter */
} dvmsr_cuda_scan_plan;

/* The length that makes the whole sequence one part: a single kernel, no workspace. */
#define DVMSR_CUDA_SCAN_WHOLE INT32_MAX

/* How many tactics there are: ways of cutting a sequence that are worth timing, numbered from 1. */
DVMSR_CUDA_API int32_t dvmsr_cuda_scan_tactics(void);

/* How a tactic cuts a sequence of these sizes (pointers are not read) on a device of so many multiprocessors.
 * Tactic 0 is the one that a cost model prefers; a number that is none gives a plan that no call takes. */
DVMSR_CUDA_API dvmsr_cuda_scan_plan dvmsr_cuda_scan_plan_of(const dvmsr_cuda_scan_params *params, int32_t tactic,
                                                            int32_t multiprocessors);

/* Bytes of device memory that a call needs, 0 for one part. */
DVMSR_CUDA_API size_t dvmsr_cuda_scan_workspace_size(const dvmsr_cuda_scan_params *params, dvmsr_cuda_scan_plan plan);

/* Bytes that suffice for every tactic on any device, for these sizes and all smaller ones. Bounded: a tactic makes
 * no more parts than fill a device. */
DVMSR_CUDA_API size_t dvmsr_cuda_scan_largest_workspace(const dvmsr_cuda_scan_params *params);

/* Launches the scan on `stream`. The workspace is aligned to 4 bytes and needs no initial value. */
DVMSR_CUDA_API int dvmsr_cuda_selective_scan(const dvmsr_cuda_scan_params *params, dvmsr_cuda_scan_plan plan,
                                             void *workspace, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
