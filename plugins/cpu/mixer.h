// A MambaMixer's weights as its kernels read them, and the blocks of tokens that it is computed in.
#pragma once

#include <cstdint>

#include "dvmsr_ops.h"

namespace dvmsr {

// Tokens that are computed at a time, at most: with all that is known of them they stay in the cache; and at
// least, of a sequence that several threads share.
constexpr int64_t mixer_tokens = 96, fewest_mixer_tokens = 12;

// Rows of channels are padded with zeros to whole vectors, matrices packed as in products.h.
struct Mixer {
  dvmsr_dtype dtype;
  float epsilon;
  int64_t channels, inner, state, rank, width, out_channels;  // C, D, N, R, K, E
  int64_t stride;     // from a token to the next where there is a value for each inner channel
  int64_t projected;  // from a token to the next of x_proj's results
  bool has_norm, has_in_proj, has_out_proj;
  float *norm_weight, *norm_bias;
  float *in_proj_x, *in_proj_z;
  float *taps;  // (K, D)
  float *conv_bias;
  float *x_proj;   // (D, N + N + R): B, C and dt
  float *dt_proj;  // (R, D)
  float *A;        // (D, N), as it was
  float *D, *delta_bias;
  float *out_proj;
};

// What is known of a block of tokens between the steps of its computation.
struct MixerBlock {
  float *u;                 // (tokens, stride); the scan puts y there
  float *delta, *z;         // (tokens, stride)
  float *B, *C;             // (tokens, N)
};

// Tokens [first, end) of one batch element, at most mixer_tokens of them.
struct MixerTile {
  const Mixer *mixer;
  int64_t first_token, end_token;
  const void *x, *tail;  // of the batch element
  void *y;
  void *new_tail;        // of the batch element, where end_token is L; else null
  MixerBlock block;
  float *scratch;        // mixer_scratch() values
};

}  // namespace dvmsr
