// Pictures to planes and back: a thread per pixel, bound by memory.
#include "pixels.h"

#include "device.cuh"

namespace dvmsr::cuda {
namespace {

constexpr int kPixelThreads = 256;

// The value that stands for 1.
template <class P>
constexpr float kWhite = 1.f;
template <>
constexpr float kWhite<uint8_t> = 255.f;
template <>
constexpr float kWhite<uint16_t> = 65535.f;

template <class P>
__device__ P quantised(float unit) {
  return static_cast<P>(rintf(unit * kWhite<P>));
}
template <>
__device__ float quantised<float>(float unit) {
  return unit;
}

// The place of a thread's pixel: its first value, and in its picture's first plane.
struct Place {
  __device__ explicit Place(const dvmsr_cuda_picture &p) {
    const int64_t area = p.height * p.width;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kPixelThreads + threadIdx.x;
    exists = index < p.batch * area;
    pixel = 3 * index;
    plane = index / area * 3 * area + index % area;
    stride = area;
  }
  bool exists;
  int64_t pixel, plane, stride;
};

template <class P, class T>
__global__ void __launch_bounds__(kPixelThreads) to_planes(const dvmsr_cuda_picture p) {
  const Place place(p);
  if (!place.exists) return;
  const P *pixel = static_cast<const P *>(p.pixels) + place.pixel;
  T *plane = static_cast<T *>(p.planes) + place.plane;
  DVMSR_UNROLL for (int c = 0; c < 3; ++c)
    plane[c * place.stride] = narrow<T>(static_cast<float>(pixel[c]) / kWhite<P>);
}

template <class P, class T>
__global__ void __launch_bounds__(kPixelThreads) to_pixels(const dvmsr_cuda_picture p, int32_t *not_finite) {
  const Place place(p);
  if (!place.exists) return;
  P *pixel = static_cast<P *>(p.pixels) + place.pixel;
  const T *plane = static_cast<const T *>(p.planes) + place.plane;
  DVMSR_UNROLL for (int c = 0; c < 3; ++c) {
    const float value = widen(plane[c * place.stride]);
    if (!(fabsf(value) < INFINITY)) *not_finite = 1;
    pixel[c] = quantised<P>(fminf(fmaxf(value, 0.f), 1.f));  // 0 for NaN
  }
}

bool valid(const dvmsr_cuda_picture &p) { return p.batch > 0 && p.height > 0 && p.width > 0; }

int64_t blocks(const dvmsr_cuda_picture &p) { return ceil_div(p.batch * p.height * p.width, kPixelThreads); }

// Calls run with a value of the activation type.
template <class Run>
cudaError_t with_dtype(dvmsr_cuda_dtype dtype, const Run &run) {
  switch (dtype) {
    case DVMSR_CUDA_F32: return run(float{});
    case DVMSR_CUDA_F16: return run(__half{});
    case DVMSR_CUDA_BF16: return run(__nv_bfloat16{});
  }
  return cudaErrorInvalidValue;
}

// Calls run with a value of the pixel type.
template <class Run>
cudaError_t with_pixel(dvmsr_cuda_pixel_type type, const Run &run) {
  switch (type) {
    case DVMSR_CUDA_U8: return run(uint8_t{});
    case DVMSR_CUDA_U16: return run(uint16_t{});
    case DVMSR_CUDA_UNIT_F32: return run(float{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

int dvmsr_cuda_planes_from_pixels(const dvmsr_cuda_picture *picture, cudaStream_t stream) {
  const dvmsr_cuda_picture &p = *picture;
  if (!valid(p)) return cudaErrorInvalidValue;
  return with_pixel(p.type, [&](auto pixel) {
    return with_dtype(p.dtype, [&](auto value) {
      return launch(to_planes<decltype(pixel), decltype(value)>, blocks(p), kPixelThreads, stream, p);
    });
  });
}

int dvmsr_cuda_pixels_from_planes(const dvmsr_cuda_picture *picture, int32_t *not_finite, cudaStream_t stream) {
  const dvmsr_cuda_picture &p = *picture;
  if (!valid(p)) return cudaErrorInvalidValue;
  const cudaError_t status = cudaMemsetAsync(not_finite, 0, sizeof *not_finite, stream);
  if (status != cudaSuccess) return status;
  return with_pixel(p.type, [&](auto pixel) {
    return with_dtype(p.dtype, [&](auto value) {
      return launch(to_pixels<decltype(pixel), decltype(value)>, blocks(p), kPixelThreads, stream, p, not_finite);
    });
  });
}
