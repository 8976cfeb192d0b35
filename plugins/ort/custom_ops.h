// What ONNX Runtime custom operators on any device share: how an operator is defined, and what a node of
// it knows when it is made and when it runs. Compiled with the other sources here whose names do not start
// with cpu_ into the library of each device, which defines `operators`, `provider` and the inner operators'
// run functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ort_abi.h"

#if defined(_WIN32)
#define DVMSR_ORT_EXPORT __declspec(dllexport)
#else
#define DVMSR_ORT_EXPORT __attribute__((visibility("default")))
#endif

namespace dvmsr::ort {

// A switch is an INT64, 0 or 1, whose value is known when a node runs.
enum Kind { activation, parameter, switched };

// A tensor of an operator: one letter per axis, as in the operators' definition; a digit is its own size.
struct Port {
  const char *name;
  const char *axes;
  Kind kind;
  bool optional = false;
};

// A constant array.
template <class Element>
class Constants {
 public:
  template <size_t count>
  constexpr Constants(const Element (&elements)[count]) : first_(elements), count_(count) {}
  constexpr Constants() : first_(nullptr), count_(0) {}
  const Element *begin() const { return first_; }
  const Element *end() const { return first_ + count_; }
  size_t size() const { return count_; }
  const Element &operator[](size_t i) const { return first_[i]; }

 private:
  const Element *first_;
  size_t count_;
};
using Ports = Constants<Port>;

// The size of each axis, by letter.
using Sizes = std::array<int64_t, 128>;

// An axis whose size is times * that of another + plus.
struct Derived {
  char axis, of;
  int64_t times, plus;
};

// What the tensors of a node are, as its attributes and the inputs it has say.
struct Form {
  Ports inputs, outputs;
  std::vector<Derived> derived;
};

// What is known when a node runs.
struct Call {
  const OrtApi &api;
  const OrtKernelContext *context;
  bool half;    // the activations' type: FP16 or FP32
  int threads;  // of the session; 0: unknown
  const Sizes &size;
  const std::vector<bool> &switches;
  void *const *in, *const *out;  // in: NULL for an optional input that is left off
};

// Inputs without a batch axis that are no switches, by their places; NULL for the others and for those that
// are left off.
struct Weights {
  bool half;
  Sizes size;
  std::vector<void *> in;
};

struct Definition;

// What a node of a graph says of itself: its attributes, and which inputs it has.
class Declared {
 public:
  explicit Declared(const Definition &definition) : definition(definition) {}
  virtual ~Declared() = default;
  virtual bool has(size_t input) const = 0;
  // 0 or 1.
  bool flag(const char *name, bool otherwise) const;
  virtual float number(const char *name, float otherwise) const = 0;
  virtual std::vector<int64_t> list(const char *name, std::vector<int64_t> otherwise) const = 0;

  const Definition &definition;

 protected:
  virtual std::optional<int64_t> integer(const char *name) const = 0;
};

class Node {
 public:
  explicit Node(Form form) : form(std::move(form)) {}
  Node(const Node &) = delete;
  virtual ~Node() = default;
  // Whether prepare() is to be called with the weights, once, where all of them are constant.
  virtual bool wants_weights() const { return false; }
  virtual void prepare(const Weights &) {}
  // Adds the sizes that the switches tell, in the order of the inputs.
  virtual void add_sizes(Sizes &, const std::vector<bool> &) const {}
  // Computes, from several threads at once, or throws a CallFailed or a std::exception with a sentence.
  virtual void run(const Call &call) const = 0;

  const Form form;
};

struct Definition {
  const char *name;
  Ports inputs, outputs;  // every form has as many, of the same kinds
  // Throws a std::invalid_argument where the node says what is not allowed.
  std::unique_ptr<Node> (*node)(const Declared &declared);
};

// "dvmsr <operator>: <why>"
[[noreturn]] void refuse(const Definition &definition, const std::string &why);

// A failed call into ONNX Runtime, which owns the message.
struct CallFailed {
  OrtStatus *status;
};

inline void check(OrtStatus *status) {
  if (status) throw CallFailed{status};
}

// The two operators that every device has.
extern const Definition selective_scan, causal_conv1d;

// Of the device.
void run_selective_scan(const Call &call, bool delta_softplus, bool channel_major);
void run_causal_conv1d(const Call &call, bool silu);

// Its operators.
extern const Constants<const Definition *> operators;

// The execution provider that has them; NULL for the CPU's.
extern const char *const provider;

// Whether its scan reads channel-major tensors.
extern const bool reads_channel_major;

}  // namespace dvmsr::ort
