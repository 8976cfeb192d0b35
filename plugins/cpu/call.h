// What the functions of the C interface share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "dvmsr_ops.h"

namespace dvmsr {

inline int64_t act_size(dvmsr_dtype dtype) { return dtype == DVMSR_F64 ? 8 : dtype == DVMSR_F32 ? 4 : 2; }
inline int64_t par_size(dvmsr_dtype dtype) { return dtype == DVMSR_F64 ? 8 : 4; }

inline const char *at(const void *base, int64_t elements, int64_t size) {
  return base ? static_cast<const char *>(base) + elements * size : nullptr;
}
inline char *at(void *base, int64_t elements, int64_t size) {
  return base ? static_cast<char *>(base) + elements * size : nullptr;
}

// Uninitialised memory for all tiles of a call.
class Scratch {
 public:
  Scratch(int64_t elements, int64_t size) : data_(new char[static_cast<size_t>(elements * size) + 64]) {}
  char *get() const { return data_.get(); }

 private:
  std::unique_ptr<char[]> data_;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The first line of the cache that begins in memory, which has 64 bytes more than are wanted.
inline char *first_line(char *memory) { return memory + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64; }

// Memory of all threads of a call, in pieces that begin with a line of the cache.
class Pieces {
 public:
  Pieces(int64_t count, int64_t bytes)
      : bytes_(ceil_div(bytes, 64) * 64), memory_(count * bytes_ + 64, 1) {}
  char *operator[](int64_t i) const { return first_line(memory_.get()) + i * bytes_; }

 private:
  int64_t bytes_;
  Scratch memory_;
};

inline float *values(const Pieces &pieces, int64_t i) { return reinterpret_cast<float *>(pieces[i]); }

// Runs body(); what it throws becomes a status, so that no exception reaches C.
template <class Body>
dvmsr_status guarded(const Body &body) {
  try {
    return body();
  } catch (const std::bad_alloc &) {
    return DVMSR_OUT_OF_MEMORY;
  } catch (...) {
    return DVMSR_FAILED;
  }
}

}  // namespace dvmsr
