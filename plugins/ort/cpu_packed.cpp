// MambaMixer, Conv3x3 and StripConv3x3: operators whose weights the kernels read in a form of their own. They
// are packed once per session where they are constant, else for every call.
#include <memory>
#include <utility>
#include <vector>

#include "cpu_call.h"

namespace dvmsr::ort {
namespace {

// A node of `Operator`, which says how weights become what `Packed` is, and how it is run.
template <class Operator, class Packed>
class PackedNode : public Node {
 public:
  PackedNode(Form form, Operator operator_) : Node(std::move(form)), operator_(std::move(operator_)) {}

  bool wants_weights() const override { return true; }
  void prepare(const Weights &weights) override { packed_ = packed(weights); }
  void run(const Call &call) const override {
    Owner own;
    if (!packed_) own = packed({call.half, call.size, {call.in, call.in + form.inputs.size()}});
    const Packed *weights = packed_ ? packed_.get() : own.get();
    dvmsr::ort::run(call, Operator::name, [&](const dvmsr_executor *executor) {
      return operator_.forward(weights, call, executor);
    });
  }

 private:
  struct Free {
    void operator()(Packed *packed) const { Operator::free(packed); }
  };
  using Owner = std::unique_ptr<Packed, Free>;

  Owner packed(const Weights &weights) const {
    Packed *made = nullptr;
    check(Operator::name, operator_.pack(weights, &made));
    return Owner(made);
  }

  const Operator operator_;
  Owner packed_;  // NULL: the weights are not constant
};

// The inputs of MambaMixer, by their places.
enum MixerInput {
  x, in_proj_x, in_proj_z, conv1d_weight, conv1d_bias, x_proj_dt, x_proj_B, x_proj_C, dt_proj, A, D, delta_bias,
  out_proj, tail, h0, norm_weight, norm_bias
};
constexpr Port mixer_inputs[] = {
    {"x", "BLC", activation},              {"in_proj_x", "CD", activation, true},
    {"in_proj_z", "CD", activation, true}, {"conv1d_weight", "DK", parameter},
    {"conv1d_bias", "D", parameter},       {"x_proj_dt", "DR", activation},
    {"x_proj_B", "DN", activation},        {"x_proj_C", "DN", activation},
    {"dt_proj", "RD", activation},         {"A", "DN", parameter},
    {"D", "D", parameter},                 {"delta_bias", "D", parameter},
    {"out_proj", "DE", activation, true},  {"tail", "BkD", activation},
    {"h0", "BDN", parameter},              {"norm_weight", "C", activation, true},
    {"norm_bias", "C", activation, true}};
constexpr Port mixer_outputs[] = {
    {"y", "BLE", activation}, {"new_tail", "BkD", activation}, {"h_last", "BDN", parameter}};

struct Mixer {
  static constexpr const char *name = "MambaMixer";
  static constexpr auto free = dvmsr_mixer_free;

  dvmsr_status pack(const Weights &weights, dvmsr_mixer **mixer) const {
    const Sizes &size = weights.size;
    const std::vector<void *> &in = weights.in;
    const dvmsr_mixer_weights packed = {
        dtype_of(weights.half), epsilon, size['C'], size['D'], size['N'], size['R'], size['K'], size['E'],
        in[norm_weight], in[norm_bias], in[in_proj_x], in[in_proj_z], in[conv1d_weight], in[conv1d_bias],
        in[x_proj_dt], in[x_proj_B], in[x_proj_C], in[dt_proj], in[A], in[D], in[delta_bias], in[out_proj]};
    return dvmsr_mixer_pack(&packed, mixer);
  }
  dvmsr_status forward(const dvmsr_mixer *mixer, const Call &call, const dvmsr_executor *executor) const {
    const dvmsr_mixer_inputs inputs = {call.size['B'], call.size['L'], call.in[x], call.in[tail], call.in[h0]};
    const dvmsr_mixer_outputs outputs = {call.out[0], call.out[1], call.out[2]};
    return dvmsr_mamba_mixer_forward(mixer, &inputs, &outputs, executor);
  }

  float epsilon;
};

void need_both(const Declared &declared, MixerInput one, MixerInput other) {
  if (declared.has(one) == declared.has(other)) return;
  const MixerInput there = declared.has(one) ? one : other, missing = there == one ? other : one;
  refuse(declared.definition, std::string(mixer_inputs[missing].name) + " is missing where " +
                                  mixer_inputs[there].name + " is given; give both or neither");
}

std::unique_ptr<Node> mixer_node(const Declared &declared) {
  need_both(declared, in_proj_x, in_proj_z);
  need_both(declared, norm_weight, norm_bias);
  Form form{mixer_inputs, mixer_outputs, {{'k', 'K', 1, -1}}};
  // The rows of x are then those of x and z side by side.
  if (!declared.has(in_proj_x)) form.derived.push_back({'C', 'D', 2, 0});
  if (!declared.has(out_proj)) form.derived.push_back({'E', 'D', 1, 0});
  return std::make_unique<PackedNode<Mixer, dvmsr_mixer>>(std::move(form), Mixer{declared.number("epsilon", 1e-5f)});
}

constexpr Port conv3x3_inputs[] = {
    {"x", "BHWC", activation}, {"weight", "EC33", activation}, {"bias", "E", activation}};
constexpr Port conv3x3_outputs[] = {{"y", "BhwE", activation}};

struct Conv3x3 {
  static constexpr const char *name = "Conv3x3";
  static constexpr auto free = dvmsr_conv3x3_free;

  dvmsr_status pack(const Weights &weights, dvmsr_conv3x3 **conv) const {
    const dvmsr_conv3x3_weights packed = {dtype_of(weights.half), weights.size['C'], weights.size['E'],
                                          weights.in[1], weights.in[2]};
    return dvmsr_conv3x3_pack(&packed, conv);
  }
  dvmsr_status forward(const dvmsr_conv3x3 *conv, const Call &call, const dvmsr_executor *executor) const {
    const dvmsr_conv3x3_inputs inputs = {call.size['B'], call.size['H'], call.size['W'], pads[0], pads[1],
                                         pads[2],        pads[3],        0,              call.in[0], nullptr};
    return dvmsr_conv3x3_forward(conv, &inputs, call.out[0], executor);
  }

  std::vector<int64_t> pads;  // top, left, bottom, right
};

std::unique_ptr<Node> conv3x3_node(const Declared &declared) {
  std::vector<int64_t> pads = declared.list("pads", {0, 0, 0, 0});
  bool right = pads.size() == 4;
  for (const int64_t pad : pads) right = right && (pad == 0 || pad == 1);
  if (!right) refuse(declared.definition, "pads must be four numbers (top, left, bottom, right), each 0 or 1");
  Form form{conv3x3_inputs,
            conv3x3_outputs,
            {{'h', 'H', 1, pads[0] + pads[2] - 2}, {'w', 'W', 1, pads[1] + pads[3] - 2}}};
  return std::make_unique<PackedNode<Conv3x3, dvmsr_conv3x3>>(std::move(form), Conv3x3{std::move(pads)});
}

constexpr Port strip_conv3x3_inputs[] = {
    {"x", "BHWC", activation},    {"weight", "EC33", activation}, {"bias", "E", activation},
    {"rows", "B2WC", activation}, {"top", "1", switched},         {"bottom", "1", switched}};
constexpr Port strip_conv3x3_outputs[] = {{"y", "BhWE", activation}, {"new_rows", "B2WC", activation}};

// The last two rows of the strip before are above x; at the top of the image a row of zeros is, and at its bottom
// one is below.
struct StripConv3x3 : Conv3x3 {
  static constexpr const char *name = "StripConv3x3";

  dvmsr_status forward(const dvmsr_conv3x3 *conv, const Call &call, const dvmsr_executor *executor) const {
    const int64_t B = call.size['B'], H = call.size['H'], width = call.size['W'];
    const int64_t top = call.switches[0], bottom = call.switches[1], above = top ? 0 : 2;
    const dvmsr_conv3x3_inputs inputs = {B, H, width, top, 1, bottom, 1, above, call.in[0], call.in[3]};
    keep_rows(call.in[3], call.in[0], B, 2, H, width * call.size['C'] * (call.half ? 2 : 4), call.out[1]);
    return dvmsr_conv3x3_forward(conv, &inputs, call.out[0], executor);
  }
};

struct StripConv3x3Node : PackedNode<StripConv3x3, dvmsr_conv3x3> {
  StripConv3x3Node() : PackedNode(Form{strip_conv3x3_inputs, strip_conv3x3_outputs, {}}, StripConv3x3{}) {}
  void add_sizes(Sizes &size, const std::vector<bool> &switches) const override {
    size['h'] = size['H'] - switches[0] + switches[1];
  }
};

}  // namespace

const Definition mamba_mixer = {"MambaMixer", mixer_inputs, mixer_outputs, mixer_node};
const Definition conv3x3 = {"Conv3x3", conv3x3_inputs, conv3x3_outputs, conv3x3_node};
const Definition strip_conv3x3 = {
    "StripConv3x3", strip_conv3x3_inputs, strip_conv3x3_outputs,
    [](const Declared &) -> std::unique_ptr<Node> { return std::make_unique<StripConv3x3Node>(); }};

}  // namespace dvmsr::ort
