// Dequantisation into a matrix whose rows have room behind them.
#pragma once

#include "kernels/nf4.h"

namespace caravan::cuda {

/// As nf4_dequantize, rows of `out` being `row` elements apart.
void nf4_dequantize_rows(const Exec& exec, Ptr out, int64_t row, const Nf4View& weight);

}  // namespace caravan::cuda
