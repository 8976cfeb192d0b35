/* The two operators on a CPU, as a plain C interface.
 *
 * SelectiveScan and CausalConv1d as the project defines them (README, "The two operators"):
 * token-major (of a scan that says so, channel-major), dense, row-major tensors; state in and state
 * out; arithmetic in FP32, or in FP64 for DVMSR_F64. Nothing here allocates on behalf of the caller
 * or keeps state between calls, and every function may be called from several threads at once.
 */
#ifndef DVMSR_OPS_H
#define DVMSR_OPS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DVMSR_API __declspec(dllexport)
#else
#define DVMSR_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised with every incompatible change of this header; see dvmsr_abi_version. */
#define DVMSR_ABI_VERSION 2

typedef enum {
  DVMSR_F32 = 0, /* everything float */
  DVMSR_F16 = 1, /* activations IEEE half, parameters and state float; forward only */
  DVMSR_F64 = 2  /* everything double */
} dvmsr_dtype;

typedef enum {
  DVMSR_OK = 0,
  DVMSR_INVALID_ARGUMENT = 1, /* negative size, zero D, G, N or K, G that does not divide D, or an
                               * unknown or unsupported dtype or layout */
  DVMSR_OUT_OF_MEMORY = 2,
  DVMSR_FAILED = 3 /* anything else */
} dvmsr_status;

/* Runs task(data, 0) ... task(data, count - 1), each once, in any order and on any thread, and
 * returns when all have ended. */
typedef void (*dvmsr_parallel_for)(void *context, void (*task)(void *data, size_t index), size_t count,
                                   void *data);

typedef struct {
  int threads;                     /* how many run at once; 0: one per processor */
  dvmsr_parallel_for parallel_for; /* NULL: threads of this library's own */
  void *context;                   /* handed to parallel_for */
} dvmsr_executor;

/* "act" tensors have the activation type, "par" tensors the parameter type of the dtype. */
typedef struct {
  dvmsr_dtype dtype;
  int32_t delta_softplus;                         /* 0: delta + delta_bias is the step itself */
  int32_t channel_major; /* 1: u, delta, z and y are (B, D, L), B and C (B, G, N, L) */
  int64_t batch, length, channels, groups, state; /* B, L, D, G, N; channel d uses group d / (D / G) */
  const void *u;                                  /* act (B, L, D) */
  const void *delta;                              /* act (B, L, D), before bias and softplus */
  const void *A;                                  /* par (D, N) */
  const void *B;                                  /* act (B, L, G, N) */
  const void *C;                                  /* act (B, L, G, N) */
  const void *D;                                  /* par (D) */
  const void *delta_bias;                         /* par (D) */
  const void *h0;                                 /* par (B, D, N) */
  const void *z;                                  /* act (B, L, D); NULL: no gate */
} dvmsr_scan_inputs;

typedef struct {
  void *y;      /* act (B, L, D) */
  void *h_last; /* par (B, D, N) */
} dvmsr_scan_outputs;

typedef struct {
  void *u, *delta, *A, *B, *C, *D, *delta_bias, *h0, *z; /* shapes of the inputs; z as there */
} dvmsr_scan_gradients;

typedef struct {
  dvmsr_dtype dtype;
  int32_t activation;                     /* 1: SiLU, 0: none */
  int64_t batch, length, channels, width; /* B, L, D, K */
  const void *x;                          /* act (B, L, D) */
  const void *weight;                     /* par (D, K) */
  const void *bias;                       /* par (D) */
  const void *tail;                       /* act (B, K-1, D): the K-1 tokens before the first */
} dvmsr_conv_inputs;

typedef struct {
  void *y;        /* act (B, L, D) */
  void *new_tail; /* act (B, K-1, D): the last K-1 tokens of tail and x together */
} dvmsr_conv_outputs;

typedef struct {
  void *x, *weight, *bias, *tail; /* shapes of the inputs */
} dvmsr_conv_gradients;

/* DVMSR_ABI_VERSION of the library. */
DVMSR_API int dvmsr_abi_version(void);

/* Which instruction set the kernels use on this machine: "avx512", "avx2" or "baseline". The
 * environment variable DVMSR_ISA names a lower one; an unknown or unavailable name is ignored. */
DVMSR_API const char *dvmsr_isa(void);

DVMSR_API dvmsr_status dvmsr_selective_scan_forward(const dvmsr_scan_inputs *in,
                                                    const dvmsr_scan_outputs *out,
                                                    const dvmsr_executor *executor);

/* Gradients from y_grad, of the shape of u, and h_last_grad (B, D, N); all of `out` is overwritten. */
DVMSR_API dvmsr_status dvmsr_selective_scan_backward(const dvmsr_scan_inputs *in, const void *y_grad,
                                                     const void *h_last_grad,
                                                     const dvmsr_scan_gradients *out,
                                                     const dvmsr_executor *executor);

DVMSR_API dvmsr_status dvmsr_causal_conv1d_forward(const dvmsr_conv_inputs *in,
                                                   const dvmsr_conv_outputs *out,
                                                   const dvmsr_executor *executor);

DVMSR_API dvmsr_status dvmsr_causal_conv1d_backward(const dvmsr_conv_inputs *in, const void *y_grad,
                                                    const void *new_tail_grad,
                                                    const dvmsr_conv_gradients *out,
                                                    const dvmsr_executor *executor);

/* (batch, rows, columns) to (batch, columns, rows), dense; elements of 4 or 8 bytes. For sequences
 * whose tokens lie side by side, (B, D, L), which the operators do not take. */
DVMSR_API dvmsr_status dvmsr_transpose(const void *from, void *to, int64_t batch, int64_t rows,
                                       int64_t columns, int64_t size, const dvmsr_executor *executor);

#ifdef __cplusplus
}
#endif
#endif
