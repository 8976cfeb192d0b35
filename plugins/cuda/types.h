/* What the headers of the CUDA operators share. A stream is CUDA's cudaStream_t under its C name. */
#ifndef DVMSR_CUDA_TYPES_H
#define DVMSR_CUDA_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DVMSR_CUDA_API __declspec(dllexport)
#else
#define DVMSR_CUDA_API __attribute__((visibility("default")))
#endif

/* The type of activations. Parameters, state and arithmetic are float throughout. */
typedef enum { DVMSR_CUDA_F32 = 0, DVMSR_CUDA_F16 = 1, DVMSR_CUDA_BF16 = 2 } dvmsr_cuda_dtype;

struct CUstream_st;

#endif
