// How each tactic cuts a sequence into parts, which one a model of the running time prefers, and the workspace.
#include "scan_plan.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "scan_chunks.cuh"
#include "scan_relay.cuh"

namespace dvmsr::cuda {
namespace {

// As many parts as give every multiprocessor so many blocks; 0: one part.
struct Tactic {
  dvmsr_cuda_scan_variant variant;
  int32_t blocks;
};
constexpr Tactic kTactics[] = {
    {DVMSR_CUDA_SCAN_RELAY, 0},  {DVMSR_CUDA_SCAN_RELAY, 1},  {DVMSR_CUDA_SCAN_RELAY, 2},  {DVMSR_CUDA_SCAN_RELAY, 3},
    {DVMSR_CUDA_SCAN_RELAY, 4},  {DVMSR_CUDA_SCAN_CHUNKS, 0}, {DVMSR_CUDA_SCAN_CHUNKS, 1}, {DVMSR_CUDA_SCAN_CHUNKS, 2},
    {DVMSR_CUDA_SCAN_CHUNKS, 4}};

// No device has more multiprocessors; of one that has, as many are reckoned with.
constexpr int64_t kMostMultiprocessors = 256;

constexpr int64_t kStep = 16;  // tokens, of which lengths are multiples
static_assert(kStep % relay::kTokens == 0 && kStep % kTile == 0, "parts are of whole slices and whole tiles");

// Blocks that take one part.
int64_t blocks_of_part(const dvmsr_cuda_scan_params &p, dvmsr_cuda_scan_variant variant) {
  return p.batch * (variant == DVMSR_CUDA_SCAN_RELAY ? relay::columns_of(p) : channel_blocks(p));
}

int64_t most_parts(const dvmsr_cuda_scan_params &p, const Tactic &tactic, int64_t multiprocessors) {
  return std::max<int64_t>(1, tactic.blocks * multiprocessors / blocks_of_part(p, tactic.variant));
}

dvmsr_cuda_scan_plan plan_of(const dvmsr_cuda_scan_params &p, const Tactic &tactic, int64_t multiprocessors) {
  const int64_t parts = most_parts(p, tactic, multiprocessors);
  const int64_t length = ceil_div(std::max<int64_t>(1, ceil_div(p.length, parts)), kStep) * kStep;
  const bool whole = parts == 1 || length >= p.length;
  return {tactic.variant, whole ? DVMSR_CUDA_SCAN_WHOLE : static_cast<int32_t>(length)};
}

// Predicted cycles. The constants are instruction counts and latencies of machine code (docs/cuda-scan.md), and no
// GPU has confirmed them: where it matters, time the tactics.
double cost(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan, int64_t multiprocessors) {
  constexpr double schedulers = 4;
  constexpr double launch = 3500;
  const double N = static_cast<double>(p.state), parts = static_cast<double>(parts_of(p, plan));
  const double length = static_cast<double>(std::min<int64_t>(plan.length, p.length));
  const double blocks = static_cast<double>(blocks_of_part(p, plan.variant)) * parts;
  const double turns = std::ceil(blocks / static_cast<double>(multiprocessors));  // of the busiest multiprocessor
  if (plan.variant == DVMSR_CUDA_SCAN_RELAY) {
    constexpr double fill = 6000;       // until all warps of a block have their states
    constexpr double forgotten = 1500;  // tokens after which most states are, each for itself
    const double token = (40 + 10 * N) / schedulers, reach = (10 + 8 * N) / schedulers;
    const double walk = turns * (length * token + fill);
    return parts == 1 ? walk : walk + launch + turns * std::min(length, forgotten) * reach + 40 * parts;
  }
  // A block has a warp for every scheduler, which stays idle for half of the time where it has no other.
  const double resident = std::min(turns, 4.0), rounds = turns / resident;
  constexpr double forgotten = 4000;  // tokens after which all states of a warp are
  const double token = (50 + 10 * N) * std::max(resident, 2.0), correction = (40 + 8 * N) * std::max(resident, 2.0);
  const double walk = rounds * length * token;
  if (parts == 1) return walk;
  return walk + rounds * std::min(length, forgotten) * correction + 2 * launch + 40 * parts;
}

// In floats.
int64_t workspace_of(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan) {
  const int64_t parts = parts_of(p, plan);
  if (parts == 1) return 0;
  if (plan.variant == DVMSR_CUDA_SCAN_CHUNKS) return p.batch * parts * p.channels * (p.state + 1);
  return p.batch * (parts - 1) * relay::columns_of(p) * relay::workspace_of_column(p);
}

}  // namespace

int64_t parts_of(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan) {
  return std::max<int64_t>(1, ceil_div(p.length, plan.length));
}

}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

int32_t dvmsr_cuda_scan_tactics() { return static_cast<int32_t>(std::size(kTactics)); }

dvmsr_cuda_scan_plan dvmsr_cuda_scan_plan_of(const dvmsr_cuda_scan_params *params, int32_t tactic,
                                             int32_t multiprocessors) {
  const dvmsr_cuda_scan_params &p = *params;
  dvmsr_cuda_scan_plan best{DVMSR_CUDA_SCAN_RELAY, DVMSR_CUDA_SCAN_WHOLE};
  if (!valid_sizes(p) || p.batch == 0 || multiprocessors <= 0) return best;
  const int64_t device = std::min<int64_t>(multiprocessors, kMostMultiprocessors);
  if (tactic < 0 || tactic > dvmsr_cuda_scan_tactics()) return {DVMSR_CUDA_SCAN_RELAY, 0};
  if (tactic > 0) return plan_of(p, kTactics[tactic - 1], device);
  for (const Tactic &one : kTactics) {
    const dvmsr_cuda_scan_plan plan = plan_of(p, one, device);
    if (cost(p, plan, device) < cost(p, best, device)) best = plan;
  }
  return best;
}

size_t dvmsr_cuda_scan_workspace_size(const dvmsr_cuda_scan_params *params, dvmsr_cuda_scan_plan plan) {
  if (!valid_sizes(*params) || plan.length <= 0) return 0;
  return static_cast<size_t>(workspace_of(*params, plan)) * sizeof(float);
}

size_t dvmsr_cuda_scan_largest_workspace(const dvmsr_cuda_scan_params *params) {
  const dvmsr_cuda_scan_params &p = *params;
  if (!valid_sizes(p) || p.batch == 0) return 0;
  int64_t most = 0;
  for (const Tactic &tactic : kTactics) {
    // Fewer blocks for a part, as smaller sizes have, make room for more parts: the product is what is bounded.
    const int64_t of_part = blocks_of_part(p, tactic.variant);
    const int64_t blocks = std::min(tactic.blocks * kMostMultiprocessors, of_part * ceil_div(p.length, kStep));
    const int64_t of_block = tactic.variant == DVMSR_CUDA_SCAN_RELAY ? relay::workspace_of_column(p)
                                                                     : std::min<int64_t>(p.channels, kThreads) * (p.state + 1);
    most = std::max(most, blocks * of_block);
  }
  return static_cast<size_t>(most) * sizeof(float);
}
