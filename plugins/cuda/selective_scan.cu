// The C interface of the scan: checks the arguments, places the workspace, chooses the chunk length.
#include "scan_chunks.cuh"

#include <algorithm>
#include <iterator>

namespace dvmsr::cuda {
namespace {

constexpr int32_t kTactics[] = {64,  128,  192,  256,  384,  512,
                                768, 1024, 1536, 2048, 4096, DVMSR_CUDA_SCAN_WHOLE};

int64_t chunks_of(const dvmsr_cuda_scan_params &p, int32_t chunk) {
  return std::max<int64_t>(1, ceil_div(p.length, chunk));
}

// A model of the running time. The unit is the time in which a busy multiprocessor takes one block
// one token further; a lone block takes longer, for it cannot hide its latencies. The constants are
// estimates from instruction counts: where it matters, time the tactics.
int64_t cost(const dvmsr_cuda_scan_params &p, int32_t chunk, int64_t multiprocessors) {
  constexpr int64_t hidden = 2;      // blocks that keep a multiprocessor busy
  constexpr int64_t carried = 128;   // tokens until the state before a chunk is forgotten
  constexpr int64_t launches = 60;   // two more kernels
  constexpr int64_t joined = 4;      // chunks that are joined in a unit of time
  const int64_t chunks = chunks_of(p, chunk), length = std::min<int64_t>(chunk, p.length);
  const int64_t blocks = p.batch * channel_blocks(p) * chunks;
  const int64_t resident = std::max(hidden, ceil_div(blocks, multiprocessors));
  if (chunks == 1) return resident * length;
  return resident * (length + std::min(length, carried)) + launches + chunks / joined;
}

}  // namespace
}  // namespace dvmsr::cuda

using namespace dvmsr::cuda;

int32_t dvmsr_cuda_scan_tactics(const int32_t **lengths) {
  *lengths = kTactics;
  return static_cast<int32_t>(std::size(kTactics));
}

int32_t dvmsr_cuda_scan_best_chunk(const dvmsr_cuda_scan_params *params, int32_t multiprocessors) {
  int32_t best = DVMSR_CUDA_SCAN_WHOLE;
  if (!valid_sizes(*params) || params->batch == 0 || multiprocessors <= 0) return best;
  // Lengths that give every multiprocessor equally many blocks, in whole tiles.
  const int64_t columns = params->batch * channel_blocks(*params);
  for (int64_t blocks = 1; blocks <= 16; ++blocks) {
    const int64_t chunks = std::max<int64_t>(1, blocks * multiprocessors / columns);
    const int64_t chunk = ceil_div(ceil_div(params->length, chunks), kTile) * kTile;
    if (chunk == 0 || chunk > INT32_MAX) continue;
    const int32_t candidate = static_cast<int32_t>(chunk);
    if (cost(*params, candidate, multiprocessors) < cost(*params, best, multiprocessors)) best = candidate;
  }
  return best;
}

size_t dvmsr_cuda_scan_workspace_size(const dvmsr_cuda_scan_params *params, int32_t chunk) {
  if (!valid_sizes(*params) || chunk <= 0) return 0;
  const int64_t chunks = chunks_of(*params, chunk);
  if (chunks == 1) return 0;
  return static_cast<size_t>(params->batch * chunks * params->channels * (params->state + 1)) * sizeof(float);
}

int dvmsr_cuda_selective_scan(const dvmsr_cuda_scan_params *params, int32_t chunk, void *workspace,
                              cudaStream_t stream) {
  const dvmsr_cuda_scan_params &p = *params;
  if (!valid_sizes(p) || !valid_strides(p) || !valid_stride(p.y_stride, p.channels) || chunk <= 0)
    return cudaErrorInvalidValue;
  if (p.batch == 0) return cudaSuccess;
  Edges edges{static_cast<float *>(workspace), nullptr, chunks_of(p, chunk)};
  if (edges.chunks > 1) {
    if (!workspace) return cudaErrorInvalidValue;
    edges.sums = edges.states + p.batch * edges.chunks * p.channels * p.state;
  }
  switch (p.dtype) {
    case DVMSR_CUDA_F32: return scan<float>(p, chunk, edges, stream);
    case DVMSR_CUDA_F16: return scan<__half>(p, chunk, edges, stream);
    case DVMSR_CUDA_BF16: return scan<__nv_bfloat16>(p, chunk, edges, stream);
  }
  return cudaErrorInvalidValue;
}
