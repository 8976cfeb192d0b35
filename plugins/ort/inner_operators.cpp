// SelectiveScan and CausalConv1d, which every device has.
#include "custom_ops.h"

namespace dvmsr::ort {
namespace {

constexpr Port scan_inputs[] = {
    {"u", "BLD", activation},  {"delta", "BLD", activation},    {"A", "DN", parameter},
    {"B", "BLGN", activation}, {"C", "BLGN", activation},       {"D", "D", parameter},
    {"delta_bias", "D", parameter}, {"h0", "BDN", parameter},  {"z", "BLD", activation, true}};
constexpr Port scan_outputs[] = {{"y", "BLD", activation}, {"h_last", "BDN", parameter}};
constexpr Port channel_major_scan_inputs[] = {
    {"u", "BDL", activation},  {"delta", "BDL", activation},    {"A", "DN", parameter},
    {"B", "BGNL", activation}, {"C", "BGNL", activation},       {"D", "D", parameter},
    {"delta_bias", "D", parameter}, {"h0", "BDN", parameter},  {"z", "BDL", activation, true}};
constexpr Port channel_major_scan_outputs[] = {{"y", "BDL", activation}, {"h_last", "BDN", parameter}};

struct ScanNode : Node {
  ScanNode(const Declared &declared, bool channel_major_)
      : Node(channel_major_ ? Form{channel_major_scan_inputs, channel_major_scan_outputs, {}}
                            : Form{scan_inputs, scan_outputs, {}}),
        delta_softplus(declared.flag("delta_softplus", true)),
        channel_major(channel_major_) {
    if (channel_major && !reads_channel_major)
      refuse(declared.definition,
             "channel_major is 1, but the CUDA kernels read token-major tensors alone; write "
             "the transposes out with dvmsr.export.onnx.forms.write_out_layouts");
  }
  void run(const Call &call) const override { run_selective_scan(call, delta_softplus, channel_major); }

  const bool delta_softplus, channel_major;
};

constexpr Port conv_inputs[] = {{"x", "BLD", activation},
                                {"weight", "DK", parameter},
                                {"bias", "D", parameter},
                                {"tail", "BkD", activation}};
constexpr Port conv_outputs[] = {{"y", "BLD", activation}, {"new_tail", "BkD", activation}};

struct ConvNode : Node {
  explicit ConvNode(const Declared &declared)
      : Node({conv_inputs, conv_outputs, {{'k', 'K', 1, -1}}}), silu(declared.flag("activation", true)) {
    if (declared.flag("channel_major", false))
      refuse(declared.definition,
             "channel_major is 1, but this operator reads token-major tensors alone; transpose its input");
  }
  void run(const Call &call) const override { run_causal_conv1d(call, silu); }

  const bool silu;
};

}  // namespace

const Definition selective_scan = {
    "SelectiveScan", scan_inputs, scan_outputs, [](const Declared &declared) -> std::unique_ptr<Node> {
      return std::make_unique<ScanNode>(declared, declared.flag("channel_major", false));
    }};
const Definition causal_conv1d = {
    "CausalConv1d", conv_inputs, conv_outputs,
    [](const Declared &declared) -> std::unique_ptr<Node> { return std::make_unique<ConvNode>(declared); }};

}  // namespace dvmsr::ort
