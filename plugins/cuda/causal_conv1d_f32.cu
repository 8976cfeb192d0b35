#include "causal_conv1d.cuh"

template cudaError_t dvmsr::cuda::conv<float>(const dvmsr_cuda_conv_params &, cudaStream_t);
