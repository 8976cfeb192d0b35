// The sizes of the axes of a node's tensors.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "custom_ops.h"

namespace dvmsr::ort {

using Shape = std::vector<int64_t>;

// Learns the sizes from the inputs in turn, and holds each input to what is known.
class AxisSizes {
 public:
  AxisSizes(const Definition &definition, const Form &form) : definition_(definition), form_(form) {}

  // Throws a std::invalid_argument where the shape is wrong.
  void learn(const Port &port, const Shape &shape);
  Shape shape_of(const Port &port) const;
  Sizes &sizes() { return size_; }

 private:
  void know(char axis, int64_t size, const Port &port, const std::string &wrong);
  std::string text_of(char axis) const;
  std::string text_of(const char *axes) const;
  [[noreturn]] void refuse(const Port &port, const std::string &why) const;

  const Definition &definition_;
  const Form &form_;
  Sizes size_{};
  std::array<const char *, std::tuple_size<Sizes>::value> from_{};  // the input that told the size; NULL: not known
};

// A size before a node runs: known, or known by name alone.
struct Dimension {
  int64_t size = -1;
  std::string name;
  bool known() const { return size >= 0 || !name.empty(); }
};

// The same before a node runs, from what is known of its inputs by then; nothing is held to anything.
class AxisNames {
 public:
  explicit AxisNames(const Form &form) : form_(form) {}

  void learn(const Port &port, const std::vector<Dimension> &shape);
  // None where one of the sizes is neither known nor named.
  std::optional<std::vector<Dimension>> shape_of(const Port &port) const;

 private:
  void know(char axis, const Dimension &dimension);

  const Form &form_;
  std::array<Dimension, std::tuple_size<Sizes>::value> dimension_;
};

}  // namespace dvmsr::ort
