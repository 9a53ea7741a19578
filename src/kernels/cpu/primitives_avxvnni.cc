#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/integers_avx2.h"

#define STRATA_PRIMITIVES avxvnni_primitives
#include "kernels/cpu/primitives.inc.h"
