// One packed mixer and one packed convolution, called from several threads at once with several threads
// each; prints whether all results are equal to the bit to those of one thread. The thread sanitizer ends
// it where threads race.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "dvmsr_ops.h"

namespace {

using Floats = std::vector<float>;

// About as large as what the operators see.
Floats values(int64_t count, int seed) {
  Floats made(static_cast<size_t>(count));
  uint32_t state = 12345u + static_cast<uint32_t>(seed);
  for (float &value : made) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
  }
  return made;
}

constexpr int64_t B = 2, L = 700, C = 6, D = 40, N = 16, R = 2, K = 4, E = 5;
constexpr int64_t H = 40, W = 50;

struct Mixer {
  Mixer() {
    Floats A = values(D * N, 9);
    for (float &value : A) value = value - 1;
    const Floats norm = values(C, 1), in_x = values(C * D, 2), in_z = values(C * D, 3), taps = values(D * K, 4),
                 dt = values(D * R, 5), rows = values(D * N, 6), dt_proj = values(R * D, 7), of_channels = values(D, 8),
                 out = values(D * E, 10);
    const dvmsr_mixer_weights weights = {
        DVMSR_F32, 1e-5f, C, D, N, R, K, E, norm.data(), norm.data(), in_x.data(), in_z.data(), taps.data(),
        of_channels.data(), dt.data(), rows.data(), rows.data(), dt_proj.data(), A.data(), of_channels.data(),
        of_channels.data(), out.data()};
    if (dvmsr_mixer_pack(&weights, &packed)) packed = nullptr;
  }
  ~Mixer() { dvmsr_mixer_free(packed); }
  // y, new_tail and h_last; nothing where it fails.
  Floats run(int threads) const {
    const Floats x = values(B * L * C, 11), tail = values(B * (K - 1) * D, 12), h0 = values(B * D * N, 13);
    Floats y(static_cast<size_t>(B * L * E)), new_tail(tail.size()), h_last(h0.size());
    const dvmsr_mixer_inputs in = {B, L, x.data(), tail.data(), h0.data()};
    const dvmsr_mixer_outputs out = {y.data(), new_tail.data(), h_last.data()};
    const dvmsr_executor executor = {threads, nullptr, nullptr};
    if (!packed || dvmsr_mamba_mixer_forward(packed, &in, &out, &executor)) return {};
    y.insert(y.end(), new_tail.begin(), new_tail.end());
    y.insert(y.end(), h_last.begin(), h_last.end());
    return y;
  }
  dvmsr_mixer *packed = nullptr;
};

struct Convolution {
  Convolution() {
    const Floats weight = values(E * C * 9, 14), bias = values(E, 15);
    const dvmsr_conv3x3_weights weights = {DVMSR_F32, C, E, weight.data(), bias.data()};
    if (dvmsr_conv3x3_pack(&weights, &packed)) packed = nullptr;
  }
  ~Convolution() { dvmsr_conv3x3_free(packed); }
  Floats run(int threads) const {
    const Floats x = values(B * H * W * C, 16);
    Floats y(static_cast<size_t>(B * H * W * E));
    const dvmsr_conv3x3_inputs in = {B, H, W, 1, 1, 1, 1, 0, x.data(), nullptr};
    const dvmsr_executor executor = {threads, nullptr, nullptr};
    if (!packed || dvmsr_conv3x3_forward(packed, &in, y.data(), &executor)) return {};
    return y;
  }
  dvmsr_conv3x3 *packed = nullptr;
};

// From three threads at once.
template <class Operator>
bool same(const Operator &op) {
  const Floats expected = op.run(1);
  std::vector<Floats> results(3);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < results.size(); ++i)
    callers.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) results[i] = op.run(static_cast<int>(i) + 3);
    });
  for (std::thread &caller : callers) caller.join();
  bool equal = !expected.empty();
  for (const Floats &result : results)
    equal = equal && result.size() == expected.size() &&
            !std::memcmp(result.data(), expected.data(), expected.size() * sizeof(float));
  return equal;
}

}  // namespace

int main() {
  const bool equal = same(Mixer()) && same(Convolution());
  std::puts(equal ? "equal" : "differs");
  return 0;
}
