// One table of kernels. Compiled once per instruction set, with DVMSR_ISA naming it, DVMSR_LANES its
// FP32 vector width, and the compiler flags that allow it.
#include <type_traits>
#include <utility>

#include "conv3x3_tiles.h"
#include "conv_tiles.h"
#include "mixer_tiles.h"
#include "scan_backward.h"
#include "scan_layouts.h"
#include "scan_tiles.h"

#define DVMSR_JOIN(a, b) a##b
#define DVMSR_TABLE(isa) DVMSR_JOIN(kernels_, isa)
#define DVMSR_TEXT_OF(isa) #isa
#define DVMSR_TEXT(isa) DVMSR_TEXT_OF(isa)

namespace dvmsr {

const Kernels DVMSR_TABLE(DVMSR_ISA) = {
    DVMSR_TEXT(DVMSR_ISA),
    W,
    scan_forward_scratch,
    scan_backward_scratch,
    conv_forward_scratch,
    conv_backward_scratch,
    {scan_forward<float, float>, scan_forward<float, half>, scan_forward<double, double>},
    {scan_add_initial_state<float, float>, scan_add_initial_state<float, half>,
     scan_add_initial_state<double, double>},
    {scan_join<float>, scan_join<float>, scan_join<double>},
    {scan_backward<float>, nullptr, scan_backward<double>},
    {conv_forward<float, float>, conv_forward<float, half>, conv_forward<double, double>},
    {conv_backward<float>, nullptr, conv_backward<double>},
    mixer_packed_size,
    {mixer_pack<float>, mixer_pack<half>},
    mixer_scratch,
    {mixer_before<float>, mixer_before<half>},
    {mixer_after<float>, mixer_after<half>},
    sizeof(MixerScan),
    token_major_scratch,
    mixer_scan_begin,
    mixer_scan_run,
    mixer_scan_end,
    conv3x3_block,
    conv3x3_scratch,
    conv3x3_packed_size,
    {conv3x3_pack<float>, conv3x3_pack<half>},
    {conv3x3_forward<float>, conv3x3_forward<half>},
};

}  // namespace dvmsr
