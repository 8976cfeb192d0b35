#include "axes.h"

#include <cctype>
#include <cstring>

namespace dvmsr::ort {
namespace {

size_t index(char axis) { return static_cast<size_t>(axis); }

// "(1, 3, 120)"
std::string text_of(const Shape &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

const Derived *derivation_of(char axis, const Form &form) {
  for (const Derived &derived : form.derived)
    if (derived.axis == axis) return &derived;
  return nullptr;
}

}  // namespace

void AxisSizes::learn(const Port &port, const Shape &shape) {
  const std::string wrong = "has shape " + dvmsr::ort::text_of(shape) + " but must be " + text_of(port.axes);
  if (shape.size() != std::strlen(port.axes)) refuse(port, wrong);
  for (size_t i = 0; i < shape.size(); ++i) know(port.axes[i], shape[i], port, wrong);
}

void AxisSizes::know(char axis, int64_t size, const Port &port, const std::string &wrong) {
  if (std::isdigit(axis)) {
    if (size != axis - '0') refuse(port, wrong);
    return;
  }
  if (from_[index(axis)]) {
    if (size != size_[index(axis)])
      refuse(port, wrong + " with " + text_of(axis) + " = " + std::to_string(size_[index(axis)]) + " as in " +
                       from_[index(axis)]);
    return;
  }
  const bool may_be_zero = axis == 'B' || axis == 'L' || std::islower(axis);
  if (size < (may_be_zero ? 0 : 1))
    refuse(port, wrong + " with " + text_of(axis) + " at least " + (may_be_zero ? "0" : "1"));
  if (axis == 'G' && size_[index('D')] % size)
    refuse(port, "has " + std::to_string(size) + " groups, which do not divide the " +
                     std::to_string(size_[index('D')]) + " channels");
  size_[index(axis)] = size;
  from_[index(axis)] = port.name;
  for (const Derived &derived : form_.derived)
    if (derived.of == axis) know(derived.axis, derived.times * size + derived.plus, port, wrong);
}

Shape AxisSizes::shape_of(const Port &port) const {
  Shape shape;
  for (const char *axis = port.axes; *axis; ++axis)
    shape.push_back(std::isdigit(*axis) ? *axis - '0' : size_[index(*axis)]);
  return shape;
}

// "K-1"
std::string AxisSizes::text_of(char axis) const {
  const Derived *derived = derivation_of(axis, form_);
  if (!derived) return std::string(1, axis);
  std::string text(1, derived->of);
  if (derived->times != 1) text = std::to_string(derived->times) + text;
  if (derived->plus) text += (derived->plus > 0 ? "+" : "") + std::to_string(derived->plus);
  return text;
}

// "(B, K-1, D)"
std::string AxisSizes::text_of(const char *axes) const {
  std::string text = "(";
  for (const char *axis = axes; *axis; ++axis) text += (axis == axes ? "" : ", ") + text_of(*axis);
  return text + ")";
}

void AxisSizes::refuse(const Port &port, const std::string &why) const {
  dvmsr::ort::refuse(definition_, std::string(port.name) + " " + why +
                                      "; feed a matching shape, or export the model again with dvmsr-export");
}

void AxisNames::learn(const Port &port, const std::vector<Dimension> &shape) {
  if (shape.size() != std::strlen(port.axes)) return;  // unknown, or wrong, as will be said when the node runs
  for (size_t i = 0; i < shape.size(); ++i) know(port.axes[i], shape[i]);
}

// A number tells more than a name.
void AxisNames::know(char axis, const Dimension &dimension) {
  Dimension &known = dimension_[index(axis)];
  if (known.size >= 0 || (known.known() && dimension.size < 0)) return;
  known = dimension;
  for (const Derived &derived : form_.derived) {
    if (derived.of != axis) continue;
    if (dimension.size >= 0) know(derived.axis, {derived.times * dimension.size + derived.plus, ""});
    else if (derived.times == 1 && derived.plus == 0) know(derived.axis, dimension);
  }
}

std::optional<std::vector<Dimension>> AxisNames::shape_of(const Port &port) const {
  std::vector<Dimension> shape;
  for (const char *axis = port.axes; *axis; ++axis) {
    const Dimension size = std::isdigit(*axis) ? Dimension{*axis - '0', ""} : dimension_[index(*axis)];
    if (!size.known()) return std::nullopt;
    shape.push_back(size);
  }
  return shape;
}

}  // namespace dvmsr::ort
