#include "plugin.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string_view>

#include "log.h"

namespace dvmsr::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr const char *export_again = "export the model again with `dvmsr-export onnx` and build the engine anew";

// Runs body(); what it throws goes to the log and `failure` is returned, as no exception may reach TensorRT.
template <class Result, class Body>
Result guarded(const char *name, Result failure, const Body &body) noexcept {
  try {
    try {
      return body();
    } catch (const std::exception &error) {
      log_error(std::string("dvmsr ") + name + ": " + error.what());
    }
  } catch (...) {  // no memory even for the message
  }
  return failure;
}

bool is_activation(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

std::string text_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return "FP32";
    case DataType::kHALF: return "FP16";
    case DataType::kBF16: return "BF16";
    default: return "data type " + std::to_string(static_cast<int32_t>(type));
  }
}

// "(1, 3, 120)"
std::string text_of(const Dims &dims) {
  std::string text = "(";
  for (int32_t i = 0; i < dims.nbDims; ++i) text += (i ? ", " : "") + std::to_string(dims.d[i]);
  return text + ")";
}

const Dims &dims_of(const PluginTensorDesc &desc) { return desc.dims; }
const Dims &dims_of(const DynamicPluginTensorDesc &desc) { return desc.desc.dims; }

// "u (1, 3, 120), delta (1, 3, 120), ..."
template <class Desc>
std::string text_of(const Operator &op, const Desc *inputs, int32_t count) {
  std::string text;
  for (int32_t i = 0; i < count; ++i) {
    text += std::string(i ? ", " : "") + op.inputs[i].name + " " + text_of(dims_of(inputs[i]));
  }
  return text;
}

void check_counts(const Operator &op, int32_t inputs, int32_t outputs) {
  const int32_t most = op.inputs.size();
  if (inputs >= op.required && inputs <= most && outputs == op.outputs.size()) return;
  const std::string least = op.required < most ? std::to_string(op.required) + " or " : "";
  throw std::invalid_argument("has " + least + std::to_string(most) + " inputs and " +
                              std::to_string(op.outputs.size()) + " outputs, the node " + std::to_string(inputs) +
                              " and " + std::to_string(outputs) + "; " + export_again);
}

void check_rank(const Port &port, int32_t rank) {
  const auto wanted = static_cast<int32_t>(std::string_view(port.axes).size());
  if (rank == wanted) return;
  throw std::invalid_argument(std::string(port.name) + " has " + std::to_string(rank) + " dimensions instead of " +
                              std::to_string(wanted) + "; " + export_again);
}

// The letter of an axis, and how much its size is short of the letter's.
char letter_of(char axis) { return axis == 'k' ? 'K' : axis; }
int64_t shortage_of(char axis) { return axis == 'k'; }

// The sizes in the inputs. Unknown ones (-1) fit any.
template <class Desc>
Sizes bind(const Operator &op, const Desc *inputs, int32_t count) {
  Sizes sizes;
  sizes.fill(-1);
  for (int32_t i = 0; i < count; ++i) {
    const Port &port = op.inputs[i];
    const Dims &dims = dims_of(inputs[i]);
    check_rank(port, dims.nbDims);
    for (int32_t axis = 0; axis < dims.nbDims; ++axis) {
      if (dims.d[axis] < 0) continue;
      const char letter = letter_of(port.axes[axis]);
      const int64_t size = dims.d[axis] + shortage_of(port.axes[axis]);
      int64_t &known = sizes[letter];
      if (known >= 0 && known != size) {
        throw std::invalid_argument(std::string("axis ") + letter + " is " + std::to_string(size) + " in " + port.name +
                                    ", but " + std::to_string(known) + " in the inputs before it");
      }
      known = size;
    }
  }
  if (const char *reason = op.unsupported(sizes)) throw std::invalid_argument(reason);
  return sizes;
}

// bind(), with the shapes of all inputs in its errors.
template <class Desc>
Sizes bind_shapes(const Operator &op, const Desc *inputs, int32_t count) {
  try {
    return bind(op, inputs, count);
  } catch (const std::invalid_argument &error) {
    throw std::invalid_argument(std::string(error.what()) + "; the inputs are " + text_of(op, inputs, count));
  }
}

// The largest size of each axis. TensorRT's bounds may be wider for one input than for another.
Sizes largest(const Operator &op, const DynamicPluginTensorDesc *inputs, int32_t count) {
  Sizes sizes;
  sizes.fill(-1);
  for (int32_t i = 0; i < count; ++i) {
    const Port &port = op.inputs[i];
    check_rank(port, inputs[i].max.nbDims);
    for (int32_t axis = 0; axis < inputs[i].max.nbDims; ++axis) {
      int64_t &size = sizes[letter_of(port.axes[axis])];
      size = std::max(size, inputs[i].max.d[axis] + shortage_of(port.axes[axis]));
    }
  }
  return sizes;
}

// The value of the operator's attribute in a field.
bool flag_of(const nvinfer1::PluginField &field) {
  if (field.type == nvinfer1::PluginFieldType::kINT32 && field.length == 1) {
    const int32_t value = *static_cast<const int32_t *>(field.data);
    if (value == 0 || value == 1) return value;
    throw std::invalid_argument(std::string("attribute ") + field.name + " is " + std::to_string(value) +
                                " instead of 0 or 1; " + export_again);
  }
  throw std::invalid_argument(std::string("attribute ") + field.name + " is not an integer; " + export_again);
}

}  // namespace

Plugin::Plugin(const Operator &op, bool flag)
    : op_(op),
      flag_(flag),
      timing_cache_id_(std::string("dvmsr ") + op.name + " " + op.flag + "=" + std::to_string(flag_) + " " +
                       DVMSR_KERNELS_SHA256),
      field_(op.flag, &flag_, nvinfer1::PluginFieldType::kINT32, 1),
      fields_{1, &field_} {}

nvinfer1::IPluginCapability *Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore *>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild *>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime *>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3 *Plugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3 *>(op_.name, nullptr, [&] {
    auto copy = std::make_unique<Plugin>(op_, flag_);
    copy->tactic_ = tactic_;
    copy->input_count_ = input_count_;
    return copy.release();
  });
}

int32_t Plugin::getOutputDataTypes(DataType *outputs, int32_t output_count, const DataType *inputs,
                                   int32_t input_count) const noexcept {
  return guarded(op_.name, 1, [&] {
    check_counts(op_, input_count, output_count);
    for (int32_t i = 0; i < input_count; ++i) {
      const bool activation = op_.inputs[i].role == Role::activation;
      if (i == 0 ? is_activation(inputs[0]) : inputs[i] == (activation ? inputs[0] : DataType::kFLOAT)) continue;
      throw std::invalid_argument(std::string(op_.inputs[i].name) + " is " + text_of(inputs[i]) + " instead of " +
                                  (i == 0 ? "FP32, FP16 or BF16" : activation ? text_of(inputs[0]) : "FP32") + "; " +
                                  export_again);
    }
    for (int32_t i = 0; i < output_count; ++i) {
      outputs[i] = op_.outputs[i].role == Role::activation ? inputs[0] : DataType::kFLOAT;
    }
    return 0;
  });
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs *inputs, int32_t input_count, const nvinfer1::DimsExprs *,
                                int32_t, nvinfer1::DimsExprs *outputs, int32_t output_count,
                                nvinfer1::IExprBuilder &) noexcept {
  return guarded(op_.name, 1, [&] {
    check_counts(op_, input_count, output_count);
    std::array<const nvinfer1::IDimensionExpr *, 128> sizes{};  // of the first input that has the axis
    for (int32_t i = 0; i < input_count; ++i) {
      const Port &port = op_.inputs[i];
      check_rank(port, inputs[i].nbDims);
      for (int32_t axis = 0; axis < inputs[i].nbDims; ++axis) {
        const nvinfer1::IDimensionExpr *&size = sizes[port.axes[axis]];
        if (!size) size = inputs[i].d[axis];
      }
    }
    for (int32_t i = 0; i < output_count; ++i) {
      outputs[i].nbDims = 0;
      for (const char *axis = op_.outputs[i].axes; *axis; ++axis) outputs[i].d[outputs[i].nbDims++] = sizes[*axis];
    }
    return 0;
  });
}

bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc *ports, int32_t input_count,
                                       int32_t output_count) noexcept {
  return guarded(op_.name, false, [&] {
    check_counts(op_, input_count, output_count);
    const PluginTensorDesc &desc = ports[position].desc;
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (position == 0) return is_activation(desc.type);
    const Port &port = position < input_count ? op_.inputs[position] : op_.outputs[position - input_count];
    return desc.type == (port.role == Role::activation ? ports[0].desc.type : DataType::kFLOAT);
  });
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc *inputs, int32_t input_count,
                                const DynamicPluginTensorDesc *, int32_t output_count) noexcept {
  return guarded(op_.name, 1, [&] {
    check_counts(op_, input_count, output_count);
    bind_shapes(op_, inputs, input_count);
    input_count_ = input_count;
    return 0;
  });
}

size_t Plugin::getWorkspaceSize(const DynamicPluginTensorDesc *inputs, int32_t input_count,
                                const DynamicPluginTensorDesc *, int32_t output_count) const noexcept {
  return guarded(op_.name, std::numeric_limits<size_t>::max(), [&] {
    check_counts(op_, input_count, output_count);
    return op_.workspace_size(inputs[0].desc.type, largest(op_, inputs, input_count));
  });
}

int32_t Plugin::getValidTactics(int32_t *tactics, int32_t count) noexcept {
  if (count != op_.tactics()) return 1;
  std::iota(tactics, tactics + count, 1);
  return 0;
}

int32_t Plugin::setTactic(int32_t tactic) noexcept {
  return guarded(op_.name, 1, [&] {
    if (tactic < 0 || tactic > op_.tactics()) {
      throw std::invalid_argument("this plugin library has no tactic " + std::to_string(tactic) +
                                  "; build the engine anew with it");
    }
    tactic_ = tactic;
    return 0;
  });
}

int32_t Plugin::onShapeChange(const PluginTensorDesc *inputs, int32_t input_count, const PluginTensorDesc *,
                              int32_t output_count) noexcept {
  return guarded(op_.name, 1, [&] {
    check_counts(op_, input_count, output_count);
    bind_shapes(op_, inputs, input_count);
    input_count_ = input_count;
    return 0;
  });
}

int32_t Plugin::enqueue(const PluginTensorDesc *input_descs, const PluginTensorDesc *, const void *const *inputs,
                        void *const *outputs, void *workspace, cudaStream_t stream) noexcept {
  return guarded(op_.name, 1, [&] {
    if (!input_count_) throw std::logic_error("enqueue came before onShapeChange; this is not how TensorRT calls it");
    const Sizes sizes = bind_shapes(op_, input_descs, input_count_);
    const cudaError_t status = op_.launch(
        {input_descs[0].type, sizes, flag_ != 0, tactic_, input_count_, inputs, outputs, workspace, stream});
    if (status == cudaSuccess) return 0;
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status) + "; the inputs are " +
                             text_of(op_, input_descs, input_count_) + ", " + text_of(input_descs[0].type) +
                             "; if this GPU is newer than the plugin library, build the library for it "
                             "(CMAKE_CUDA_ARCHITECTURES)");
  });
}

nvinfer1::IPluginV3 *Creator::createPlugin(const char *, const nvinfer1::PluginFieldCollection *fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  return guarded<nvinfer1::IPluginV3 *>(op_.name, nullptr, [&] {
    bool flag = true, given = false;
    for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
      const std::string_view field = fields->fields[i].name;
      if (field == op_.flag) {
        flag = flag_of(fields->fields[i]);
        given = true;
      } else if (op_.refused_flag && field == op_.refused_flag) {
        if (flag_of(fields->fields[i]))
          throw std::invalid_argument(std::string(field) +
                                      " is 1, but the kernels read token-major tensors alone; write the transposes out "
                                      "with dvmsr.export.onnx.forms.write_out_layouts, as `dvmsr-export trt` does");
      } else if (field != "plugin_version" && field != "plugin_namespace") {
        throw std::invalid_argument("has no attribute " + std::string(field) + "; use a newer plugin library");
      }
    }
    // Plugins of the operators' former form, with other inputs in another order, serialised nothing.
    if (phase == nvinfer1::TensorRTPhase::kRUNTIME && !given) {
      throw std::invalid_argument(std::string("the engine does not say ") + op_.flag +
                                  ": it was built with an older plugin library; " + export_again);
    }
    return std::make_unique<Plugin>(op_, flag).release();
  });
}

List<nvinfer1::IPluginCreatorInterface *> creators() {
  static Creator scan(selective_scan), conv(causal_conv1d);
  static nvinfer1::IPluginCreatorInterface *all[] = {&scan, &conv};
  return all;
}

}  // namespace dvmsr::trt
