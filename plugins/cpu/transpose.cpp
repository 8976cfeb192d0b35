// Matrices transposed, between sequences whose tokens lie side by side and the operators' layout.
#include <algorithm>
#include <cstdint>

#include "dvmsr_ops.h"
#include "executor.h"

namespace dvmsr {
namespace {

// Whole cache lines are read and written, each once: rows may lie a power of two apart, and then all
// of them share a few places in the cache.
constexpr int64_t edge = 16;

template <class T>
void transpose_block(const T *from, T *to, int64_t rows, int64_t columns, int64_t height, int64_t width) {
  T block[edge][edge];
  for (int64_t r = 0; r < height; ++r)
    for (int64_t c = 0; c < width; ++c) block[c][r] = from[r * columns + c];
  for (int64_t c = 0; c < width; ++c) std::copy(block[c], block[c] + height, to + c * rows);
}

template <class T>
void transpose(const T *from, T *to, int64_t batch, int64_t rows, int64_t columns,
               const dvmsr_executor *executor) {
  const int64_t bands = (rows + edge - 1) / edge;
  // Bands are handed out in runs, so that few are.
  const int64_t tasks = std::min<int64_t>(batch * bands, 8 * threads_of(executor));
  parallel_for(executor, static_cast<size_t>(tasks), [=](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * batch * bands / tasks;
    const int64_t end = (static_cast<int64_t>(task) + 1) * batch * bands / tasks;
    for (int64_t i = first; i < end; ++i) {
      const int64_t matrix = i / bands * rows * columns, row = i % bands * edge;
      const int64_t height = std::min(edge, rows - row);
      const T *source = from + matrix + row * columns;
      T *target = to + matrix + row;
      for (int64_t c = 0; c < columns; c += edge) {
        const int64_t width = std::min(edge, columns - c);
        if (height == edge && width == edge)  // sizes that the compiler knows
          transpose_block(source + c, target + c * rows, rows, columns, edge, edge);
        else
          transpose_block(source + c, target + c * rows, rows, columns, height, width);
      }
    }
  });
}

}  // namespace
}  // namespace dvmsr

dvmsr_status dvmsr_transpose(const void *from, void *to, int64_t batch, int64_t rows, int64_t columns,
                             int64_t size, const dvmsr_executor *executor) {
  if (batch < 0 || rows < 0 || columns < 0 || (size != 4 && size != 8)) return DVMSR_INVALID_ARGUMENT;
  if (batch * rows * columns == 0) return DVMSR_OK;
  try {
    if (size == 4)
      dvmsr::transpose(static_cast<const uint32_t *>(from), static_cast<uint32_t *>(to), batch, rows,
                       columns, executor);
    else
      dvmsr::transpose(static_cast<const uint64_t *>(from), static_cast<uint64_t *>(to), batch, rows,
                       columns, executor);
  } catch (...) {
    return DVMSR_FAILED;
  }
  return DVMSR_OK;
}
