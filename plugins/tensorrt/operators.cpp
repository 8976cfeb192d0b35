// Both operators: their ports as the project defines them (README, "The operators"), and their
// CUDA kernels.
#include "causal_conv1d.h"
#include "operator.h"
#include "selective_scan.h"

namespace dvmsr::trt {
namespace {

constexpr Port scan_inputs[] = {
    {"u", "BLD", Role::activation},       {"delta", "BLD", Role::activation}, {"A", "DN", Role::parameter},
    {"B", "BLGN", Role::activation},      {"C", "BLGN", Role::activation},    {"D", "D", Role::parameter},
    {"delta_bias", "D", Role::parameter}, {"h0", "BDN", Role::parameter},     {"z", "BLD", Role::activation}};
constexpr int32_t scan_required = 8;  // all but z
constexpr Port scan_outputs[] = {{"y", "BLD", Role::activation}, {"h_last", "BDN", Role::parameter}};

constexpr Port conv_inputs[] = {{"x", "BLD", Role::activation},
                                {"weight", "DK", Role::parameter},
                                {"bias", "D", Role::parameter},
                                {"tail", "BkD", Role::activation}};
constexpr int32_t conv_required = 4;  // all
constexpr Port conv_outputs[] = {{"y", "BLD", Role::activation}, {"new_tail", "BkD", Role::activation}};

dvmsr_cuda_dtype cuda_type(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kHALF: return DVMSR_CUDA_F16;
    case nvinfer1::DataType::kBF16: return DVMSR_CUDA_BF16;
    default: return DVMSR_CUDA_F32;
  }
}

const float *floats(const void *data) { return static_cast<const float *>(data); }

dvmsr_cuda_scan_params scan_params(nvinfer1::DataType activation, const Sizes &sizes) {
  dvmsr_cuda_scan_params params{};
  params.dtype = cuda_type(activation);
  params.batch = sizes['B'], params.length = sizes['L'];
  params.channels = sizes['D'], params.groups = sizes['G'], params.state = sizes['N'];
  params.u_stride = params.delta_stride = params.z_stride = params.y_stride = params.channels;
  params.B_stride = params.C_stride = params.groups * params.state;
  return params;
}

size_t scan_workspace_size(nvinfer1::DataType activation, const Sizes &sizes) {
  const dvmsr_cuda_scan_params params = scan_params(activation, sizes);
  return dvmsr_cuda_scan_largest_workspace(&params);
}

cudaError_t scan_launch(const Call &call) {
  dvmsr_cuda_scan_params params = scan_params(call.activation, call.sizes);
  params.u = call.inputs[0], params.delta = call.inputs[1], params.A = floats(call.inputs[2]);
  params.B = call.inputs[3], params.C = call.inputs[4], params.D = floats(call.inputs[5]);
  params.delta_bias = floats(call.inputs[6]), params.h0 = floats(call.inputs[7]);
  params.z = call.input_count > scan_required ? call.inputs[8] : nullptr, params.delta_softplus = call.flag;
  params.y = call.outputs[0], params.h_last = static_cast<float *>(call.outputs[1]);
  int device, multiprocessors;
  cudaError_t status = cudaGetDevice(&device);
  if (status) return status;
  status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (status) return status;
  const dvmsr_cuda_scan_plan plan = dvmsr_cuda_scan_plan_of(&params, call.tactic, multiprocessors);
  return static_cast<cudaError_t>(dvmsr_cuda_selective_scan(&params, plan, call.workspace, call.stream));
}

cudaError_t conv_launch(const Call &call) {
  dvmsr_cuda_conv_params params{};
  params.dtype = cuda_type(call.activation), params.activation = call.flag;
  params.batch = call.sizes['B'], params.length = call.sizes['L'];
  params.channels = call.sizes['D'], params.width = call.sizes['K'];
  params.x = call.inputs[0], params.weight = floats(call.inputs[1]), params.bias = floats(call.inputs[2]);
  params.tail = call.inputs[3], params.y = call.outputs[0], params.new_tail = call.outputs[1];
  params.x_stride = params.y_stride = params.channels;
  return static_cast<cudaError_t>(dvmsr_cuda_causal_conv1d(&params, call.stream));
}

const char *scan_unsupported(const Sizes &sizes) {
  if (sizes['N'] == 0 || sizes['N'] > 64)
    return "the state N must be from 1 to 64; run this model on another backend";
  if (sizes['G'] == 0) return "the number of groups G must be at least 1; export the model again";
  if (sizes['D'] > 0 && sizes['G'] > 0 && sizes['D'] % sizes['G'] != 0)
    return "the number of channels D must be a multiple of the number of groups G; export the model again";
  return nullptr;
}

}  // namespace

const Operator selective_scan = {"SelectiveScan",     scan_inputs,  scan_outputs,     scan_required,
                                 "delta_softplus",    "channel_major", dvmsr_cuda_scan_tactics, scan_unsupported,
                                 scan_workspace_size, scan_launch};

const Operator causal_conv1d = {"CausalConv1d",
                                conv_inputs,
                                conv_outputs,
                                conv_required,
                                "activation",
                                nullptr,
                                [] { return int32_t{0}; },
                                [](const Sizes &) -> const char * { return nullptr; },
                                [](nvinfer1::DataType, const Sizes &) -> size_t { return 0; },
                                conv_launch};

}  // namespace dvmsr::trt
