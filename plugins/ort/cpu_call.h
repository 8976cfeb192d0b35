// Calls of the kernels' C interface on the session's own threads.
#pragma once

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

// Of the operators whose weights are packed.
extern const Definition mamba_mixer, conv3x3;

}  // namespace dvmsr::ort
