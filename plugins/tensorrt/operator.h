// A custom operator as TensorRT sees it: its ports, its tactics and its kernels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "NvInferRuntime.h"

namespace dvmsr::trt {

// A constant array and its length.
template <class T>
class List {
 public:
  template <size_t count>
  constexpr List(const T (&items)[count]) : List(items, count) {}
  constexpr List(const T *first, size_t count) : first_(first), count_(count) {}
  constexpr const T *begin() const { return first_; }
  constexpr const T *end() const { return first_ + count_; }
  constexpr int32_t size() const { return static_cast<int32_t>(count_); }
  constexpr const T &operator[](int32_t i) const { return first_[i]; }

 private:
  const T *first_;
  size_t count_;
};

// Activations are FP32, FP16 or BF16, all of a node alike; parameters and the scan's state are FP32.
enum class Role { activation, parameter };

// `axes` has one letter per dimension, as in the operators' definition; 'k' stands for K - 1.
struct Port {
  const char *name;
  const char *axes;
  Role role;
};

// The size of each axis by its letter, K - 1 under 'K' as K; -1 where it is not known.
using Sizes = std::array<int64_t, 128>;

struct Call {
  nvinfer1::DataType activation;
  const Sizes &sizes;
  bool flag;
  int32_t tactic;
  int32_t input_count;
  const void *const *inputs;
  void *const *outputs;
  void *workspace;
  cudaStream_t stream;
};

struct Operator {
  const char *name;
  List<Port> inputs, outputs;
  // How many of the inputs a node has at least: the others, the last ones, may be left off.
  int32_t required;
  // Its attribute, 0 or 1; by default 1.
  const char *flag;
  // An attribute that the kernels take at its default, 0, alone; or nullptr.
  const char *refused_flag;
  // How many there are, numbered from 1; tactic 0 is an automatic choice.
  int32_t (*tactics)();
  // Why the kernels cannot take these sizes, or nullptr; unknown sizes pass.
  const char *(*unsupported)(const Sizes &sizes);
  // In bytes, enough for every tactic; grows with every size.
  size_t (*workspace_size)(nvinfer1::DataType activation, const Sizes &sizes);
  // Puts kernels on the stream and nothing else.
  cudaError_t (*launch)(const Call &call);
};

extern const Operator selective_scan;
extern const Operator causal_conv1d;

}  // namespace dvmsr::trt
