// Runs the kernels under the sanitizers: a few shapes, every branch, heap buffers of exactly the
// tensors' sizes, unaligned where only elements must be aligned. Prints nothing when all is well.
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <vector>
#include <memory>

#include "gradients.h"

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

struct Form {
  int64_t groups = 1;
  bool gate = true, softplus = true;
};

const auto relay = DVMSR_CUDA_SCAN_RELAY, chunks = DVMSR_CUDA_SCAN_CHUNKS;
const int32_t whole = DVMSR_CUDA_SCAN_WHOLE;
const std::vector<dvmsr_cuda_scan_plan> plans = {{relay, 16},  {relay, 32},  {relay, whole},
                                                 {chunks, 16}, {chunks, 21}, {chunks, whole}};

// In every plan, and the gradients.
void scan(dvmsr_cuda_dtype dtype, int64_t B, int64_t L, int64_t D, int64_t N, Form form) {
  const auto f32 = DVMSR_CUDA_F32;
  const int64_t G = form.groups;
  const Tensor u(B * L * D, dtype), delta(B * L * D, dtype), A(D * N, f32, 0.5f, -0.6f), b(B * L * G * N, dtype),
      c(B * L * G * N, dtype), d(D, f32), bias(D, f32), h0(B * D * N, f32), z(form.gate ? B * L * D : 0, dtype),
      y(B * L * D, dtype), h_last(B * D * N, f32);
  dvmsr_cuda_scan_params p{};
  p.dtype = dtype, p.delta_softplus = form.softplus;
  p.batch = B, p.length = L, p.channels = D, p.groups = G, p.state = N;
  p.u = u.get(), p.delta = delta.get(), p.A = A.floats(), p.B = b.get(), p.C = c.get(), p.D = d.floats();
  p.delta_bias = bias.floats(), p.h0 = h0.floats(), p.z = form.gate ? z.get() : nullptr;
  p.y = y.get(), p.h_last = h_last.floats();
  p.u_stride = p.delta_stride = p.y_stride = D, p.z_stride = form.gate ? D : 0, p.B_stride = p.C_stride = G * N;
  for (const dvmsr_cuda_scan_plan &plan : plans) {
    const std::unique_ptr<char[]> workspace(new char[dvmsr_cuda_scan_workspace_size(&p, plan)]);
    check(dvmsr_cuda_selective_scan(&p, plan, workspace.get(), nullptr));
  }

  const Tensor u_(B * L * D, dtype), delta_(B * L * D, dtype), A_(D * N, f32), b_(B * L * G * N, dtype),
      c_(B * L * G * N, dtype), d_(D, f32), bias_(D, f32), h0_(B * D * N, f32), z_(form.gate ? B * L * D : 0, dtype);
  const dvmsr_cuda_scan_output_gradients outputs = {y.get(), h_last.floats()};
  const dvmsr_cuda_scan_gradients gradients = {u_.get(),   delta_.get(),   A_.floats(),  b_.get(), c_.get(),
                                               d_.floats(), bias_.floats(), h0_.floats(),
                                               form.gate ? z_.get() : nullptr};
  const std::unique_ptr<char[]> scratch(new char[dvmsr_cuda_scan_backward_workspace_size(&p)]);
  check(dvmsr_cuda_selective_scan_backward(&p, &outputs, &gradients, scratch.get(), nullptr));
}

void conv(dvmsr_cuda_dtype dtype, int64_t B, int64_t L, int64_t D, int64_t K, bool activation) {
  const auto f32 = DVMSR_CUDA_F32;
  const int64_t kept = B * (K - 1) * D;
  const Tensor x(B * L * D, dtype), weight(D * K, f32), bias(D, f32), tail(kept, dtype), y(B * L * D, dtype),
      new_tail(kept, dtype);
  const dvmsr_cuda_conv_params p = {dtype,   activation,      B,             L,          D,       K,
                                    x.get(), weight.floats(), bias.floats(), tail.get(), y.get(), new_tail.get(),
                                    D,       D};
  check(dvmsr_cuda_causal_conv1d(&p, nullptr));

  const Tensor x_(B * L * D, dtype), weight_(D * K, f32), bias_(D, f32), tail_(kept, dtype);
  const dvmsr_cuda_conv_output_gradients outputs = {y.get(), new_tail.get()};
  const dvmsr_cuda_conv_gradients gradients = {x_.get(), weight_.floats(), bias_.floats(), tail_.get()};
  const std::unique_ptr<char[]> scratch(new char[dvmsr_cuda_conv_backward_workspace_size(&p)]);
  check(dvmsr_cuda_causal_conv1d_backward(&p, &outputs, &gradients, scratch.get(), nullptr));
}

}  // namespace

int main() {
  const Form full, grouped{2}, ungated{2, false}, bare{3, false, false}, steps{1, true, false};
#if defined(__SANITIZE_THREAD__)
  for (const auto dtype : {DVMSR_CUDA_F16}) {  // the thread sanitizer takes its time
#else
  for (const auto dtype : {DVMSR_CUDA_F32, DVMSR_CUDA_F16, DVMSR_CUDA_BF16}) {
#endif
    scan(dtype, 1, 0, 3, 16, full);
    scan(dtype, 1, 1, 1, 1, full);
    scan(dtype, 2, 37, 5, 16, full);
    scan(dtype, 1, 50, 131, 16, full);
    scan(dtype, 1, 290, 3, 16, full);  // more slices than a block has warps
    scan(dtype, 1, 35, 3, 61, full);
    scan(dtype, 2, 37, 10, 16, grouped);
    scan(dtype, 1, 37, 2 * 131, 1, ungated);
    scan(dtype, 2, 37, 9, 5, bare);
    scan(dtype, 1, 35, 6, 64, bare);
    scan(dtype, 1, 37, 5, 16, steps);
    for (const bool activation : {true, false}) {
      conv(dtype, 1, 0, 3, 4, activation);
      conv(dtype, 1, 2, 3, 4, activation);
      conv(dtype, 2, 33, 24, 4, activation);
      conv(dtype, 1, 19, 7, 1, activation);
      conv(dtype, 3, 9, 5, 7, activation);
    }
  }
  return failed;
}
