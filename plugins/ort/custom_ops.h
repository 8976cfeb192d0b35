// What ONNX Runtime custom operators on any device share: the operators' definition, and what is known
// when one is called. Compiled with custom_ops.cpp into the library of each device, which defines the
// operators' run functions and `provider`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ort_abi.h"

#if defined(_WIN32)
#define DVMSR_ORT_EXPORT __declspec(dllexport)
#else
#define DVMSR_ORT_EXPORT __attribute__((visibility("default")))
#endif

namespace dvmsr::ort {

enum Kind { activation, parameter };

// One letter per dimension, as in the operators' definition; 'k' stands for K - 1. Only the last input
// may be optional.
struct Port {
  const char *name;
  const char *axes;
  Kind kind;
  bool optional = false;
};

// The size of each axis, by letter.
using Sizes = std::array<int64_t, 128>;
// A constant array of ports.
class Ports {
 public:
  template <size_t count>
  constexpr Ports(const Port (&ports)[count]) : first_(ports), count_(count) {}
  constexpr Ports() : first_(nullptr), count_(0) {}
  const Port *begin() const { return first_; }
  const Port *end() const { return first_ + count_; }
  size_t size() const { return count_; }
  const Port &operator[](size_t i) const { return first_[i]; }

 private:
  const Port *first_;
  size_t count_;
};

struct Call {
  const OrtApi &api;
  const OrtKernelContext *context;
  bool half;    // the activations' type: FP16 or FP32
  int threads;  // of the session; 0: unknown
  bool applied; // the operator's attribute: delta_softplus or activation
  bool channel_major;  // the scan's other attribute
  const Sizes &size;
  void *const *in, *const *out;  // NULL for an optional input that is left off
};

// A failed call into ONNX Runtime, which owns the message.
struct CallFailed {
  OrtStatus *status;
};

inline void check(OrtStatus *status) {
  if (status) throw CallFailed{status};
}

// Of the device: they compute, or throw a CallFailed or a std::exception with a sentence.
void run_selective_scan(const Call &call);
void run_causal_conv1d(const Call &call);

// The execution provider that has the operators; NULL for the CPU's.
extern const char *const provider;

// Whether its scan reads channel-major tensors.
extern const bool reads_channel_major;

}  // namespace dvmsr::ort
