// g++ 12 takes the undefined pass-through operands inside its own AVX-512 header for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/integers_avx512.h"

#define STRATA_PRIMITIVES avx512_primitives
#include "kernels/cpu/primitives.inc.h"
