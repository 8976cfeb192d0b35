// How each tactic cuts a sequence into parts, and which one a model of the running time prefers.
#pragma once

#include "selective_scan.h"

namespace dvmsr::cuda {

// How many parts a plan makes of the sequence, at least one.
int64_t parts_of(const dvmsr_cuda_scan_params &p, const dvmsr_cuda_scan_plan &plan);

// Floats of workspace for so many parts.
int64_t workspace_of(const dvmsr_cuda_scan_params &p, dvmsr_cuda_scan_variant variant, int64_t parts);

}  // namespace dvmsr::cuda
