// Calls of the kernels' C interface on the session's own threads.
#pragma once

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "custom_ops.h"
#include "dvmsr_ops.h"

namespace dvmsr::ort {

inline dvmsr_dtype dtype_of(bool half) { return half ? DVMSR_F16 : DVMSR_F32; }

inline void check(const char *name, dvmsr_status status) {
  if (status == DVMSR_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status != DVMSR_OK)
    throw std::runtime_error(std::string("dvmsr ") + name + ": the kernel refused with status " +
                             std::to_string(status));
}

// forward(executor) on the session's threads; throws where it or they fail.
template <class Forward>
void run(const Call &call, const char *name, const Forward &forward) {
  struct SessionThreads {
    const Call &call;
    OrtStatus *failure = nullptr;

    static void parallel_for(void *self, void (*task)(void *, size_t), size_t count, void *data) {
      auto &[call, failure] = *static_cast<SessionThreads *>(self);
      if (!failure) failure = call.api.KernelContext_ParallelFor(call.context, task, count, 0, data);
    }
  } threads{call};
  const dvmsr_executor executor = {call.threads, SessionThreads::parallel_for, &threads};
  const dvmsr_status status = forward(&executor);
  check(threads.failure);
  check(name, status);
}

// The last q rows, each of so many bytes, of `before` (B, q, .) and x (B, H, .) together.
inline void keep_rows(const void *before, const void *x, int64_t B, int64_t q, int64_t H, int64_t bytes, void *to) {
  const int64_t stay = std::max<int64_t>(0, q - H), come = q - stay;
  char *next = static_cast<char *>(to);
  const auto copy = [&](const void *rows, int64_t first, int64_t count) {
    const size_t size = static_cast<size_t>(count * bytes);
    std::memcpy(next, static_cast<const char *>(rows) + first * bytes, size);
    next += size;
  };
  for (int64_t b = 0; b < B; ++b) {
    copy(before, b * q + H, stay);
    copy(x, b * H + H - come, come);
  }
}

// The operators that only processors have. Of the first three the weights are packed; the last two compute a
// strip of rows.
extern const Definition mamba_mixer, conv3x3, strip_conv3x3, strip_add;

}  // namespace dvmsr::ort
