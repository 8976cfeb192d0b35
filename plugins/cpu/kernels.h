// The CPU kernels as tiles: rectangles of tokens x channels of one batch element, run to the end by
// one thread. Splitting the work into tiles and allocating their scratch is operators.cpp's job; the
// tiles themselves allocate nothing and cannot fail. One table of them exists per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mixer.h"

namespace dvmsr {

// Pointers address one batch element, B and C its first row of the tile's group of channels; "act" and
// "par" types as in dvmsr_ops.h. z is null where there is no gate.
struct ScanTile {
  int64_t channels, state;                           // D, N
  int64_t row_stride;                                // from one row of B or C to the next: G N
  int64_t length;                                    // L
  bool delta_softplus;
  bool channel_major;                                // u, delta, z, y (D, L); B, C (N, L) of the group
  int64_t first_token, end_token;                    // [first, end) of the L tokens
  int64_t first_channel, end_channel;                // of one group
  const void *u, *delta, *A, *B, *C, *D, *delta_bias, *z;
  const void *h_first;  // (D, N) state before first_token; null: zero
  void *y;
  void *h_end;      // (D, N) state after end_token
  void *delta_sum;  // (D) sum of delta after bias and softplus; null: not wanted
  void *scratch;    // scan_forward_scratch() elements of the parameter type
};

struct ScanBackwardTile {
  int64_t length, channels, state;  // L, D, N: a tile spans all tokens
  int64_t row_stride;
  bool delta_softplus, channel_major;
  int64_t first_channel, end_channel;
  const void *u, *delta, *A, *B, *C, *D, *delta_bias, *h0, *z;
  const void *y_grad, *h_last_grad;
  void *u_grad, *delta_grad, *h0_grad, *z_grad;
  void *A_grad, *D_grad, *delta_bias_grad;  // of this batch element alone
  void *B_grad, *C_grad;                    // (L, N) of these channels alone; channel-major: (N, L)
  void *scratch;                            // scan_backward_scratch() elements
};

struct ConvTile {
  int64_t channels, width;         // D, K
  bool activation;
  int64_t first_token, end_token;  // [first, end) of the L tokens
  const void *x, *weight, *bias, *tail;
  void *y;
  void *scratch;  // conv_forward_scratch() elements of the parameter type
};

struct ConvBackwardTile {
  int64_t length, channels, width;  // L, D, K
  bool activation;
  int64_t first_channel, end_channel;
  const void *x, *weight, *bias, *tail;
  const void *y_grad, *new_tail_grad;
  void *x_grad, *tail_grad;
  void *weight_grad, *bias_grad;  // of this batch element alone
  void *scratch;                  // conv_backward_scratch() elements
};

// Tiles of 4x4 pixels of y, numbered row by row through all batch elements.
struct Conv3x3Tiles {
  int64_t channels, out_channels;           // C, E
  int64_t height, width, top, left;         // of x, and the rows and columns of zeros
  int64_t above_rows;                       // between those and x
  int64_t out_height, out_width;
  int64_t first_tile, end_tile;             // at most conv3x3_block() of them
  const void *x, *above;
  const float *packed;
  void *y;
  float *scratch;  // conv3x3_scratch() values
};

struct Kernels {
  const char *isa;
  int64_t lanes;  // channels per vector

  int64_t (*scan_forward_scratch)(int64_t tile_channels, int64_t state, bool channel_major);
  int64_t (*scan_backward_scratch)(int64_t length, int64_t tile_channels, int64_t state,
                                   bool channel_major);
  int64_t (*conv_forward_scratch)(int64_t channels, int64_t width);
  int64_t (*conv_backward_scratch)(int64_t tile_channels, int64_t width);

  // Indexed by dvmsr_dtype; null where a type is not supported.
  void (*scan_forward[3])(const ScanTile &);
  // Adds to y what the state h_first contributes to a tile that was scanned from zero.
  void (*scan_add_initial_state[3])(const ScanTile &);
  // state = exp(A * delta_sum) * previous + state, all (D, N); joins two neighbouring tiles.
  void (*scan_join[3])(int64_t channels, int64_t state, const void *A, const void *delta_sum,
                       const void *previous, void *h_end);
  void (*scan_backward[3])(const ScanBackwardTile &);
  void (*conv_forward[3])(const ConvTile &);
  void (*conv_backward[3])(const ConvBackwardTile &);

  // Indexed by dvmsr_dtype, without FP64. Packing fills mixer_packed_size() values and sets what of the
  // mixer is not its sizes, its epsilon or what it has.
  int64_t (*mixer_packed_size)(const Mixer &);
  void (*mixer_pack[2])(const dvmsr_mixer_weights &, Mixer &, float *packed);
  int64_t (*mixer_scratch)(const Mixer &);
  void (*mixer_before[2])(const MixerTile &);  // up to the scan
  void (*mixer_after[2])(const MixerTile &);   // from the scan to y
  // The scan of channels [first, end), begun in mixer_scan_size bytes of memory, with
  // mixer_scan_scratch() values; it is run on one block of tokens after the other.
  size_t mixer_scan_size;
  int64_t (*mixer_scan_scratch)(int64_t channels, int64_t state);
  void (*mixer_scan_begin)(void *scan, const Mixer &, int64_t first, int64_t end, const float *h0,
                           float *h_last, void *scratch);
  void (*mixer_scan_run)(void *scan, const MixerBlock &, int64_t tokens);
  void (*mixer_scan_end)(void *scan);

  // Of C and E: tiles that are computed at a time, values of scratch for them, and of the packed weights.
  int64_t (*conv3x3_block)(int64_t channels, int64_t out_channels);
  int64_t (*conv3x3_scratch)(int64_t channels, int64_t out_channels);
  int64_t (*conv3x3_packed_size)(int64_t channels, int64_t out_channels);
  // Indexed by dvmsr_dtype, without FP64.
  void (*conv3x3_pack[2])(int64_t channels, int64_t out_channels, const void *weight, const void *bias,
                          float *packed);
  void (*conv3x3_forward[2])(const Conv3x3Tiles &);
};

// Those for this machine and DVMSR_ISA.
const Kernels &kernels();

extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;    // x86-64 only
extern const Kernels kernels_avx512;  // x86-64 only

}  // namespace dvmsr
