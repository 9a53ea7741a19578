#include "kernels/cpu/simd_avx2.h"

// The blocked source, over the vector above; attention uses what pointwise defines.
#include "kernels/cpu/pointwise.inc.h"
#include "kernels/cpu/products.inc.h"

#include "kernels/cpu/attention.inc.h"

namespace strata::kernels::cpu {

const Primitives& avx2_primitives() {
  static constexpr Primitives kTable = {
      .product_bf16 = product<Bf16Rows>,
      .product_mxfp4 = product<Mxfp4Rows>,
      .norm = norm,
      .swiglu = swiglu,
      .attend_f32 = attend<float>,
      .attend_bf16 = attend<Bf16Bits>,
  };
  return kTable;
}

}  // namespace strata::kernels::cpu
