// What a plan of the scan means for a call.
#pragma once

#include "selective_scan.h"

namespace dvmsr::cuda {

// How many parts a plan makes of the sequence, at least one.
int64_t parts_of(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan);

}  // namespace dvmsr::cuda
