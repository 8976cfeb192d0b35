/* The gradients of both operators on a CUDA device; `params` as in their forward calls, whose outputs
 * are not read and may be NULL. Gradients of outputs are read, those of inputs are written whole; all
 * are dense, in the type and shape of what they belong to. Nothing here allocates, synchronises or
 * keeps state; results do not depend on the order in which blocks run. Every status is a cudaError_t.
 */
#ifndef DVMSR_CUDA_GRADIENTS_H
#define DVMSR_CUDA_GRADIENTS_H

#include "causal_conv1d.h"
#include "selective_scan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const void *y;       /* act (B, L, D) */
  const float *h_last; /* (B, D, N) */
} dvmsr_cuda_scan_output_gradients;

typedef struct {
  void *u, *delta;
  float *A;
  void *B, *C;
  float *D, *delta_bias, *h0;
  void *z; /* as in the call: NULL without a gate */
} dvmsr_cuda_scan_gradients;

/* Bytes of device memory, aligned to 4, that the call needs beside its tensors. */
DVMSR_CUDA_API size_t dvmsr_cuda_scan_backward_workspace_size(const dvmsr_cuda_scan_params *params);

DVMSR_CUDA_API int dvmsr_cuda_selective_scan_backward(const dvmsr_cuda_scan_params *params,
                                                      const dvmsr_cuda_scan_output_gradients *outputs,
                                                      const dvmsr_cuda_scan_gradients *gradients,
                                                      void *workspace, struct CUstream_st *stream);

typedef struct {
  const void *y;        /* act (B, L, D) */
  const void *new_tail; /* act (B, K-1, D) */
} dvmsr_cuda_conv_output_gradients;

typedef struct {
  void *x;
  float *weight, *bias;
  void *tail;
} dvmsr_cuda_conv_gradients;

DVMSR_CUDA_API size_t dvmsr_cuda_conv_backward_workspace_size(const dvmsr_cuda_conv_params *params);

DVMSR_CUDA_API int dvmsr_cuda_causal_conv1d_backward(const dvmsr_cuda_conv_params *params,
                                                     const dvmsr_cuda_conv_output_gradients *outputs,
                                                     const dvmsr_cuda_conv_gradients *gradients,
                                                     void *workspace, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
