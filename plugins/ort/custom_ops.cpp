// The operators of a device as ONNX Runtime custom operators (domain "dvmsr"). Each is registered twice: with
// FP32 and with FP16 activations; parameters are FP32 in both.
#include "custom_ops.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "axes.h"

using namespace dvmsr::ort;

namespace {

constexpr const char *domain_name = "dvmsr";
// ONNX Runtime's own key for the size of a session's thread pool; the pool cannot be asked.
constexpr const char *threads_key = "session.intra_op_num_threads";
const std::string remedy = "; export the model again with dvmsr-export";
// Before ONNX Runtime 1.24, inferring the shapes of a node with an unnamed input ends the process.
constexpr int infers_unnamed = 24;

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

// One of the two forms in which an operator is registered.
struct CustomOp : OrtCustomOp {
  CustomOp(const OrtApi &api, const Definition &definition, bool half, int threads, bool infers);

  ONNXTensorElementDataType type_of(const Port &port) const {
    if (port.kind == switched) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    return half && port.kind == activation ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                           : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  const OrtApi &api;
  const Definition &definition;
  bool half;
  int threads;  // of the session; 0: unknown
};

const CustomOp &self(const OrtCustomOp *op) { return *static_cast<const CustomOp *>(op); }

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

// Whether the call succeeded; for questions that ONNX Runtime answers with an error.
bool succeeds(const OrtApi &api, OrtStatus *status) {
  if (status) api.ReleaseStatus(status);
  return !status;
}

// Of a node whose kernel is made.
class KernelDeclared : public Declared {
 public:
  KernelDeclared(const OrtApi &api, const Definition &definition, const OrtKernelInfo *info)
      : Declared(definition), api_(api), info_(info) {}

  bool has(size_t input) const override {
    size_t count = 0, length = 0;
    check(api_.KernelInfo_GetInputCount(info_, &count));
    if (input >= count) return false;
    check(api_.KernelInfo_GetInputName(info_, input, nullptr, &length));
    return length > 1;  // more than the NUL
  }
  float number(const char *name, float otherwise) const override {
    float value = 0;
    return succeeds(api_, api_.KernelInfoGetAttribute_float(info_, name, &value)) ? value : otherwise;
  }
  std::vector<int64_t> list(const char *name, std::vector<int64_t> otherwise) const override {
    size_t count = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &count))) return otherwise;
    std::vector<int64_t> values(count);
    check(api_.KernelInfoGetAttributeArray_int64(info_, name, values.data(), &count));
    return values;
  }

  // The inputs without a batch axis that are no switches; none where one is not constant, or is missing.
  std::optional<Weights> weights(const Form &form, bool half) const {
    AxisSizes axes(definition, form);
    Weights weights{half, {}, std::vector<void *>(form.inputs.size())};
    for (size_t i = 0; i < form.inputs.size(); ++i) {
      const Port &port = form.inputs[i];
      if (port.kind == switched || std::strchr(port.axes, 'B') || (port.optional && !has(i))) continue;
      int constant = 0;
      const OrtValue *value = nullptr;
      check(api_.KernelInfoGetConstantInput_tensor(info_, i, &constant, &value));
      if (!constant) return std::nullopt;
      axes.learn(port, shape_of(api_, value));
      weights.in[i] = data_of(api_, value);
    }
    weights.size = axes.sizes();
    return weights;
  }

 protected:
  std::optional<int64_t> integer(const char *name) const override {
    int64_t value = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value))) return std::nullopt;
    return value;
  }

 private:
  const OrtApi &api_;
  const OrtKernelInfo *info_;
};

// Of a node whose shapes are inferred.
class InferDeclared : public Declared {
 public:
  InferDeclared(const OrtApi &api, const Definition &definition, const OrtShapeInferContext *context)
      : Declared(definition), api_(api), context_(context) {}

  bool has(size_t input) const override { return type_of(input) != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; }
  float number(const char *name, float otherwise) const override {
    float value = 0;
    return read(name, ORT_OP_ATTR_FLOAT, &value, sizeof value) ? value : otherwise;
  }
  std::vector<int64_t> list(const char *name, std::vector<int64_t> otherwise) const override {
    const OrtOpAttr *attribute = find(name);
    if (!attribute) return otherwise;
    size_t bytes = 0;
    succeeds(api_, api_.ReadOpAttr(attribute, ORT_OP_ATTR_INTS, nullptr, 0, &bytes));
    std::vector<int64_t> values(bytes / sizeof(int64_t));
    check(api_.ReadOpAttr(attribute, ORT_OP_ATTR_INTS, values.data(), bytes, &bytes));
    return values;
  }

  // That of inputs of the same kind: one function infers for FP32 and FP16.
  ONNXTensorElementDataType type_of(const Port &port) const {
    for (size_t i = 0; i < definition.inputs.size(); ++i)
      if (definition.inputs[i].kind == port.kind && has(i)) return type_of(i);
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  // Empty for an unknown shape.
  std::vector<Dimension> shape(size_t input) const {
    const OrtTensorTypeAndShapeInfo *told = info(input);
    if (!told) return {};
    const Shape sizes = shape_of(api_, told);
    std::vector<const char *> names(sizes.size());
    check(api_.GetSymbolicDimensions(told, names.data(), names.size()));
    std::vector<Dimension> dimensions;
    for (size_t i = 0; i < sizes.size(); ++i) dimensions.push_back({sizes[i], names[i]});
    return dimensions;
  }

 protected:
  std::optional<int64_t> integer(const char *name) const override {
    int64_t value = 0;
    if (!read(name, ORT_OP_ATTR_INT, &value, sizeof value)) return std::nullopt;
    return value;
  }

 private:
  // Owned by the context; NULL for an input beyond the last that is given.
  const OrtTensorTypeAndShapeInfo *info(size_t input) const {
    size_t count = 0;
    check(api_.ShapeInferContext_GetInputCount(context_, &count));
    OrtTensorTypeAndShapeInfo *info = nullptr;
    if (input >= count || !succeeds(api_, api_.ShapeInferContext_GetInputTypeShape(context_, input, &info)))
      return nullptr;
    return info;
  }
  // Undefined for an input that is left off.
  ONNXTensorElementDataType type_of(size_t input) const {
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    if (const OrtTensorTypeAndShapeInfo *told = info(input)) check(api_.GetTensorElementType(told, &type));
    return type;
  }
  // NULL: there is none.
  const OrtOpAttr *find(const char *name) const {
    const OrtOpAttr *attribute = nullptr;
    return succeeds(api_, api_.ShapeInferContext_GetAttribute(context_, name, &attribute)) ? attribute : nullptr;
  }
  bool read(const char *name, OrtOpAttrType type, void *data, size_t size) const {
    const OrtOpAttr *attribute = find(name);
    return attribute && succeeds(api_, api_.ReadOpAttr(attribute, type, data, size, &size));
  }

  const OrtApi &api_;
  const OrtShapeInferContext *context_;
};

bool flag_of(const Definition &definition, const char *name, int64_t value) {
  if (value != 0 && value != 1)
    refuse(definition, std::string(name) + " is " + std::to_string(value) + " but must be 0 or 1");
  return value == 1;
}

// A node of a graph and the operator it is of.
struct Kernel {
  Kernel(const CustomOp &op, const OrtKernelInfo *info) : op(op) {
    const KernelDeclared declared(op.api, op.definition, info);
    node = op.definition.node(declared);
    if (!node->wants_weights()) return;
    if (const std::optional<Weights> weights = declared.weights(node->form, op.half)) node->prepare(*weights);
  }

  const CustomOp &op;
  std::unique_ptr<Node> node;
};

void compute(const Kernel &kernel, OrtKernelContext *context) {
  const CustomOp &op = kernel.op;
  const OrtApi &api = op.api;
  const Form &form = kernel.node->form;
  AxisSizes axes(op.definition, form);
  std::vector<void *> in, out;
  std::vector<bool> switches;
  size_t given = 0;
  check(api.KernelContext_GetInputCount(context, &given));
  for (const Port &port : form.inputs) {
    const OrtValue *value = nullptr;
    if (in.size() < given) check(api.KernelContext_GetInput(context, in.size(), &value));
    if (!value && !port.optional) refuse(op.definition, port.name + (" is missing" + remedy));
    if (value) axes.learn(port, shape_of(api, value));
    in.push_back(value ? data_of(api, value) : nullptr);
    if (port.kind == switched)
      switches.push_back(flag_of(op.definition, port.name, *static_cast<const int64_t *>(in.back())));
  }
  kernel.node->add_sizes(axes.sizes(), switches);
  for (const Port &port : form.outputs) {
    const Shape shape = axes.shape_of(port);
    OrtValue *value = nullptr;
    check(api.KernelContext_GetOutput(context, out.size(), shape.data(), shape.size(), &value));
    if (!value) refuse(op.definition, port.name + (" is an output without a name" + remedy));
    out.push_back(data_of(api, value));
  }
  kernel.node->run({api, context, op.half, op.threads, axes.sizes(), switches, in.data(), out.data()});
}

void set_shape(const OrtApi &api, OrtShapeInferContext *context, size_t output, ONNXTensorElementDataType type,
               const std::vector<Dimension> &dimensions) {
  Shape sizes;
  std::vector<const char *> names;
  for (const Dimension &dimension : dimensions) {
    sizes.push_back(dimension.size);
    names.push_back(dimension.name.c_str());
  }
  OrtTensorTypeAndShapeInfo *info = nullptr;
  check(api.CreateTensorTypeAndShapeInfo(&info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> owner(
      info, api.ReleaseTensorTypeAndShapeInfo);
  check(api.SetTensorElementType(info, type));
  check(api.SetDimensions(info, sizes.data(), sizes.size()));
  check(api.SetSymbolicDimensions(info, names.data(), names.size()));
  check(api.ShapeInferContext_SetOutputTypeShape(context, output, info));
}

// The sizes of the outputs from those of the inputs, symbolic ones included, which lets the runtime share
// memory between equal ones.
void infer_shapes(const CustomOp &op, OrtShapeInferContext *context) {
  const InferDeclared declared(op.api, op.definition, context);
  const std::unique_ptr<Node> node = op.definition.node(declared);
  const Form &form = node->form;
  AxisNames axes(form);
  for (size_t i = 0; i < form.inputs.size(); ++i) axes.learn(form.inputs[i], declared.shape(i));
  for (size_t o = 0; o < form.outputs.size(); ++o)
    if (const auto shape = axes.shape_of(form.outputs[o]))
      set_shape(op.api, context, o, declared.type_of(form.outputs[o]), *shape);
}

CustomOp::CustomOp(const OrtApi &api_, const Definition &definition_, bool half_, int threads_, bool infers)
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
    return guarded(self(op).api, [&] { *kernel = new Kernel(self(op), info); });
  };
  KernelDestroy = [](void *kernel) { delete static_cast<Kernel *>(kernel); };
  KernelComputeV2 = [](void *kernel, OrtKernelContext *context) {
    const Kernel &node = *static_cast<Kernel *>(kernel);
    return guarded(node.op.api, [&] { compute(node, context); });
  };
  if (!infers) return;
  InferOutputShapeFn = [](const OrtCustomOp *op, OrtShapeInferContext *context) {
    return guarded(self(op).api, [&] { infer_shapes(self(op), context); });
  };
}

struct Domain {
  Domain(const OrtApi &api, int threads, int release) {
    check(api.CreateCustomOpDomain(domain_name, &handle));
    for (const Definition *definition : operators) {
      bool infers = true;
      for (const Port &port : definition->inputs) infers = infers && (!port.optional || release >= infers_unnamed);
      for (const bool half : {false, true}) {
        ops.push_back(std::make_unique<CustomOp>(api, *definition, half, threads, infers));
        check(api.CustomOpDomain_Add(handle, ops.back().get()));
      }
    }
  }
  std::vector<std::unique_ptr<CustomOp>> ops;
  OrtCustomOpDomain *handle = nullptr;
};

// Sessions point at their domain and its operators to the end of their lives, which nobody announces:
// so there is one domain per runtime and thread count, and it is never freed.
const Domain &domain_for(const OrtApi &api, int threads, int release) {
  static std::mutex mutex;
  static auto &domains = *new std::map<std::pair<const OrtApi *, int>, std::unique_ptr<Domain>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain> &domain = domains[{&api, threads}];
  if (!domain) domain = std::make_unique<Domain>(api, threads, release);
  return *domain;
}

// 24 of "1.24.1".
int release_of(const char *version) {
  int major = 0, minor = 0;
  std::sscanf(version, "%d.%d", &major, &minor);
  return minor;
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

namespace dvmsr::ort {

void refuse(const Definition &definition, const std::string &why) {
  throw std::invalid_argument(std::string("dvmsr ") + definition.name + ": " + why);
}

bool Declared::flag(const char *name, bool otherwise) const {
  return flag_of(definition, name, integer(name).value_or(otherwise));
}

}  // namespace dvmsr::ort

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
  const int release = release_of(base->GetVersionString());
  return guarded(*api, [&] {
    check(api->AddCustomOpDomain(options, domain_for(*api, threads_of(*api, options), release).handle));
  });
}
