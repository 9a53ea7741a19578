// The blocked source over one instruction set's vectors, and the table of its functions: last in
// every primitives_*.cc, which includes its simd_*.h and integers_*.h and names the table by
// STRATA_PRIMITIVES.
#pragma once

#include "kernels/cpu/integers.inc.h"
#include "kernels/cpu/peaks.inc.h"
#include "kernels/cpu/pointwise.inc.h"
#include "kernels/cpu/products.inc.h"

// Attention uses what pointwise defines.
#include "kernels/cpu/attention.inc.h"

namespace strata::kernels::cpu {

const Primitives& STRATA_PRIMITIVES() {
  static constexpr Primitives kTable = {
      .product_bf16 = product_bf16,
      .product_mxfp4 = product_mxfp4,
      .product_i8 = product_i8,
      .quantise = quantise,
      .norm = norm,
      .swiglu = swiglu,
      .attend_f32 = attend<float>,
      .attend_bf16 = attend<Bf16Bits>,
      .peak_floats = peak_floats,
      .peak_integers = peak_integers,
      .floats_per_round = kFloatPeakSums * 16,
      .integers_per_round = Int::kPeakSums * 64,
  };
  return kTable;
}

}  // namespace strata::kernels::cpu
