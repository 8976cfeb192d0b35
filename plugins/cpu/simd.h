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
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define DVMSR_INLINE inline __attribute__((always_inline))
// In front of loops over a few vectors: only when unrolled do these live in registers.
#define DVMSR_UNROLL _Pragma("GCC unroll 16")

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
template <class V>
using Lane = std::remove_reference_t<decltype(V{}[0])>;

typedef int32_t Int32s __attribute__((vector_size(4 * W)));
typedef int64_t Int64s __attribute__((vector_size(8 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));

template <class R>
DVMSR_INLINE Vector<R> splat(R value) {
  return value - Vector<R>{};  // costs nothing; adding zero would be an addition, as it changes -0
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

// `count` < W neighbouring values; the lanes beyond are zero, and nothing beyond is read or written.
template <class To, class From>
DVMSR_INLINE To load_first(const From *from, int64_t count) {
  To v{};
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(From));
  return v;
}
template <class To, class From>
DVMSR_INLINE void store_first(To *to, From v, int64_t count) {
  std::memcpy(to, &v, static_cast<size_t>(count) * sizeof(To));
}
#if DVMSR_LANES == 16 && defined(__AVX512BW__) && defined(__AVX512VL__)
DVMSR_INLINE __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
template <>
DVMSR_INLINE Vector<float> load_first(const float *from, int64_t count) {
  return _mm512_maskz_loadu_ps(first(count), from);
}
template <>
DVMSR_INLINE Halves load_first(const half *from, int64_t count) {
  return bits_of<Halves>(_mm256_maskz_loadu_epi16(first(count), from));
}
template <>
DVMSR_INLINE void store_first(float *to, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(to, first(count), v);
}
template <>
DVMSR_INLINE void store_first(half *to, Halves v, int64_t count) {
  _mm256_mask_storeu_epi16(to, first(count), bits_of<__m256i>(v));
}
#elif DVMSR_LANES == 8 && defined(__AVX2__)
DVMSR_INLINE __m256i first(int64_t count) {
  const Int32s lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return bits_of<__m256i>(lane < static_cast<int32_t>(count));
}
template <>
DVMSR_INLINE Vector<float> load_first(const float *from, int64_t count) {
  return _mm256_maskload_ps(from, first(count));
}
template <>
DVMSR_INLINE void store_first(float *to, Vector<float> v, int64_t count) {
  _mm256_maskstore_ps(to, first(count), v);
}
#endif

// Load or store `count` <= W neighbouring channels; the lanes beyond are zero.
template <class To, class From>
DVMSR_INLINE To load_stored(const From *from, int64_t count) {
  if (count != W) return load_first<To>(from, count);
  To v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class To, class From>
DVMSR_INLINE void store_as_stored(To *to, From v, int64_t count) {
  if (count == W)
    std::memcpy(to, &v, sizeof v);
  else
    store_first(to, v, count);
}
template <class R>
DVMSR_INLINE Vector<R> load(const R *from, int64_t count = W) {
  return load_stored<Vector<R>>(from, count);
}
DVMSR_INLINE Vector<float> load(const half *from, int64_t count = W) {
  return widen(load_stored<Halves>(from, count));
}
template <class R>
DVMSR_INLINE void store(R *to, Vector<R> v, int64_t count = W) {
  store_as_stored(to, v, count);
}
DVMSR_INLINE void store(half *to, Vector<float> value, int64_t count = W) {
  store_as_stored(to, narrow(value), count);
}

// a b + c, rounded once where the instruction set can: for sums of two products, of which the compiler
// might round either, and differently in each copy of a loop.
DVMSR_INLINE Vector<float> fused(Vector<float> a, Vector<float> b, Vector<float> c) {
#if DVMSR_LANES == 16 && defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif DVMSR_LANES == 8 && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
DVMSR_INLINE Vector<double> fused(Vector<double> a, Vector<double> b, Vector<double> c) { return a * b + c; }

// Keeps a product from being merged into the sum that uses it, where another copy of the loop cannot.
DVMSR_INLINE void round_now(Vector<float> &x) {
#if defined(__FMA__)
  asm("" : "+v"(x));
#else
  (void)x;
#endif
}
DVMSR_INLINE void round_now(Vector<double> &) {}

// max and min that keep a NaN in x; compilers do not find the instruction by themselves.
DVMSR_INLINE Vector<float> at_least(Vector<float> x, float low) {
#if DVMSR_LANES == 16 && defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, splat(low), x);
#elif DVMSR_LANES == 8 && defined(__AVX__)
  return _mm256_max_ps(splat(low), x);
#elif DVMSR_LANES == 4 && defined(__SSE2__)
  return _mm_max_ps(splat(low), x);
#else
  return x < low ? splat(low) : x;
#endif
}
DVMSR_INLINE Vector<float> at_most(Vector<float> x, float high) { return -at_least(-x, -high); }

// Whether a comparison held in every lane.
DVMSR_INLINE bool all(Int32s held) {
#if DVMSR_LANES == 16 && defined(__AVX512DQ__)
  return _mm512_movepi32_mask(bits_of<__m512i>(held)) == 0xffff;
#elif DVMSR_LANES == 8 && defined(__AVX__)
  return _mm256_movemask_ps(bits_of<__m256>(held)) == 0xff;
#elif DVMSR_LANES == 4 && defined(__SSE2__)
  return _mm_movemask_ps(bits_of<__m128>(held)) == 0xf;
#else
  for (int i = 0; i < W; ++i)
    if (!held[i]) return false;
  return true;
#endif
}
DVMSR_INLINE bool all(Int64s held) {
  for (int i = 0; i < W; ++i)
    if (!held[i]) return false;
  return true;
}

// What the caller knows of the exponents; each saves instructions.
enum class Exponents {
  any,
  negative,  // none above 0
  ordinary,  // within [-125, 0], and no NaN with a payload: no result is subnormal
  decaying,  // none above 0, and no NaN with a payload: results below 2^-126 become that
};

// 2^(i / W) in one register, i in a lane's low bits; as bits, less what i adds to the exponent's field.
#if DVMSR_LANES == 16 && defined(__AVX512F__)
#define DVMSR_POWERS_IN_A_REGISTER
alignas(64) constexpr int32_t powers[16] = {
    0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
    0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
DVMSR_INLINE Int32s power_at(Int32s i) {
  const __m512i table = _mm512_load_si512(powers);
  return bits_of<Int32s>(_mm512_permutexvar_epi32(bits_of<__m512i>(i), table));
}
#elif DVMSR_LANES == 8 && defined(__AVX2__)
#define DVMSR_POWERS_IN_A_REGISTER
alignas(32) constexpr int32_t powers[8] = {
    0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
    0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
DVMSR_INLINE Int32s power_at(Int32s i) {
  const __m256i table = _mm256_load_si256(reinterpret_cast<const __m256i *>(powers));
  return bits_of<Int32s>(_mm256_permutevar8x32_epi32(table, bits_of<__m256i>(i)));
}
#endif

// 2^x of bounded exponents for G vectors in step: their chains of dependent operations overlap.
// Where all results are normal the exponent's whole part is added to the bits, else its power is
// multiplied by; the values are the same.
template <bool Normal, int G>
DVMSR_INLINE void exp2_bounded(Vector<float> (&x)[G]) {
  Vector<float> whole[G], p[G];
#ifdef DVMSR_POWERS_IN_A_REGISTER
  // W-ths of the exponent from the table, and a polynomial with the exact value and slope at 0 for what
  // remains, 1 / 2W at most: Taylor's series with 16 lanes, minimax with 8. Error 6e-8, most of it the
  // table's rounding.
  constexpr float shift = 0x1.8p23f / W;
  constexpr int place = W == 16 ? 19 : 20;
  constexpr float square = W == 16 ? 0x1.ebfbep-3f : 0x1.ec0c32p-3f;
  Vector<float> power[G];
  DVMSR_UNROLL for (int i = 0; i < G; ++i) whole[i] = x[i] + shift;  // low mantissa bits: round(W x)
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] -= whole[i] - shift;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) {
    const Int32s bits = bits_of<Int32s>(whole[i]), exponent = bits << place;
    const Int32s added = Normal ? exponent : exponent & (0x800000 - (1 << place));
    power[i] = bits_of<Vector<float>>(power_at(bits) + added);
  }
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = x[i] * 0x1.c6b08ep-5f + square;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * x[i] + 0x1.62e43p-1f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] *= power[i];
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] = x[i] * p[i] + power[i];
  if (!Normal)
    DVMSR_UNROLL for (int i = 0; i < G; ++i) {
      const Int32s exponent = (bits_of<Int32s>(whole[i]) << place & ~0x7fffff) + (127 << 23);
      x[i] *= bits_of<Vector<float>>(exponent);
    }
#else
  constexpr float shift = Normal ? 0x1.8p23f : 0x1.8p23f + 127;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) whole[i] = x[i] + shift;  // low mantissa bits: round(x)
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] -= whole[i] - shift;
  // Minimax for |x| <= 1/2 with the value at 0 exact; error 9e-8.
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = x[i] * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * x[i] + 0x1.c6b752p-5f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * x[i] + 0x1.ebf9bcp-3f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * x[i] + 0x1.62e42ap-1f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * x[i] + 1.f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) {
    const Int32s exponent = bits_of<Int32s>(whole[i]) << 23;
    x[i] = Normal ? bits_of<Vector<float>>(bits_of<Int32s>(p[i]) + exponent)
                    : p[i] * bits_of<Vector<float>>(exponent);
  }
#endif
}

// x = 2^x for G vectors. So below.
template <Exponents E, int G>
DVMSR_INLINE void exp2(Vector<float> (&x)[G]) {
  constexpr bool normal = E == Exponents::ordinary || E == Exponents::decaying;
  if (E != Exponents::ordinary)
    DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] = at_least(x[i], normal ? -126.f : -127.f);
  if (E == Exponents::any)
    DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] = at_most(x[i], 128.f);
  exp2_bounded<normal>(x);
}
template <Exponents, int G>
DVMSR_INLINE void exp2(Vector<double> (&x)[G]) {
  for (int g = 0; g < G; ++g)
    for (int i = 0; i < W; ++i) x[g][i] = std::exp2(x[g][i]);
}

template <class R>
constexpr R log2e = static_cast<R>(1.442695040888963407359924681001892137L);

// x = 1 / (1 + exp(-x))
template <class V, int G>
DVMSR_INLINE void sigmoid(V (&x)[G]) {
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] *= -log2e<Lane<V>>;
  exp2<Exponents::any>(x);
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] = 1 / (1 + x[i]);
}

// w = log(1 + w) for w in [0, 1].
template <int G>
DVMSR_INLINE void log1p_unit(Vector<float> (&w)[G]) {
  Vector<float> p[G];
  // Minimax of log(1 + w) / w with the value at 0 exact; error 4e-8.
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = w[i] * 0.0053648221f + -0.030065785f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + 0.079204525f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + -0.13753802f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + 0.19153655f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + -0.24857164f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + 0.33321323f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + -0.49999648f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) p[i] = p[i] * w[i] + 1.f;
  DVMSR_UNROLL for (int i = 0; i < G; ++i) w[i] *= p[i];
}
template <int G>
DVMSR_INLINE void log1p_unit(Vector<double> (&w)[G]) {
  for (int g = 0; g < G; ++g)
    for (int i = 0; i < W; ++i) w[g][i] = std::log1p(w[g][i]);
}

// x = log(1 + exp(x))
template <class V, int G>
DVMSR_INLINE void softplus(V (&x)[G]) {
  V w[G];
  DVMSR_UNROLL for (int i = 0; i < G; ++i) w[i] = (x[i] > 0 ? -x[i] : x[i]) * log2e<Lane<V>>;
  exp2<Exponents::negative>(w);
  log1p_unit(w);
  DVMSR_UNROLL for (int i = 0; i < G; ++i) x[i] = (x[i] > 0 ? x[i] : V{}) + w[i];
}

// The same on one vector.
template <class V>
DVMSR_INLINE V exp2(V x) {
  V group[1] = {x};
  exp2<Exponents::any>(group);
  return group[0];
}
template <class V>
DVMSR_INLINE V sigmoid(V x) {
  V group[1] = {x};
  sigmoid(group);
  return group[0];
}
template <class V>
DVMSR_INLINE V softplus(V x) {
  V group[1] = {x};
  softplus(group);
  return group[0];
}

}  // namespace
}  // namespace dvmsr
