#include "scan_relay.cuh"

template cudaError_t dvmsr::cuda::relay::scan<float>(const dvmsr_cuda_scan_params &, const Ranges &, cudaStream_t);
