/* The operators on a CPU, as a plain C interface.
 *
 * SelectiveScan, CausalConv1d, MambaMixer, Conv3x3, and the sum of StripAdd, as the project defines them (README,
 * "The operators"): token-major (of a scan that says so, channel-major), dense, row-major tensors; state in
 * and state out; arithmetic in FP32, or in FP64 for DVMSR_F64. Nothing here keeps state between calls,
 * and every function may be called from several threads at once.
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

/* Raised with every change of this header that a program compiled with an older one, or written for a
 * newer one, must know of; 3 brought MambaMixer and Conv3x3, 4 strips of
 * rows. See dvmsr_abi_version. */
#define DVMSR_ABI_VERSION 4

typedef enum {
  DVMSR_F32 = 0, /* everything float */
  DVMSR_F16 = 1, /* activations IEEE half, parameters and state float; forward only */
  DVMSR_F64 = 2  /* everything double */
} dvmsr_dtype;

typedef enum {
  DVMSR_OK = 0,
  DVMSR_INVALID_ARGUMENT = 1, /* negative size, zero C, D, E, G, K, N or R, G that does not divide D,
                               * half of what goes together, padding that is neither 0 nor 1, or an
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
 * environment variable DVMSR_ISA names a lower one; with an unknown or unavailable name the kernels
 * take the best there is: compare the answer with what was asked for. */
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

/* The weights of a MambaMixer; matrices are (in, out), to be multiplied by rows from the left. */
typedef struct {
  dvmsr_dtype dtype; /* DVMSR_F32 or DVMSR_F16 */
  float epsilon;     /* of the norm */
  int64_t channels, inner, state, rank, width, out_channels; /* C, D, N, R, K, E */
  const void *norm_weight, *norm_bias;                       /* act (C); NULL: no LayerNorm of x */
  const void *in_proj_x, *in_proj_z; /* act (C, D); NULL: the rows of x are those of x and z, C = 2 D */
  const void *conv1d_weight;         /* par (D, K) */
  const void *conv1d_bias;           /* par (D) */
  const void *x_proj_dt;             /* act (D, R) */
  const void *x_proj_B, *x_proj_C;   /* act (D, N) */
  const void *dt_proj;               /* act (R, D) */
  const void *A;                     /* par (D, N) */
  const void *D;                     /* par (D) */
  const void *delta_bias;            /* par (D) */
  const void *out_proj;              /* act (D, E); NULL: none, and E = D */
} dvmsr_mixer_weights;

typedef struct {
  int64_t batch, length; /* B, L */
  const void *x;         /* act (B, L, C) */
  const void *tail;      /* act (B, K-1, D): what the convolution sees before the first token */
  const void *h0;        /* par (B, D, N) */
} dvmsr_mixer_inputs;

typedef struct {
  void *y;        /* act (B, L, E) */
  void *new_tail; /* act (B, K-1, D) */
  void *h_last;   /* par (B, D, N) */
} dvmsr_mixer_outputs;

/* The weights as the kernels read them; nothing of `weights` is kept. A failure leaves `*mixer` as it
 * was. To free NULL does nothing. So below. */
typedef struct dvmsr_mixer dvmsr_mixer;
DVMSR_API dvmsr_status dvmsr_mixer_pack(const dvmsr_mixer_weights *weights, dvmsr_mixer **mixer);
DVMSR_API void dvmsr_mixer_free(dvmsr_mixer *mixer);

/* The result does not depend on the number of threads. */
DVMSR_API dvmsr_status dvmsr_mamba_mixer_forward(const dvmsr_mixer *mixer, const dvmsr_mixer_inputs *in,
                                                 const dvmsr_mixer_outputs *out,
                                                 const dvmsr_executor *executor);

/* The weights of a 3x3 convolution of token-major pixels. */
typedef struct {
  dvmsr_dtype dtype;              /* DVMSR_F32 or DVMSR_F16 */
  int64_t channels, out_channels; /* C, E */
  const void *weight;             /* act (E, C, 3, 3) */
  const void *bias;               /* act (E) */
} dvmsr_conv3x3_weights;

typedef struct {
  int64_t batch, height, width;             /* B, H, W */
  int64_t top, left, bottom, right;         /* rows and columns of zeros around the others, 0 or 1 each */
  int64_t above_rows;                       /* A */
  const void *x;                            /* act (B, H, W, C) */
  const void *above;                        /* act (B, A, W, C): rows before those of x */
} dvmsr_conv3x3_inputs;

typedef struct dvmsr_conv3x3 dvmsr_conv3x3;
DVMSR_API dvmsr_status dvmsr_conv3x3_pack(const dvmsr_conv3x3_weights *weights, dvmsr_conv3x3 **conv);
DVMSR_API void dvmsr_conv3x3_free(dvmsr_conv3x3 *conv);

/* y: act (B, top + A + H + bottom - 2, left + W + right - 2, E); sizes below zero are an invalid argument.
 *
 * Computed in FP32 in tiles of 4x4 pixels, counted from y's first one, by Winograd's F(4x4, 3x3). Rounding
 * depends on where in its tile a pixel lies, not on the number of threads. A NaN or an infinity in x may
 * reach every pixel of the tiles that read it, and no others. */
DVMSR_API dvmsr_status dvmsr_conv3x3_forward(const dvmsr_conv3x3 *conv, const dvmsr_conv3x3_inputs *in,
                                             void *y, const dvmsr_executor *executor);

/* A strip's residual, beside convolutions whose result comes some rows late. */
typedef struct {
  dvmsr_dtype dtype;            /* DVMSR_F32 or DVMSR_F16 */
  int64_t batch, rows;          /* B, h */
  int64_t waiting_rows, x_rows; /* q, H; q + H is at least h */
  int64_t row;                  /* values of a row */
  const void *deep;             /* act (B, h, row) */
  const void *waiting;          /* act (B, q, row), from before x */
  const void *x;                /* act (B, H, row) */
} dvmsr_strip_add_inputs;

/* y, act (B, h, row): deep, and the first h rows of waiting and x together. */
DVMSR_API dvmsr_status dvmsr_strip_add_forward(const dvmsr_strip_add_inputs *in, void *y,
                                                 const dvmsr_executor *executor);

/* (batch, rows, columns) to (batch, columns, rows), dense; elements of 4 or 8 bytes. For sequences
 * whose tokens lie side by side, (B, D, L), which the operators do not take. */
DVMSR_API dvmsr_status dvmsr_transpose(const void *from, void *to, int64_t batch, int64_t rows,
                                       int64_t columns, int64_t size, const dvmsr_executor *executor);

#ifdef __cplusplus
}
#endif
#endif
