/* Pictures to the network's planes and back, on a CUDA device.
 *
 * Pixels are (B, H, W, 3): 8- or 16-bit integers, or floats in [0, 1]. Planes are (B, 3, H, W) in an
 * activation type, in [0, 1] (the network subtracts its mean itself). Both are dense. As with the
 * operators, nothing here allocates or synchronises, and every status is a cudaError_t.
 */
#ifndef DVMSR_CUDA_PIXELS_H
#define DVMSR_CUDA_PIXELS_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { DVMSR_CUDA_U8 = 0, DVMSR_CUDA_U16 = 1, DVMSR_CUDA_UNIT_F32 = 2 } dvmsr_cuda_pixel_type;

typedef struct {
  dvmsr_cuda_pixel_type type;
  dvmsr_cuda_dtype dtype;
  int64_t batch, height, width; /* all above 0 */
  void *pixels;
  void *planes;
} dvmsr_cuda_picture;

/* pixels -> planes: v / 255 or v / 65535 in float, rounded to the activation type. */
DVMSR_CUDA_API int dvmsr_cuda_planes_from_pixels(const dvmsr_cuda_picture *picture,
                                                 struct CUstream_st *stream);

/* planes -> pixels: clipped to [0, 1], scaled in float, rounded to nearest, ties to even.
 * *not_finite becomes 1 if any value is not finite, else 0; such values become 0 or the largest. */
DVMSR_CUDA_API int dvmsr_cuda_pixels_from_planes(const dvmsr_cuda_picture *picture, int32_t *not_finite,
                                                 struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
