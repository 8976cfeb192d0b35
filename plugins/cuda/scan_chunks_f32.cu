#include "scan_chunks.cuh"

template cudaError_t dvmsr::cuda::scan<float>(const dvmsr_cuda_scan_params &, int32_t, Edges, cudaStream_t);
