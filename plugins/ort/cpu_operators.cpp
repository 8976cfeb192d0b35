// The custom operators over the CPU kernels, on the session's own threads.
#include <new>
#include <stdexcept>
#include <string>

#include "custom_ops.h"
#include "dvmsr_ops.h"

namespace dvmsr::ort {
namespace {

// The session's thread pool as an executor's parallel_for.
struct SessionThreads {
  const OrtApi &api;
  const OrtKernelContext *context;
  OrtStatus *failure = nullptr;

  static void parallel_for(void *self, void (*task)(void *, size_t), size_t count, void *data) {
    auto &threads = *static_cast<SessionThreads *>(self);
    if (!threads.failure)
      threads.failure = threads.api.KernelContext_ParallelFor(threads.context, task, count, 0, data);
  }
};

template <class Inputs, class Outputs>
void run(const Call &call, const char *name,
         dvmsr_status (*forward)(const Inputs *, const Outputs *, const dvmsr_executor *), const Inputs &inputs,
         const Outputs &outputs) {
  SessionThreads threads{call.api, call.context};
  const dvmsr_executor executor = {call.threads, SessionThreads::parallel_for, &threads};
  const dvmsr_status status = forward(&inputs, &outputs, &executor);
  check(threads.failure);
  if (status == DVMSR_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status != DVMSR_OK)
    throw std::runtime_error(std::string("dvmsr ") + name + ": the kernel refused with status " +
                             std::to_string(status));
}

dvmsr_dtype dtype_of(const Call &call) { return call.half ? DVMSR_F16 : DVMSR_F32; }

}  // namespace

const char *const provider = nullptr;
const bool reads_channel_major = true;

void run_selective_scan(const Call &call) {
  const Sizes &size = call.size;
  void *const *in = call.in;
  run(call, "SelectiveScan", dvmsr_selective_scan_forward,
      dvmsr_scan_inputs{dtype_of(call), call.applied, call.channel_major, size['B'], size['L'], size['D'], size['G'],
                        size['N'], in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]},
      dvmsr_scan_outputs{call.out[0], call.out[1]});
}

void run_causal_conv1d(const Call &call) {
  const Sizes &size = call.size;
  void *const *in = call.in;
  run(call, "CausalConv1d", dvmsr_causal_conv1d_forward,
      dvmsr_conv_inputs{dtype_of(call), call.applied, size['B'], size['L'], size['D'], size['K'], in[0], in[1], in[2], in[3]},
      dvmsr_conv_outputs{call.out[0], call.out[1]});
}

}  // namespace dvmsr::ort
