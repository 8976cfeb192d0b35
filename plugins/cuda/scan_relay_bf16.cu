#include "scan_relay.cuh"

template cudaError_t dvmsr::cuda::relay::scan<__nv_bfloat16>(const dvmsr_cuda_scan_params &, const Ranges &, cudaStream_t);
