// Runs the kernels under the sanitizers: a few shapes, every branch, heap buffers of exactly the
// tensors' sizes, unaligned where only elements must be aligned. Prints nothing when all is well.
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <memory>

#include "causal_conv1d.h"
#include "selective_scan.h"

namespace {

uint32_t seed = 1;
float uniform() {  // in [-1, 1)
  seed = seed * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-31f;
}

// `count` elements that end where the allocation ends.
class Tensor {
 public:
  Tensor(int64_t count, dvmsr_cuda_dtype dtype, float scale = 1, float shift = 0)
      : bytes_(count * (dtype == DVMSR_CUDA_F32 ? 4 : 2)), data_(new char[static_cast<size_t>(bytes_)]) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = uniform() * scale + shift;
      if (dtype == DVMSR_CUDA_F32)
        reinterpret_cast<float *>(data_.get())[i] = value;
      else  // small numbers of either sign in both 16-bit types
        reinterpret_cast<uint16_t *>(data_.get())[i] = static_cast<uint16_t>(value < 0 ? 0xb800 : 0x3800);
    }
  }
  void *get() const { return data_.get(); }
  float *floats() const { return reinterpret_cast<float *>(data_.get()); }

 private:
  int64_t bytes_;
  std::unique_ptr<char[]> data_;
};

bool failed = false;
void check(int status) {
  if (status != 0) {
    std::fprintf(stderr, "status %d\n", status);
    failed = true;
  }
}

void scan(dvmsr_cuda_dtype dtype, int64_t B, int64_t L, int64_t D, int64_t N, int32_t chunk) {
  const auto f32 = DVMSR_CUDA_F32;
  const Tensor u(B * L * D, dtype), delta(B * L * D, dtype), A(D * N, f32, 0.5f, -0.6f), b(B * L * N, dtype),
      c(B * L * N, dtype), d(D, f32), z(B * L * D, dtype), bias(D, f32), h0(B * D * N, f32),
      y(B * L * D, dtype), h_last(B * D * N, f32);
  const dvmsr_cuda_scan_params p = {dtype,        B,       L,           D,         N,          u.get(),
                                    delta.get(),  A.floats(), b.get(),  c.get(),   d.floats(), z.get(),
                                    bias.floats(), h0.floats(), y.get(), h_last.floats(), D, D, N, N, D, D};
  const std::unique_ptr<char[]> workspace(new char[dvmsr_cuda_scan_workspace_size(&p, chunk)]);
  check(dvmsr_cuda_selective_scan(&p, chunk, workspace.get(), nullptr));
}

void conv(dvmsr_cuda_dtype dtype, int64_t B, int64_t L, int64_t D, int64_t K) {
  const Tensor x(B * L * D, dtype), weight(D * K, DVMSR_CUDA_F32), bias(D, DVMSR_CUDA_F32),
      tail(B * (K - 1) * D, dtype), y(B * L * D, dtype), new_tail(B * (K - 1) * D, dtype);
  const dvmsr_cuda_conv_params p = {dtype,      B,          L,       D,          K,
                                    x.get(),    weight.floats(), bias.floats(), tail.get(), y.get(),
                                    new_tail.get(), D,      D};
  check(dvmsr_cuda_causal_conv1d(&p, nullptr));
}

}  // namespace

int main() {
  for (const auto dtype : {DVMSR_CUDA_F32, DVMSR_CUDA_F16, DVMSR_CUDA_BF16}) {
    for (const int32_t chunk : {16, 21, DVMSR_CUDA_SCAN_WHOLE}) {
      scan(dtype, 1, 0, 3, 16, chunk);
      scan(dtype, 1, 1, 1, 1, chunk);
      scan(dtype, 2, 37, 5, 16, chunk);
      scan(dtype, 1, 50, 131, 16, chunk);
      scan(dtype, 1, 35, 3, 61, chunk);
    }
    conv(dtype, 1, 0, 3, 4);
    conv(dtype, 1, 2, 3, 4);
    conv(dtype, 2, 33, 24, 4);
    conv(dtype, 1, 19, 7, 1);
    conv(dtype, 3, 9, 5, 7);
  }
  return failed;
}
