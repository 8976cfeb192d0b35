// Vectors of channels and the elementary functions on them. Included once per instruction set, in a
// namespace of its own; DVMSR_LANES channels travel together. Uses the vector extension of GCC and
// Clang, so that one source serves every instruction set.
//
// NaN and infinity propagate as in IEEE arithmetic. exp2 and what is built on it round to within
// 2e-7; results below 2^-126 become zero, results above 2^127.5 infinity.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define DVMSR_INLINE inline __attribute__((always_inline))

namespace dvmsr {
namespace {

constexpr int W = DVMSR_LANES;

struct half {
  uint16_t bits;
};

template <class R>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(4 * W)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(8 * W)));
};
template <class R>
using Vector = typename VectorOf<R>::type;

typedef int32_t Int32s __attribute__((vector_size(4 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));

template <class R>
DVMSR_INLINE Vector<R> splat(R value) {
  return Vector<R>{} + value;
}

template <class To, class From>
DVMSR_INLINE To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

DVMSR_INLINE Vector<float> widen(Halves stored) {
  const Int32s bits = __builtin_convertvector(stored, Int32s);
  const Int32s magnitude = (bits & 0x7fff) << 13;
  const Int32s sign = (bits & 0x8000) << 16;
  // 2^112 moves the exponent from half's bias to float's, denormals included.
  const Vector<float> scaled = bits_of<Vector<float>>(magnitude) * 0x1p112f;
  const Int32s special = magnitude >= 0x0f800000;
  return bits_of<Vector<float>>(bits_of<Int32s>(scaled) | (special & 0x7f800000) | sign);
}

// Rounds to nearest, ties to even.
DVMSR_INLINE Halves narrow(Vector<float> value) {
  const Int32s bits = bits_of<Int32s>(value);
  const Int32s magnitude = bits & 0x7fffffff;
  const Int32s sign = ((bits ^ magnitude) >> 16) & 0x8000;
  const Int32s overflow = magnitude > 0x7f800000 ? Int32s{} + 0x7e00 : Int32s{} + 0x7c00;
  const Int32s denormal = bits_of<Int32s>(bits_of<Vector<float>>(magnitude) + 0.5f) - 0x3f000000;
  const Int32s normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const Int32s rounded =
      magnitude >= 0x47800000 ? overflow : (magnitude < 0x38800000 ? denormal : normal);
  return __builtin_convertvector(rounded | sign, Halves);
}

// Load or store `count` <= W neighbouring channels; the lanes beyond are zero. Full: count == W.
template <bool Full, class R>
DVMSR_INLINE Vector<R> load(const R *from, int64_t count) {
  Vector<R> v{};
  std::memcpy(&v, from, Full ? sizeof v : static_cast<size_t>(count) * sizeof(R));
  return v;
}
template <bool Full>
DVMSR_INLINE Vector<float> load(const half *from, int64_t count) {
  Halves v{};
  std::memcpy(&v, from, Full ? sizeof v : static_cast<size_t>(count) * sizeof(half));
  return widen(v);
}
template <bool Full, class R>
DVMSR_INLINE void store(R *to, int64_t count, Vector<R> v) {
  std::memcpy(to, &v, Full ? sizeof v : static_cast<size_t>(count) * sizeof(R));
}
template <bool Full>
DVMSR_INLINE void store(half *to, int64_t count, Vector<float> value) {
  const Halves v = narrow(value);
  std::memcpy(to, &v, Full ? sizeof v : static_cast<size_t>(count) * sizeof(half));
}

DVMSR_INLINE Vector<float> exp2(Vector<float> x) {
  // Written so that a NaN is kept by both clamps.
  x = x < -127.f ? splat(-127.f) : x;
  x = x > 128.f ? splat(128.f) : x;
  const Vector<float> shifted = x + 0x1.8p23f;  // its low mantissa bits hold round(x)
  const Vector<float> f = x - (shifted - 0x1.8p23f);
  // Minimax for |f| <= 1/2 with the value at 0 exact; error 9e-8.
  Vector<float> p = splat(0x1.5bba14p-10f);
  p = p * f + 0x1.3cea88p-7f;
  p = p * f + 0x1.c6b752p-5f;
  p = p * f + 0x1.ebf9bcp-3f;
  p = p * f + 0x1.62e42ap-1f;
  p = p * f + 1.f;
  return p * bits_of<Vector<float>>((bits_of<Int32s>(shifted) + 127) << 23);
}
DVMSR_INLINE Vector<double> exp2(Vector<double> x) {
  for (int i = 0; i < W; ++i) x[i] = std::exp2(x[i]);
  return x;
}

template <class R>
constexpr R log2e = static_cast<R>(1.442695040888963407359924681001892137L);

template <class V>
DVMSR_INLINE V exp(V x) {
  using R = std::remove_reference_t<decltype(x[0])>;
  return exp2(x * log2e<R>);
}
template <class V>
DVMSR_INLINE V sigmoid(V x) {
  return 1 / (1 + exp(-x));
}

// log(1 + w) for w in [0, 1].
DVMSR_INLINE Vector<float> log1p_unit(Vector<float> w) {
  const Vector<float> s = w / (w + 2.f);  // log(1 + w) = 2 artanh(s)
  const Vector<float> q = s * s;
  Vector<float> p = splat(0.14089198f);  // minimax for q <= 1/9; error 4e-9
  p = p * q + 0.13980295f;
  p = p * q + 0.20012456f;
  p = p * q + 0.33333158f;
  p = p * q + 1.f;
  return 2.f * s * p;
}
DVMSR_INLINE Vector<double> log1p_unit(Vector<double> w) {
  for (int i = 0; i < W; ++i) w[i] = std::log1p(w[i]);
  return w;
}

template <class V>
DVMSR_INLINE V softplus(V x) {
  const V positive = x > 0 ? x : V{};
  const V negative = x > 0 ? -x : x;  // -|x|, and NaN for NaN
  return positive + log1p_unit(exp(negative));
}

}  // namespace
}  // namespace dvmsr
