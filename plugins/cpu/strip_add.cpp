// dvmsr_strip_add: memory's speed bounds it, so that the baseline's vectors do.
#define DVMSR_LANES 4

#include <algorithm>
#include <cstdint>

#include "call.h"
#include "executor.h"
#include "simd.h"

namespace dvmsr {
namespace {

// Values that a task adds, at least.
constexpr int64_t values_of_task = 1 << 14;

template <class Act>
void add(const Act *a, const Act *b, int64_t count, Act *sum) {
  const int64_t whole = count / W * W, rest = count - whole;
  for (int64_t i = 0; i < whole; i += W) store(sum + i, load(a + i) + load(b + i));
  store(sum + whole, load(a + whole, rest) + load(b + whole, rest), rest);
}

template <class Act>
void add_rows(const dvmsr_strip_add_inputs &in, void *y, const dvmsr_executor *executor) {
  const auto row = [&in](const void *tensor, int64_t number) {
    return static_cast<const Act *>(tensor) + number * in.row;
  };
  const int64_t rows = in.batch * in.rows, most = ceil_div(rows * in.row, values_of_task);
  const int64_t tasks = std::min({rows, most, int64_t{4} * threads_of(executor)});
  parallel_for(executor, static_cast<size_t>(tasks), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * rows / tasks;
    const int64_t end = (static_cast<int64_t>(task) + 1) * rows / tasks;
    for (int64_t i = first; i < end; ++i) {
      const int64_t b = i / in.rows, r = i % in.rows, of_x = r - in.waiting_rows;
      const Act *const due = of_x < 0 ? row(in.waiting, b * in.waiting_rows + r) : row(in.x, b * in.x_rows + of_x);
      add(row(in.deep, i), due, in.row, static_cast<Act *>(y) + i * in.row);
    }
  });
}

dvmsr_status forward(const dvmsr_strip_add_inputs &in, void *y, const dvmsr_executor *executor) {
  if (in.batch < 0 || in.rows < 0 || in.waiting_rows < 0 || in.x_rows < 0 || in.row < 0 ||
      in.waiting_rows + in.x_rows < in.rows || (in.dtype != DVMSR_F32 && in.dtype != DVMSR_F16))
    return DVMSR_INVALID_ARGUMENT;
  (in.dtype == DVMSR_F32 ? add_rows<float> : add_rows<half>)(in, y, executor);
  return DVMSR_OK;
}

}  // namespace
}  // namespace dvmsr

dvmsr_status dvmsr_strip_add_forward(const dvmsr_strip_add_inputs *in, void *y,
                                       const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::forward(*in, y, executor); });
}
