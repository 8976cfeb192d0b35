// The custom operators of the CPU.
#include "cpu_call.h"

namespace dvmsr::ort {
namespace {

constexpr const Definition *table[] = {&selective_scan, &causal_conv1d, &mamba_mixer, &conv3x3, &strip_conv3x3,
                                           &strip_add};

}  // namespace

const Constants<const Definition *> operators = table;
const char *const provider = nullptr;
const bool reads_channel_major = true;

void run_selective_scan(const Call &call, bool delta_softplus, bool channel_major) {
  const Sizes &size = call.size;
  void *const *in = call.in;
  const dvmsr_scan_inputs inputs = {
      dtype_of(call.half), delta_softplus, channel_major, size['B'], size['L'], size['D'], size['G'], size['N'],
      in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]};
  const dvmsr_scan_outputs outputs = {call.out[0], call.out[1]};
  run(call, "SelectiveScan", [&](const dvmsr_executor *executor) {
    return dvmsr_selective_scan_forward(&inputs, &outputs, executor);
  });
}

void run_causal_conv1d(const Call &call, bool silu) {
  const Sizes &size = call.size;
  void *const *in = call.in;
  const dvmsr_conv_inputs inputs = {dtype_of(call.half), silu, size['B'], size['L'], size['D'], size['K'],
                                    in[0], in[1], in[2], in[3]};
  const dvmsr_conv_outputs outputs = {call.out[0], call.out[1]};
  run(call, "CausalConv1d", [&](const dvmsr_executor *executor) {
    return dvmsr_causal_conv1d_forward(&inputs, &outputs, executor);
  });
}

}  // namespace dvmsr::ort
