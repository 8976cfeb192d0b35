// A 3x3 convolution of token-major pixels by Winograd's F(4x4, 3x3): a tile of 4x4 pixels of the result comes
// from 6x6 pixels by 36 products with transformed weights, a quarter of the multiplications of the sum itself.
//
// The points are 0, 5/8, -5/8, 3/2, -3/2 and infinity: what pixels and products are multiplied by is exact in FP32,
// and errors are a quarter of those with the usual 0, 1, -1, 2, -2, about five times those of a plain sum.
// A NaN or an infinity may reach every pixel of the tiles that read it, and no others.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "products.h"
#include "simd.h"

namespace dvmsr {
namespace {

constexpr int winograd_points = 36;
constexpr float point_a = 5 / 8.f, point_b = 3 / 2.f;
constexpr float a2 = point_a * point_a, b2 = point_b * point_b;

int64_t conv3x3_packed_size(int64_t channels, int64_t out_channels) {
  return winograd_points * packed_size(channels, out_channels) + vectors_of(out_channels) * W;
}

// weight (E, C, 3, 3) and bias (E) into 36 packed (C, E) matrices and the bias.
template <class Act>
void conv3x3_pack(int64_t channels, int64_t out_channels, const void *weight, const void *bias, float *to) {
  const auto value = [](const void *from, int64_t i) {
    return static_cast<double>(load(static_cast<const Act *>(from) + i, 1)[0]);
  };
  const double a = point_a, b = point_b, at_a = 1 / (2 * a * a * (a * a - b * b)),
               at_b = 1 / (2 * b * b * (b * b - a * a)), at_0 = 1 / (a * a * b * b);
  const double matrix[6][3] = {{at_0, 0, 0},
                               {at_a, a * at_a, a * a * at_a},
                               {at_a, -a * at_a, a * a * at_a},
                               {at_b, b * at_b, b * b * at_b},
                               {at_b, -b * at_b, b * b * at_b},
                               {0, 0, 1}};
  const int64_t size = channels * out_channels;
  std::vector<float> transformed(static_cast<size_t>(winograd_points * size));  // [point][c][e]
  for (int64_t e = 0; e < out_channels; ++e)
    for (int64_t c = 0; c < channels; ++c) {
      double taps[9];
      for (int i = 0; i < 9; ++i) taps[i] = value(weight, (e * channels + c) * 9 + i);
      for (int p = 0; p < winograd_points; ++p) {
        double sum = 0;
        for (int i = 0; i < 9; ++i) sum += matrix[p / 6][i / 3] * matrix[p % 6][i % 3] * taps[i];
        transformed[static_cast<size_t>(p * size + c * out_channels + e)] = static_cast<float>(sum);
      }
    }
  for (int p = 0; p < winograd_points; ++p, to += packed_size(channels, out_channels))
    pack(transformed.data() + p * size, channels, out_channels, to);
  for (int64_t e = 0; e < vectors_of(out_channels) * W; ++e)
    to[e] = e < out_channels ? static_cast<float>(value(bias, e)) : 0;
}

// Six neighbours of a row or column of pixels to their values at the six points.
DVMSR_INLINE void winograd_input(const Vector<float> (&d)[6], Vector<float> (&v)[6]) {
  const Vector<float> even_a = fused(splat(-b2), d[2], d[4]), odd_a = fused(splat(-b2), d[1], d[3]);
  const Vector<float> even_b = fused(splat(-a2), d[2], d[4]), odd_b = fused(splat(-a2), d[1], d[3]);
  v[0] = fused(splat(a2 * b2), d[0], fused(splat(-a2 - b2), d[2], d[4]));
  v[1] = fused(splat(point_a), odd_a, even_a);
  v[2] = fused(splat(-point_a), odd_a, even_a);
  v[3] = fused(splat(point_b), odd_b, even_b);
  v[4] = fused(splat(-point_b), odd_b, even_b);
  v[5] = fused(splat(a2 * b2), d[1], fused(splat(-a2 - b2), d[3], d[5]));
}

// Values at the six points to four neighbours, plus an offset.
DVMSR_INLINE void winograd_output(const Vector<float> (&m)[6], Vector<float> offset, Vector<float> (&y)[4]) {
  const Vector<float> sum_a = m[1] + m[2], difference_a = m[1] - m[2];
  const Vector<float> sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  y[0] = (m[0] + offset) + (sum_a + sum_b);
  y[1] = fused(splat(point_a), difference_a, fused(splat(point_b), difference_b, offset));
  y[2] = fused(splat(a2), sum_a, fused(splat(b2), sum_b, offset));
  y[3] = fused(splat(a2 * point_a), difference_a, fused(splat(b2 * point_b), difference_b, m[5] + offset));
}

// A tile's six columns of pixels, each as its values at the six points, for one vector of channels. The last two
// are the first two of the tile on the right: of two neighbours one has its first four columns where the other
// has its last two.
struct Columns {
  static constexpr int64_t size = 2 * 6 * 4 * W;
  Columns(float *memory, int64_t tile)
      : first_four(memory + tile % 2 * size / 2), last_two(memory + (1 - tile % 2) * size / 2) {}
  float *at(int point, int column) const {
    return (column < 4 ? first_four : last_two) + (4 * point + column % 4) * W;
  }
  float *first_four, *last_two;
};

// The 36 values of one vector of channels, `apart` floats from each other, from 6x6 pixels. `continued`: the
// tile on the left has filled in the first two columns.
template <class Pixel>
DVMSR_INLINE void transform_input(const Pixel &pixel, bool continued, const Columns &columns, float *to,
                                  int64_t apart) {
  const auto fill = [&](int j) __attribute__((always_inline)) {
    Vector<float> pixels[6], values[6];
    DVMSR_UNROLL for (int i = 0; i < 6; ++i) pixels[i] = pixel(i, j);
    winograd_input(pixels, values);
    DVMSR_UNROLL for (int i = 0; i < 6; ++i) store(columns.at(i, j), values[i]);
  };
  if (!continued)
    DVMSR_UNROLL for (int j = 0; j < 2; ++j) fill(j);
  DVMSR_UNROLL for (int j = 2; j < 6; ++j) fill(j);
  DVMSR_UNROLL for (int i = 0; i < 6; ++i) {
    Vector<float> row[6], values[6];
    DVMSR_UNROLL for (int j = 0; j < 6; ++j) row[j] = load(columns.at(i, j));
    winograd_input(row, values);
    DVMSR_UNROLL for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * apart, values[j]);
  }
}

template <class Put>
DVMSR_INLINE void transform_output(const float *from, int64_t apart, Vector<float> bias, const Put &put) {
  Vector<float> half_way[4][6];  // [row][point]
  DVMSR_UNROLL for (int j = 0; j < 6; ++j) {
    Vector<float> values[6], column[4];
    DVMSR_UNROLL for (int i = 0; i < 6; ++i) values[i] = load(from + (6 * i + j) * apart);
    winograd_output(values, Vector<float>{}, column);
    DVMSR_UNROLL for (int i = 0; i < 4; ++i) half_way[i][j] = column[i];
  }
  DVMSR_UNROLL for (int i = 0; i < 4; ++i) {
    Vector<float> row[4];
    winograd_output(half_way[i], bias, row);
    DVMSR_UNROLL for (int j = 0; j < 4; ++j) put(i, j, row[j]);
  }
}

// Calls body(first, count) for vectors that cover the channels; the last one overlaps the one before, so that
// all are whole, unless there are fewer channels than lanes.
template <class Body>
DVMSR_INLINE void for_vectors(int64_t channels, const Body &body) {
  if (channels < W) return body(0, channels);
  for (int64_t c = 0; c < channels; c += W) body(std::min(c, channels - W), W);
}

// Tiles of a block: whole groups of a product's rows, few enough that the L2 cache has room for the weights too.
int64_t conv3x3_block(int64_t channels, int64_t out_channels) {
  constexpr int64_t bytes = 240'000;
  const int64_t tile = winograd_points * (vectors_of(channels) + vectors_of(out_channels)) * W * 4;
  return std::max<int64_t>(1, bytes / tile / rows_at_once) * rows_at_once;
}

// The 36 matrices of a block lie this many floats apart, out of each other's way in the L1 cache.
constexpr int64_t conv3x3_gap = 16;
int64_t conv3x3_scratch(int64_t channels, int64_t out_channels) {
  const int64_t row = (vectors_of(channels) + vectors_of(out_channels)) * W;
  return winograd_points * (conv3x3_block(channels, out_channels) * row + 2 * conv3x3_gap) +
         vectors_of(channels) * Columns::size;
}

// Where the tiles of an image lie, and the two sides of the products of a block: 36 matrices each, a row per tile.
struct Conv3x3Block {
  explicit Conv3x3Block(const Conv3x3Tiles &t)
      : across((t.out_width + 3) / 4),
        down((t.out_height + 3) / 4),
        row_in(vectors_of(t.channels) * W),
        row_out(vectors_of(t.out_channels) * W),
        apart_in(conv3x3_block(t.channels, t.out_channels) * row_in + conv3x3_gap),
        apart_out(conv3x3_block(t.channels, t.out_channels) * row_out + conv3x3_gap),
        in(t.scratch),
        out(in + winograd_points * apart_in),
        columns(out + winograd_points * apart_out) {}
  int64_t image(int64_t tile) const { return tile / (across * down); }
  int64_t row(int64_t tile) const { return tile / across % down * 4; }  // of y, as is the column
  int64_t column(int64_t tile) const { return tile % across * 4; }
  int64_t across, down, row_in, row_out, apart_in, apart_out;
  float *in, *out;
  float *columns;  // of each vector of channels
};

template <class Act>
void conv3x3_inputs(const Conv3x3Tiles &t, const Conv3x3Block &b) {
  const int64_t C = t.channels, above = t.above_rows, H = t.height, width = t.width;
  for (int64_t tile = t.first_tile; tile < t.end_tile; ++tile) {
    const int64_t row = b.row(tile) - t.top, column = b.column(tile) - t.left, image = b.image(tile);
    const Act *rows[6];  // from the tile's first column on; NULL: of zeros
    for (int64_t r = 0; r < 6; ++r) {
      const int64_t i = row + r;
      const Act *const first = i < above ? static_cast<const Act *>(t.above) + (image * above + i) * width * C
                                         : static_cast<const Act *>(t.x) + (image * H + i - above) * width * C;
      rows[r] = i >= 0 && i < above + H ? first + column * C : nullptr;
    }
    const bool inside = rows[0] && rows[5] && column >= 0 && column + 6 <= width;
    const bool continued = tile > t.first_tile && b.column(tile) > 0;
    float *memory = b.columns;
    for_vectors(C, [&](int64_t c, int64_t lanes) {
      const Columns columns(memory, tile);
      memory += Columns::size;
      float *const to = b.in + (tile - t.first_tile) * b.row_in + c;
      if (inside && lanes == W)
        transform_input([&](int r, int s) { return load(rows[r] + s * C + c); }, continued, columns, to,
                        b.apart_in);
      else
        transform_input(
            [&](int r, int s) {
              const bool there = rows[r] && column + s >= 0 && column + s < width;
              return there ? load(rows[r] + s * C + c, lanes) : Vector<float>{};
            },
            continued, columns, to, b.apart_in);
    });
  }
}

template <class Act>
void conv3x3_outputs(const Conv3x3Tiles &t, const Conv3x3Block &b) {
  const int64_t E = t.out_channels;
  const float *const bias = t.packed + winograd_points * packed_size(t.channels, E);
  for (int64_t tile = t.first_tile; tile < t.end_tile; ++tile) {
    const int64_t row = b.row(tile), column = b.column(tile);
    const int64_t rows = t.out_height - row, columns = t.out_width - column;
    Act *const y = static_cast<Act *>(t.y) + ((b.image(tile) * t.out_height + row) * t.out_width + column) * E;
    for_vectors(E, [&](int64_t e, int64_t lanes) {
      const float *const from = b.out + (tile - t.first_tile) * b.row_out + e;
      if (rows >= 4 && columns >= 4 && lanes == W)
        transform_output(from, b.apart_out, load(bias + e), [&](int r, int s, Vector<float> v) {
          store(y + (r * t.out_width + s) * E + e, v);
        });
      else
        transform_output(from, b.apart_out, load(bias + e), [&](int r, int s, Vector<float> v) {
          if (r < rows && s < columns) store(y + (r * t.out_width + s) * E + e, v, lanes);
        });
    });
  }
}

// Asks for values to read or write, by number; numbers beyond the array do no harm.
template <bool Write, class Act>
DVMSR_INLINE void ask_for(const void *array, int64_t first, int64_t count) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(array) + static_cast<uintptr_t>(first) * sizeof(Act);
  for (uintptr_t byte = 0; byte < static_cast<uintptr_t>(count) * sizeof(Act); byte += 64)
    __builtin_prefetch(reinterpret_cast<const void *>(address + byte), Write, 2);
}

// Between products, memory fetches the pixels of y and those that the next block has not in common with others.
template <class Act>
void conv3x3_products(const Conv3x3Tiles &t, const Conv3x3Block &b) {
  const int64_t C = t.channels, E = t.out_channels, count = t.end_tile - t.first_tile, rows = 4 * count;
  for (int64_t p = 0; p < winograd_points; ++p) {
    for (int64_t r = p * rows / winograd_points; r < (p + 1) * rows / winograd_points; ++r) {
      const int64_t tile = t.first_tile + r / 4, next = tile + count;
      const int64_t y_row = b.image(tile) * t.out_height + b.row(tile) + r % 4;
      const int64_t x_row = b.image(next) * t.height + b.row(next) - t.top - t.above_rows + 2 + r % 4;
      ask_for<true, Act>(t.y, (y_row * t.out_width + b.column(tile)) * E, 4 * E);
      ask_for<false, Act>(t.x, (x_row * t.width + b.column(next) - t.left + 2) * C, 4 * C);
    }
    product(b.in + p * b.apart_in, b.row_in, count, t.packed + p * packed_size(C, E), C, E, b.out + p * b.apart_out,
            b.row_out);
  }
}

template <class Act>
void conv3x3_forward(const Conv3x3Tiles &t) {
  const Conv3x3Block block(t);
  conv3x3_inputs<Act>(t, block);
  conv3x3_products<Act>(t, block);
  conv3x3_outputs<Act>(t, block);
}

}  // namespace
}  // namespace dvmsr
