// SlabLayout: the one layout of an expert's weights on disk, in RAM and for CPU kernels.
//
// Rows are the checkpoint's own (gate_up rows interleaved gate, up, gate, up, ...), so a slab is
// made by copying pieces, never by repacking. Pieces start on 256-byte boundaries; the slab is
// padded to 4 KiB. MXFP4: blocks [rows, K/32, 16] bytes, byte j of a block = element 2j (low
// nibble) and 2j+1 (high); scales [rows, K/32] E8M0. bf16 experts: weights [rows, K] in `blocks`.
// Biases are bf16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/model_config.h"

namespace strata::kernels {

struct SlabLayout {
  std::int32_t hidden = 0;        // H: K of gate_up, rows of down
  std::int32_t intermediate = 0;  // I: K of down, any multiple of 32; gate_up has 2I rows
  ExpertFormat format = ExpertFormat::kMxfp4;
  // Byte offsets of the pieces.
  std::size_t gate_up_blocks = 0, gate_up_scales = 0, gate_up_bias = 0;
  std::size_t down_blocks = 0, down_scales = 0, down_bias = 0;
  std::size_t bytes = 0;  // whole slab, a multiple of 4096

  std::size_t gate_up_block_bytes() const { return weight_bytes(2 * intermediate, hidden); }
  std::size_t gate_up_scale_bytes() const { return scale_bytes(2 * intermediate, hidden); }
  std::size_t gate_up_bias_bytes() const { return static_cast<std::size_t>(intermediate) * 4; }
  std::size_t down_block_bytes() const { return weight_bytes(hidden, intermediate); }
  std::size_t down_scale_bytes() const { return scale_bytes(hidden, intermediate); }
  std::size_t down_bias_bytes() const { return static_cast<std::size_t>(hidden) * 2; }

 private:
  std::size_t weight_bytes(std::int32_t rows, std::int32_t k) const {
    const auto n = static_cast<std::size_t>(rows) * static_cast<std::size_t>(k);
    return format == ExpertFormat::kMxfp4 ? n / 2 : n * 2;
  }
  std::size_t scale_bytes(std::int32_t rows, std::int32_t k) const {
    if (format != ExpertFormat::kMxfp4) return 0;
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(k) / 32;
  }
};

inline SlabLayout make_slab_layout(std::int32_t hidden, std::int32_t intermediate,
                                   ExpertFormat format) {
  SlabLayout slab;
  slab.hidden = hidden;
  slab.intermediate = intermediate;
  slab.format = format;
  std::size_t end = 0;
  const auto place = [&end](std::size_t bytes) {
    const std::size_t offset = (end + 255) / 256 * 256;
    end = offset + bytes;
    return offset;
  };
  slab.gate_up_blocks = place(slab.gate_up_block_bytes());
  slab.gate_up_scales = place(slab.gate_up_scale_bytes());
  slab.gate_up_bias = place(slab.gate_up_bias_bytes());
  slab.down_blocks = place(slab.down_block_bytes());
  slab.down_scales = place(slab.down_scale_bytes());
  slab.down_bias = place(slab.down_bias_bytes());
  slab.bytes = (end + 4095) / 4096 * 4096;
  return slab;
}

}  // namespace strata::kernels
