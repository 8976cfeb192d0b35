// The TensorRT plugin (IPluginV3: core, build and runtime capability) around an operator, and its creator.
#pragma once

#include <string>

#include "operator.h"

namespace dvmsr::trt {

constexpr const char *plugin_namespace = "dvmsr";
constexpr const char *plugin_version = "1";

// Keeps the operator's attribute and how many inputs the node has, which enqueue() is not told; all else that it
// needs comes with the tensors, and TensorRT keeps the tactic.
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  Plugin(const Operator &op, bool flag);
  Plugin(const Plugin &) = delete;

  nvinfer1::IPluginCapability *getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3 *clone() noexcept override;

  const char *getPluginName() const noexcept override { return op_.name; }
  const char *getPluginVersion() const noexcept override { return plugin_version; }
  const char *getPluginNamespace() const noexcept override { return plugin_namespace; }

  int32_t getNbOutputs() const noexcept override { return op_.outputs.size(); }
  int32_t getOutputDataTypes(nvinfer1::DataType *outputs, int32_t output_count, const nvinfer1::DataType *inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs *inputs, int32_t input_count,
                          const nvinfer1::DimsExprs *shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs *outputs, int32_t output_count,
                          nvinfer1::IExprBuilder &builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc *ports,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc *inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc *outputs, int32_t output_count) noexcept override;
  // Enough for every tactic, since TensorRT asks before it chooses one.
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc *inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc *outputs,
                          int32_t output_count) const noexcept override;
  int32_t getNbTactics() noexcept override { return op_.tactics(); }
  int32_t getValidTactics(int32_t *tactics, int32_t count) noexcept override;
  const char *getTimingCacheID() noexcept override { return timing_cache_id_.c_str(); }

  int32_t setTactic(int32_t tactic) noexcept override;
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc *inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc *outputs, int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc *input_descs, const nvinfer1::PluginTensorDesc *output_descs,
                  const void *const *inputs, void *const *outputs, void *workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3 *attachToContext(nvinfer1::IPluginResourceContext *) noexcept override { return clone(); }
  const nvinfer1::PluginFieldCollection *getFieldsToSerialize() noexcept override { return &fields_; }

 private:
  const Operator &op_;
  const int32_t flag_;
  int32_t tactic_ = 0, input_count_ = 0;  // 0 as long as TensorRT has not told it
  const std::string timing_cache_id_;
  const nvinfer1::PluginField field_;
  const nvinfer1::PluginFieldCollection fields_;
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const Operator &op)
      : op_(op),
        named_{{op.flag, nullptr, nvinfer1::PluginFieldType::kINT32, 1},
               {op.refused_flag, nullptr, nvinfer1::PluginFieldType::kINT32, 1}},
        fields_{op.refused_flag ? 2 : 1, named_} {}

  // Takes the attributes of an ONNX node (the operator's, plugin_version and plugin_namespace) or what a plugin
  // serialised, and nothing else.
  nvinfer1::IPluginV3 *createPlugin(const char *name, const nvinfer1::PluginFieldCollection *fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection *getFieldNames() noexcept override { return &fields_; }
  const char *getPluginName() const noexcept override { return op_.name; }
  const char *getPluginVersion() const noexcept override { return plugin_version; }
  const char *getPluginNamespace() const noexcept override { return plugin_namespace; }

 private:
  const Operator &op_;
  const nvinfer1::PluginField named_[2];  // what TensorRT's parser hands over of a node; it ignores all else
  const nvinfer1::PluginFieldCollection fields_;
};

// The creators of both operators.
List<nvinfer1::IPluginCreatorInterface *> creators();

}  // namespace dvmsr::trt
