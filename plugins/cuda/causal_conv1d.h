/* The causal depthwise convolution, with SiLU or without, on a CUDA device, behind a C interface
 * without framework types.
 *
 *   y_t = silu(bias + sum_k weight_k x_{t+k-(K-1)}),    x_{-(K-1)} ... x_{-1} = tail
 *
 * As with the scan, nothing here allocates, copies, synchronises or keeps state, and every status is a
 * cudaError_t.
 */
#ifndef DVMSR_CUDA_CAUSAL_CONV1D_H
#define DVMSR_CUDA_CAUSAL_CONV1D_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "act" tensors have the type `dtype`; token strides as in dvmsr_cuda_scan_params. The tails are
 * dense. Outputs must not overlap inputs or each other. */
typedef struct {
  dvmsr_cuda_dtype dtype;
  int32_t activation;                     /* 1: SiLU, 0: none */
  int64_t batch, length, channels, width; /* B, L >= 0; D, K > 0, fastest at K = 4 */
  const void *x;                          /* act (B, L, D) */
  const float *weight;                    /* (D, K) */
  const float *bias;                      /* (D) */
  const void *tail;                       /* act (B, K-1, D): the tokens before the first */
  void *y;                                /* act (B, L, D) */
  void *new_tail;                         /* act (B, K-1, D): the last of tail and x together */
  int64_t x_stride, y_stride;             /* token strides */
} dvmsr_cuda_conv_params;

/* Launches the convolution on `stream`; it needs no workspace. */
DVMSR_CUDA_API int dvmsr_cuda_causal_conv1d(const dvmsr_cuda_conv_params *params,
                                            struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
