#include "kernels/cpu/simd_scalar.h"

#include "kernels/cpu/integers_scalar.h"

#define STRATA_PRIMITIVES scalar_primitives
#include "kernels/cpu/primitives.inc.h"
