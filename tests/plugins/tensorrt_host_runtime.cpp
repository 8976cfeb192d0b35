// The CUDA runtime's part in the plugin, for kernels that run on the host: a device with four multiprocessors.
#include <cuda_runtime_api.h>

extern "C" {

cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) { return *value = 4, cudaSuccess; }
const char *cudaGetErrorString(cudaError_t status) { return status ? "an error" : "no error"; }

}
