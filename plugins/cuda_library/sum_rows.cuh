// Column sums of a tall matrix, always in the same order: what blocks found becomes one gradient.
#pragma once

#include "device.cuh"

namespace dvmsr::cuda {

constexpr int kSumColumns = 32;  // per block, one to a lane
constexpr int kSumRanges = 16;   // ranges of rows per block, one to a warp

struct RangeSums {
  double sums[kSumRanges][kSumColumns];
};

static __global__ void __launch_bounds__(kSumColumns *kSumRanges, 1)
    sum_range(const float *rows, int64_t count, int64_t columns, float *sums) {
  RangeSums &shared = shared_memory<RangeSums>();
  const int lane = threadIdx.x % kSumColumns, range = threadIdx.x / kSumColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSumColumns + lane;
  double sum = 0;
  for (int64_t row = range; column < columns && row < count; row += kSumRanges) sum += rows[row * columns + column];
  shared.sums[range][lane] = sum;
  __syncthreads();
  if (range != 0 || column >= columns) return;
  for (int other = 1; other < kSumRanges; ++other) sum += shared.sums[other][lane];
  sums[column] = static_cast<float>(sum);
}

inline cudaError_t sum_rows(const float *rows, int64_t count, int64_t columns, float *sums, cudaStream_t stream) {
  return launch(sum_range, ceil_div(columns, kSumColumns), kSumColumns * kSumRanges, stream, rows, count, columns,
                sums);
}

}  // namespace dvmsr::cuda
