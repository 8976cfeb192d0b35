// StripAdd: a strip's residual, beside convolutions whose result comes some rows late.
#include <string>

#include "cpu_call.h"

namespace dvmsr::ort {
namespace {

constexpr Port inputs[] = {{"deep", "BhWC", activation},
                           {"x", "BHWC", activation},
                           {"waiting", "BQWC", activation},
                           {"top", "1", switched}};
constexpr Port outputs[] = {{"y", "BhWC", activation}, {"new_waiting", "BQWC", activation}};

struct StripAddNode : Node {
  explicit StripAddNode(const Declared &declared)
      : Node({inputs, outputs, {}}), definition(declared.definition) {}

  void run(const Call &call) const override {
    const Sizes &size = call.size;
    const int64_t B = size['B'], H = size['H'], row = size['W'] * size['C'];
    const int64_t waiting = call.switches[0] ? 0 : size['Q'];  // at the top none wait
    if (waiting + H < size['h'])
      refuse(definition, "waiting and x have " + std::to_string(waiting + H) + " rows together, fewer than the " +
                             std::to_string(size['h']) + " of deep; feed as many");
    keep_rows(call.in[2], call.in[1], B, size['Q'], H, row * (call.half ? 2 : 4), call.out[1]);
    const dvmsr_strip_add_inputs in = {dtype_of(call.half), B,          size['h'],  waiting, H, row,
                                       call.in[0],          call.in[2], call.in[1]};
    dvmsr::ort::run(call, definition.name, [&](const dvmsr_executor *executor) {
      return dvmsr_strip_add_forward(&in, call.out[0], executor);
    });
  }

  const Definition &definition;
};

}  // namespace

const Definition strip_add = {
    "StripAdd", inputs, outputs,
    [](const Declared &declared) -> std::unique_ptr<Node> { return std::make_unique<StripAddNode>(declared); }};

}  // namespace dvmsr::ort
