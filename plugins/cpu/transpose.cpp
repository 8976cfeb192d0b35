// dvmsr_transpose: matrices in bands of rows, each by one thread.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "dvmsr_ops.h"
#include "executor.h"

namespace dvmsr {
namespace {

// Whole cache lines are read and written, each once: rows may lie a power of two apart, and then all
// of them share a few places in the cache.
constexpr int64_t transposed_edge = 16;

template <class T>
void transpose_block(const T *from, int64_t from_stride, T *to, int64_t to_stride, int64_t height,
                     int64_t width) {
  T block[transposed_edge][transposed_edge];
  for (int64_t r = 0; r < height; ++r)
    for (int64_t c = 0; c < width; ++c) block[c][r] = from[r * from_stride + c];
  for (int64_t c = 0; c < width; ++c) std::copy(block[c], block[c] + height, to + c * to_stride);
}

// A whole block, four rows by four columns at a time in registers.
template <class T>
void transpose_block(const T *from, int64_t from_stride, T *to, int64_t to_stride) {
  typedef T Row __attribute__((vector_size(4 * sizeof(T))));
  T block[transposed_edge][transposed_edge];
  for (int64_t r = 0; r < transposed_edge; r += 4) {
    for (int64_t c = 0; c < transposed_edge; c += 4) {
      Row row[4];
      for (int64_t i = 0; i < 4; ++i)
        std::memcpy(&row[i], from + (r + i) * from_stride + c, sizeof(Row));
      const Row even[2] = {Row{row[0][0], row[1][0], row[0][1], row[1][1]},
                           Row{row[2][0], row[3][0], row[2][1], row[3][1]}};
      const Row odd[2] = {Row{row[0][2], row[1][2], row[0][3], row[1][3]},
                          Row{row[2][2], row[3][2], row[2][3], row[3][3]}};
      const Row column[4] = {Row{even[0][0], even[0][1], even[1][0], even[1][1]},
                             Row{even[0][2], even[0][3], even[1][2], even[1][3]},
                             Row{odd[0][0], odd[0][1], odd[1][0], odd[1][1]},
                             Row{odd[0][2], odd[0][3], odd[1][2], odd[1][3]}};
      for (int64_t i = 0; i < 4; ++i) std::memcpy(&block[c + i][r], &column[i], sizeof(Row));
    }
  }
  for (int64_t c = 0; c < transposed_edge; ++c)
    std::copy(block[c], block[c] + transposed_edge, to + c * to_stride);
}

// (rows, columns) to (columns, rows); strides are from one row of either to its next.
template <class T>
void transpose(const T *from, int64_t from_stride, T *to, int64_t to_stride, int64_t rows,
               int64_t columns) {
  constexpr int64_t edge = transposed_edge;
  for (int64_t r = 0; r < rows; r += edge) {
    const int64_t height = std::min(edge, rows - r);
    for (int64_t c = 0; c < columns; c += edge) {
      const int64_t width = std::min(edge, columns - c);
      const T *source = from + r * from_stride + c;
      T *target = to + c * to_stride + r;
      if (height == edge && width == edge)
        transpose_block(source, from_stride, target, to_stride);
      else
        transpose_block(source, from_stride, target, to_stride, height, width);
    }
  }
}

template <class T>
void transpose_all(const void *from, void *to, int64_t batch, int64_t rows, int64_t columns,
                   const dvmsr_executor *executor) {
  const int64_t bands = (rows + transposed_edge - 1) / transposed_edge;
  // Bands are handed out in runs, so that few are.
  const int64_t tasks = std::min<int64_t>(batch * bands, 8 * threads_of(executor));
  parallel_for(executor, static_cast<size_t>(tasks), [=](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * batch * bands / tasks;
    const int64_t end = (static_cast<int64_t>(task) + 1) * batch * bands / tasks;
    for (int64_t i = first; i < end; ++i) {
      const int64_t matrix = i / bands * rows * columns, row = i % bands * transposed_edge;
      transpose(static_cast<const T *>(from) + matrix + row * columns, columns,
                static_cast<T *>(to) + matrix + row, rows, std::min(transposed_edge, rows - row),
                columns);
    }
  });
}

}  // namespace
}  // namespace dvmsr

dvmsr_status dvmsr_transpose(const void *from, void *to, int64_t batch, int64_t rows, int64_t columns,
                             int64_t size, const dvmsr_executor *executor) {
  if (batch < 0 || rows < 0 || columns < 0 || (size != 4 && size != 8)) return DVMSR_INVALID_ARGUMENT;
  if (batch * rows * columns == 0) return DVMSR_OK;
  const auto run = size == 4 ? dvmsr::transpose_all<uint32_t> : dvmsr::transpose_all<uint64_t>;
  try {
    run(from, to, batch, rows, columns, executor);
  } catch (...) {
    return DVMSR_FAILED;
  }
  return DVMSR_OK;
}
