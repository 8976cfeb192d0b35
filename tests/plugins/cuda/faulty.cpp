// Kernels with a fault each, to see that the emulated device shows it.
#include <cstdio>
#include <string>

#include "device.cuh"

namespace {

using namespace dvmsr::cuda;

struct Shared {
  Turn turns[32];
  float values[64];
};

// Slice 1 never comes.
void lost_turn(float *out) {
  Shared &shared = shared_memory<Shared>();
  if (threadIdx.x < 32) hand_on(shared.turns[threadIdx.x], 1.f, 0);
  __syncthreads();
  out[threadIdx.x] = wait_for_turn(shared.turns[threadIdx.x % 32], threadIdx.x < 32 ? 0 : 1);
}

void lost_thread(float *) {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

// Reads what another warp has written, with nothing between.
void no_barrier(float *out) {
  Shared &shared = shared_memory<Shared>();
  shared.values[threadIdx.x] = 1.f;
  out[threadIdx.x] = shared.values[63 - threadIdx.x];
}

}  // namespace

int main(int, char **arguments) {
  float out[64];
  const std::string fault = arguments[1];
  const auto kernel = fault == "turn" ? lost_turn : fault == "thread" ? lost_thread : no_barrier;
  launch(kernel, 1, 64, nullptr, static_cast<float *>(out));
  std::printf("nothing found\n");
  return 0;
}
