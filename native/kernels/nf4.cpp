#include "kernels/nf4.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(nf4_dequantize)
CARAVAN_TWINS(nf4_quantize_into)

void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight) {
  CARAVAN_DISPATCH(nf4_dequantize, exec, out, weight);
}

Nf4View nf4_quantize_into(const Exec& exec, const Nf4Arrays& arrays, ConstPtr weight, int64_t rows, int64_t cols) {
  CARAVAN_DISPATCH(nf4_quantize_into, exec, arrays, weight, rows, cols);
}

size_t nf4_place(Nf4Arrays& arrays, void* memory, int64_t rows, int64_t cols, bool double_quant) {
  const auto count = static_cast<size_t>(rows * cols);
  const size_t blocks = (count + nf4_block - 1) / nf4_block;
  const size_t nested = (blocks + nf4_nested_block - 1) / nf4_nested_block;
  size_t bytes = 0;
  const auto take = [&]<typename T>(T*& array, size_t elements) {
    array = memory == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<char*>(memory) + bytes);
    bytes += (elements * sizeof(T) + 15) / 16 * 16;
  };
  arrays = {};
  take(arrays.packed, (count + 1) / 2);
  if (double_quant) {
    take(arrays.absmax_u8, blocks);
    take(arrays.absmax2, nested);
  } else {
    take(arrays.absmax, blocks);
  }
  return bytes;
}

}  // namespace caravan
