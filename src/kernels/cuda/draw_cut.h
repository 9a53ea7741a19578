// What top-k, top-p and min-p keep of a row's candidates, in integers, so that it depends on
// neither the order in which ids are looked at nor the number of threads.
//
// All three keep the first of one order: descending logits, of equal ones the lower id first. So
// what a row keeps is told by the last candidate that is in, the cut. A count (top-k) or a mass
// (top-p) that has to be reached is found digit by digit of order_of(logit), from the highest: one
// scan adds up what each value of the digit holds, among candidates whose higher digits are known
// to be the cut's. Of candidates that equal the cut's logit, ids decide. Masses are fixed-point
// numbers, so their sums are exact; HostSampler sums doubles, which could only differ where a sum
// meets top_p to 11 digits.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/on_both.h"

namespace strata::kernels::cuda {

// An integer that is greater for a greater logit; 0 for what is no candidate: NaN and -infinity.
STRATA_ON_BOTH inline std::uint32_t order_of(float logit) {
  constexpr std::uint32_t kSign = 0x80000000U;
  const auto bits = __builtin_bit_cast(std::uint32_t, logit);
  if ((bits & ~kSign) == 0) return kSign;  // both zeros
  if ((bits & ~kSign) > 0x7f800000U || bits == 0xff800000U) return 0;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}
STRATA_ON_BOTH inline float logit_of(std::uint32_t order) {
  constexpr std::uint32_t kSign = 0x80000000U;
  return __builtin_bit_cast(float, (order & kSign) != 0 ? order & ~kSign : ~order);
}
inline constexpr std::uint32_t kInfiniteOrder = 0xff800000U;
inline constexpr std::int32_t kEveryId = 0x7fffffff;

inline constexpr int kCutDigits = 3;
inline constexpr int kCutDigitBits = 11;
inline constexpr int kCutBins = 1 << kCutDigitBits;
STRATA_ON_BOTH constexpr int cut_shift(int digit) {
  return (kCutDigits - 1 - digit) * kCutDigitBits;
}
STRATA_ON_BOTH constexpr std::uint32_t cut_digit(std::uint32_t order, int digit) {
  return (order >> cut_shift(digit)) & (kCutBins - 1);
}

// Candidates behind (order, last_id) are out.
struct DrawCut {
  std::uint32_t best = 0;  // order of the best candidate; 0: there is none
  std::uint32_t order = 1;
  std::int32_t last_id = kEveryId;  // of those of `order`
  std::uint32_t digits = 0;         // of the cut that is being looked for, as far as they are known
  std::uint64_t wanted = 0;         // of what follows candidates of higher digits
};

STRATA_ON_BOTH inline bool keeps(const DrawCut& cut, std::uint32_t order, std::int32_t id) {
  return order > cut.order || (order == cut.order && id <= cut.last_id);
}
STRATA_ON_BOTH inline void narrow(DrawCut& cut, std::uint32_t order, std::int32_t last_id) {
  if (order < cut.order || (order == cut.order && last_id >= cut.last_id)) return;
  cut.order = order;
  cut.last_id = last_id;
}
// A row without any cannot be drawn from, nor, as HostSampler has it, one with an infinite logit.
STRATA_ON_BOTH inline bool has_candidates(const DrawCut& cut) {
  return cut.best != 0 && cut.best != kInfiniteOrder;
}

STRATA_ON_BOTH inline double score_of(std::uint32_t order, double scale) {
  return static_cast<double>(logit_of(order)) * scale;
}

// The lowest order whose score is at least the best's + reach.
STRATA_ON_BOTH inline std::uint32_t lowest_in_reach(std::uint32_t best, double scale,
                                                    double reach) {
  const double floor = score_of(best, scale) + reach;
  std::uint32_t in = best;
  std::uint32_t out = 0x007fffffU;  // of -infinity
  while (in - out > 1) {
    const std::uint32_t middle = out + (in - out) / 2;
    (score_of(middle, scale) >= floor ? in : out) = middle;
  }
  return in;
}

// exp(score - best) in float32, as HostSampler has it, in units of 2^-44: the sum of 2^19 ids fits.
STRATA_ON_BOTH inline std::uint64_t mass_of(std::uint32_t order, std::uint32_t best, double scale) {
  constexpr double kUnits = 17592186044416.0;
  const auto distance = static_cast<float>(score_of(order, scale) - score_of(best, scale));
  const auto mass = static_cast<float>(exp(static_cast<double>(distance)));
  return static_cast<std::uint64_t>(rint(static_cast<double>(mass) * kUnits));
}

// Which digit a scan looks at, and what of.
struct CutScan {
  bool mass = false;  // else a count
  int digit = 0;
  STRATA_ON_BOTH bool first() const { return !mass && digit == 0; }  // finds the best as well
  STRATA_ON_BOTH bool last_digit() const { return digit == kCutDigits - 1; }
};

// What a candidate adds to the bin of its digit. Counts are of all candidates, masses of those that
// counts and reach have left.
STRATA_ON_BOTH inline std::uint64_t cut_value(const DrawCut& cut, CutScan scan, std::uint32_t order,
                                              std::int32_t id, double scale) {
  const std::uint64_t higher = static_cast<std::uint64_t>(order) >> cut_shift(scan.digit);
  if (order == 0 || higher >> kCutDigitBits != cut.digits) return 0;
  if (!scan.mass) return 1;
  return keeps(cut, order, id) ? mass_of(order, cut.best, scale) : 0;
}

// What has to be reached, of a scan's `total`: at least something if there is something.
STRATA_ON_BOTH inline std::uint64_t wanted_count(std::int32_t top_k, std::uint64_t total) {
  const auto k = static_cast<std::uint64_t>(top_k);
  return k < total ? k : total;
}
STRATA_ON_BOTH inline std::uint64_t wanted_mass(double top_p, std::uint64_t total) {
  const auto wanted = static_cast<std::uint64_t>(ceil(top_p * static_cast<double>(total)));
  return wanted < 1 ? 1 : (wanted < total ? wanted : total);
}

// The bin in which `wanted` is reached, coming from the highest.
struct CutBin {
  std::uint32_t digit = 0;
  std::uint64_t above = 0;  // in higher bins
  std::uint64_t value = 0;  // in this one
};
STRATA_ON_BOTH inline void take_digit(DrawCut& cut, const CutBin& bin) {
  cut.digits = cut.digits << kCutDigitBits | bin.digit;
  cut.wanted -= bin.above;
}
// With all digits known: how many candidates of that order are in; 0: all that the bin counted.
STRATA_ON_BOTH inline std::uint64_t kept_equals(const DrawCut& cut, CutScan scan, const CutBin& bin,
                                                double scale) {
  const std::uint64_t one = scan.mass ? mass_of(cut.digits, cut.best, scale) : 1;
  const std::uint64_t kept = (cut.wanted + one - 1) / one;
  return kept * one >= bin.value ? 0 : kept;
}

}  // namespace strata::kernels::cuda
