// Conv3x3: threads take blocks of tiles until none is left, each with scratch of its own.
#include <algorithm>
#include <atomic>

#include "call.h"
#include "executor.h"
#include "kernels.h"

struct dvmsr_conv3x3 {
  dvmsr_dtype dtype;
  int64_t channels, out_channels;  // C, E
  dvmsr::Pieces packed;            // one, for the kernels of this machine
};

namespace dvmsr {
namespace {

dvmsr_status pack(const dvmsr_conv3x3_weights &w, dvmsr_conv3x3 **conv) {
  if ((w.dtype != DVMSR_F32 && w.dtype != DVMSR_F16) || w.channels <= 0 || w.out_channels <= 0)
    return DVMSR_INVALID_ARGUMENT;
  const Kernels &k = kernels();
  const int64_t C = w.channels, E = w.out_channels, size = k.conv3x3_packed_size(C, E) * 4;
  std::unique_ptr<dvmsr_conv3x3> made(new dvmsr_conv3x3{w.dtype, C, E, Pieces(1, size)});
  k.conv3x3_pack[w.dtype](C, E, w.weight, w.bias, values(made->packed, 0));
  *conv = made.release();
  return DVMSR_OK;
}

dvmsr_status forward(const dvmsr_conv3x3 &conv, const dvmsr_conv3x3_inputs &in, void *y,
                     const dvmsr_executor *executor) {
  const auto is_pad = [](int64_t rows) { return rows == 0 || rows == 1; };
  if (in.batch < 0 || in.height < 0 || in.width < 0 || !is_pad(in.top) || !is_pad(in.left) ||
      !is_pad(in.bottom) || !is_pad(in.right) || in.above_rows < 0)
    return DVMSR_INVALID_ARGUMENT;
  Conv3x3Tiles all{};
  all.channels = conv.channels;
  all.out_channels = conv.out_channels;
  all.height = in.height;
  all.width = in.width;
  all.top = in.top;
  all.left = in.left;
  all.above_rows = in.above_rows;
  all.out_height = in.top + in.above_rows + in.height + in.bottom - 2;
  all.out_width = in.left + in.width + in.right - 2;
  if (all.out_height < 0 || all.out_width < 0) return DVMSR_INVALID_ARGUMENT;
  all.x = in.x;
  all.above = in.above;
  all.packed = values(conv.packed, 0);
  all.y = y;

  const Kernels &k = kernels();
  const int64_t tiles = in.batch * ceil_div(all.out_height, 4) * ceil_div(all.out_width, 4);
  const int64_t block = k.conv3x3_block(conv.channels, conv.out_channels), blocks = ceil_div(tiles, block);
  const int64_t workers = std::min<int64_t>(threads_of(executor), blocks);
  const Pieces scratch(workers, k.conv3x3_scratch(conv.channels, conv.out_channels) * 4);
  std::atomic<int64_t> next{0};
  parallel_for(executor, static_cast<size_t>(workers), [&](size_t worker) {
    Conv3x3Tiles t = all;
    t.scratch = values(scratch, static_cast<int64_t>(worker));
    for (int64_t i = next++; i < blocks; i = next++) {
      t.first_tile = i * block;
      t.end_tile = std::min(tiles, t.first_tile + block);
      k.conv3x3_forward[conv.dtype](t);
    }
  });
  return DVMSR_OK;
}

}  // namespace
}  // namespace dvmsr

dvmsr_status dvmsr_conv3x3_pack(const dvmsr_conv3x3_weights *weights, dvmsr_conv3x3 **conv) {
  return dvmsr::guarded([&] { return dvmsr::pack(*weights, conv); });
}

void dvmsr_conv3x3_free(dvmsr_conv3x3 *conv) { delete conv; }

dvmsr_status dvmsr_conv3x3_forward(const dvmsr_conv3x3 *conv, const dvmsr_conv3x3_inputs *in, void *y,
                                   const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::forward(*conv, *in, y, executor); });
}
