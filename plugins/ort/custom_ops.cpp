// SelectiveScan and CausalConv1d as ONNX Runtime custom operators (domain "dvmsr") over the kernels of a
// device. Each is registered twice: with FP32 and with FP16 activations; parameters and state are FP32
// in both.
#include "custom_ops.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace dvmsr::ort;

namespace {

constexpr const char *domain_name = "dvmsr";
// ONNX Runtime's own key for the size of a session's thread pool; the pool cannot be asked.
constexpr const char *threads_key = "session.intra_op_num_threads";

using Shape = std::vector<int64_t>;

struct Definition {
  const char *name;
  const char *attribute;  // 0 or 1, by default 1
  Ports inputs, outputs;
  Ports channel_major_inputs, channel_major_outputs;  // where the attribute channel_major is 1; none: it must be 0
  void (*run)(const Call &call);
};

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

constexpr Definition selective_scan = {"SelectiveScan", "delta_softplus", scan_inputs, scan_outputs,
                                       channel_major_scan_inputs, channel_major_scan_outputs, run_selective_scan};

constexpr Port conv_inputs[] = {{"x", "BLD", activation},
                                {"weight", "DK", parameter},
                                {"bias", "D", parameter},
                                {"tail", "BkD", activation}};
constexpr Port conv_outputs[] = {{"y", "BLD", activation}, {"new_tail", "BkD", activation}};

constexpr Definition causal_conv1d = {"CausalConv1d", "activation", conv_inputs, conv_outputs,
                                      {}, {}, run_causal_conv1d};

// Runs body(); what it throws becomes a status, so that no exception reaches C.
template <class Body>
OrtStatus *guarded(const OrtApi &api, const Body &body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const CallFailed &failed) {
    return failed.status;
  } catch (const std::invalid_argument &error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc &) {
    return api.CreateStatus(ORT_FAIL, "dvmsr: out of memory; use a smaller image, strip or batch");
  } catch (const std::exception &error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

struct CustomOp : OrtCustomOp {
  CustomOp(const OrtApi &api, const Definition &definition, bool half, int threads);

  ONNXTensorElementDataType type_of(const Port &port) const {
    return half && port.kind == activation ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                                         : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  const OrtApi &api;
  const Definition &definition;
  bool half;
  int threads;  // of the session; 0: unknown
};

const CustomOp &self(const OrtCustomOp *op) { return *static_cast<const CustomOp *>(op); }

std::string text_of(char axis) { return axis == 'k' ? "K-1" : std::string(1, axis); }

// "(B, K-1, D)"
std::string text_of(const char *axes) {
  std::string text = "(";
  for (const char *axis = axes; *axis; ++axis) text += (axis == axes ? "" : ", ") + text_of(*axis);
  return text + ")";
}

// "(1, 3, 120)"
std::string text_of(const Shape &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

[[noreturn]] void refuse(const Definition &definition, const Port &port, const std::string &why) {
  throw std::invalid_argument(std::string("dvmsr ") + definition.name + ": " + port.name + " " + why +
                              "; feed a matching shape, or export the model again with dvmsr-export");
}

// Learns the sizes of the axes from the inputs in turn, and holds each input to what is known.
class AxisSizes {
 public:
  explicit AxisSizes(const Definition &definition) : definition_(definition) {}

  void learn(const Port &port, const Shape &shape) {
    const std::string wrong = "has shape " + text_of(shape) + " but must be " + text_of(port.axes);
    if (shape.size() != std::strlen(port.axes)) refuse(definition_, port, wrong);
    for (size_t i = 0; i < shape.size(); ++i) {
      const char letter = port.axes[i];
      const auto axis = static_cast<size_t>(letter);
      if (!from_[axis]) {
        if (shape[i] < 1 && letter != 'B' && letter != 'L')
          refuse(definition_, port, wrong + " with " + letter + " at least 1");
        know(axis, shape[i], port);
        if (letter == 'K') know('k', shape[i] - 1, port);
        if (letter == 'G' && size_['D'] % shape[i])
          refuse(definition_, port,
                 "has " + std::to_string(shape[i]) + " groups, which do not divide the " +
                     std::to_string(size_['D']) + " channels");
      } else if (shape[i] != size_[axis]) {
        refuse(definition_, port,
               wrong + " with " + text_of(letter) + " = " + std::to_string(size_[axis]) + " as in " +
                   from_[axis]);
      }
    }
  }

  Shape shape_of(const Port &port) const {
    Shape shape;
    for (const char *axis = port.axes; *axis; ++axis) shape.push_back(size_[static_cast<size_t>(*axis)]);
    return shape;
  }

  const Sizes &sizes() const { return size_; }

 private:
  void know(size_t axis, int64_t size, const Port &port) {
    size_[axis] = size;
    from_[axis] = port.name;
  }

  const Definition &definition_;
  Sizes size_{};
  std::array<const char *, 128> from_{};  // the input that told the size; NULL: not known yet
};

Shape shape_of(const OrtApi &api, const OrtTensorTypeAndShapeInfo *info) {
  size_t rank = 0;
  check(api.GetDimensionsCount(info, &rank));
  Shape shape(rank);
  check(api.GetDimensions(info, shape.data(), rank));
  return shape;
}

Shape shape_of(const OrtApi &api, const OrtValue *value) {
  OrtTensorTypeAndShapeInfo *info = nullptr;
  check(api.GetTensorTypeAndShape(value, &info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> owner(
      info, api.ReleaseTensorTypeAndShapeInfo);
  return shape_of(api, info);
}

void *data_of(const OrtApi &api, const OrtValue *value) {
  void *data = nullptr;
  check(api.GetTensorMutableData(const_cast<OrtValue *>(value), &data));
  return data;
}

// A node of a graph: its operator, and what its attributes say.
struct Kernel {
  const CustomOp &op;
  bool applied, channel_major;
};

bool attribute_of(const CustomOp &op, const OrtKernelInfo *info, const char *name, bool otherwise) {
  int64_t value = 1;
  if (OrtStatus *absent = op.api.KernelInfoGetAttribute_int64(info, name, &value)) {
    op.api.ReleaseStatus(absent);
    return otherwise;
  }
  if (value != 0 && value != 1)
    throw std::invalid_argument(std::string("dvmsr ") + op.definition.name + ": " + name + " is " +
                                std::to_string(value) + " but must be 0 or 1");
  return value == 1;
}

Kernel kernel_of(const CustomOp &op, const OrtKernelInfo *info) {
  const Definition &definition = op.definition;
  const bool channel_major = attribute_of(op, info, "channel_major", false);
  if (channel_major && !definition.channel_major_inputs.size())
    throw std::invalid_argument(std::string("dvmsr ") + definition.name +
                                ": channel_major is 1, but this operator reads token-major tensors alone; transpose "
                                "its input");
  if (channel_major && !reads_channel_major)
    throw std::invalid_argument(std::string("dvmsr ") + definition.name +
                                ": channel_major is 1, but the CUDA kernels read token-major tensors alone; write "
                                "the transposes out with dvmsr.export.onnx.forms.write_out_layouts");
  return {op, attribute_of(op, info, definition.attribute, true), channel_major};
}

void compute(const Kernel &kernel, OrtKernelContext *context) {
  const CustomOp &op = kernel.op;
  const OrtApi &api = op.api;
  const Definition &definition = op.definition;
  AxisSizes axes(definition);
  std::vector<void *> in, out;
  size_t given = 0;
  check(api.KernelContext_GetInputCount(context, &given));
  for (const Port &port : kernel.channel_major ? definition.channel_major_inputs : definition.inputs) {
    const OrtValue *value = nullptr;
    if (in.size() < given) check(api.KernelContext_GetInput(context, in.size(), &value));
    if (!value && !port.optional) refuse(definition, port, "is missing");
    if (value) axes.learn(port, shape_of(api, value));
    in.push_back(value ? data_of(api, value) : nullptr);
  }
  for (const Port &port : kernel.channel_major ? definition.channel_major_outputs : definition.outputs) {
    const Shape shape = axes.shape_of(port);
    OrtValue *value = nullptr;
    check(api.KernelContext_GetOutput(context, out.size(), shape.data(), shape.size(), &value));
    if (!value) refuse(definition, port, "is an output without a name");
    out.push_back(data_of(api, value));
  }

  definition.run({api, context, op.half, op.threads, kernel.applied, kernel.channel_major, axes.sizes(), in.data(),
                  out.data()});
}

// Every output has the shape of an input, symbolic sizes included, which lets the runtime share memory
// between equal ones.
void infer_shapes(const CustomOp &op, OrtShapeInferContext *context) {
  const OrtApi &api = op.api;
  const Ports &inputs = op.definition.inputs, &outputs = op.definition.outputs;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const std::string axes = outputs[o].axes;
    size_t i = 0;
    while (axes != inputs[i].axes || inputs[i].kind != outputs[o].kind) ++i;
    OrtTensorTypeAndShapeInfo *info = nullptr;  // owned by the context
    check(api.ShapeInferContext_GetInputTypeShape(context, i, &info));
    const Shape shape = shape_of(api, info);
    std::vector<const char *> names(shape.size());
    check(api.GetSymbolicDimensions(info, names.data(), names.size()));
    // An input of unknown shape reports rank 0; a size that is neither known nor named would be set
    // to -1.
    bool known = shape.size() == axes.size();
    for (size_t d = 0; d < shape.size(); ++d) known = known && (shape[d] >= 0 || *names[d]);
    if (known) check(api.ShapeInferContext_SetOutputTypeShape(context, o, info));
  }
}

CustomOp::CustomOp(const OrtApi &api_, const Definition &definition_, bool half_, int threads_)
    : OrtCustomOp{}, api(api_), definition(definition_), half(half_), threads(threads_) {
  version = DVMSR_ORT_API;
  GetName = [](const OrtCustomOp *op) { return self(op).definition.name; };
  GetExecutionProviderType = [](const OrtCustomOp *) { return provider; };
  GetInputTypeCount = [](const OrtCustomOp *op) { return self(op).definition.inputs.size(); };
  GetInputType = [](const OrtCustomOp *op, size_t i) {
    return self(op).type_of(self(op).definition.inputs[i]);
  };
  GetInputCharacteristic = [](const OrtCustomOp *op, size_t i) {
    return self(op).definition.inputs[i].optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  GetInputMemoryType = [](const OrtCustomOp *, size_t) { return OrtMemTypeDefault; };
  GetOutputTypeCount = [](const OrtCustomOp *op) { return self(op).definition.outputs.size(); };
  GetOutputType = [](const OrtCustomOp *op, size_t i) {
    return self(op).type_of(self(op).definition.outputs[i]);
  };
  GetOutputCharacteristic = [](const OrtCustomOp *, size_t) { return INPUT_OUTPUT_REQUIRED; };
  CreateKernelV2 = [](const OrtCustomOp *op, const OrtApi *, const OrtKernelInfo *info, void **kernel) {
    return guarded(self(op).api, [&] { *kernel = new Kernel(kernel_of(self(op), info)); });
  };
  KernelDestroy = [](void *kernel) { delete static_cast<Kernel *>(kernel); };
  KernelComputeV2 = [](void *kernel, OrtKernelContext *context) {
    const Kernel &node = *static_cast<Kernel *>(kernel);
    return guarded(node.op.api, [&] { compute(node, context); });
  };
  InferOutputShapeFn = [](const OrtCustomOp *op, OrtShapeInferContext *context) {
    return guarded(self(op).api, [&] { infer_shapes(self(op), context); });
  };
}

struct Domain {
  Domain(const OrtApi &api, int threads)
      : ops{{{api, selective_scan, false, threads},
             {api, selective_scan, true, threads},
             {api, causal_conv1d, false, threads},
             {api, causal_conv1d, true, threads}}} {
    check(api.CreateCustomOpDomain(domain_name, &handle));
    for (const CustomOp &op : ops) check(api.CustomOpDomain_Add(handle, &op));
  }
  std::array<CustomOp, 4> ops;
  OrtCustomOpDomain *handle = nullptr;
};

// Sessions point at their domain and its operators to the end of their lives, which nobody announces:
// so there is one domain per runtime and thread count, and it is never freed.
const Domain &domain_for(const OrtApi &api, int threads) {
  static std::mutex mutex;
  static auto &domains = *new std::map<std::pair<const OrtApi *, int>, std::unique_ptr<Domain>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain> &domain = domains[{&api, threads}];
  if (!domain) domain = std::make_unique<Domain>(api, threads);
  return *domain;
}

int threads_of(const OrtApi &api, const OrtSessionOptions *options) {
  char text[16] = "";
  size_t size = sizeof text;
  if (OrtStatus *unset = api.GetSessionConfigEntry(options, threads_key, text, &size)) {
    api.ReleaseStatus(unset);
    return 0;
  }
  return std::atoi(text);
}

}  // namespace

// The entry point that ONNX Runtime looks for: SessionOptions.register_custom_ops_library(path).
extern "C" DVMSR_ORT_EXPORT OrtStatus *DVMSR_ORT_CALL RegisterCustomOps(OrtSessionOptions *options,
                                                                 const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(DVMSR_ORT_API);
  if (!api) {
    const std::string message = std::string("dvmsr: the custom operators need onnxruntime 1.") +
                                std::to_string(DVMSR_ORT_API) + " or newer and this is " +
                                base->GetVersionString() + "; upgrade it with pip install -U onnxruntime";
    return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, message.c_str());
  }
  return guarded(*api, [&] {
    check(api->AddCustomOpDomain(options, domain_for(*api, threads_of(*api, options)).handle));
  });
}
