#include "kernels/cuda/nf4.h"

#include "kernels/cuda/dynamic_code.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/transfer.h"

namespace caravan::cuda {

namespace {

constexpr int block_threads = 256;
static_assert(nf4_block == 8 * pack);

// ---------------------------------------------------------------------------------------------------------------------
// Dequantisation

/// The values of the sixteen codes as a kernel's argument.
struct Nf4Code {
  float value[16];

  Nf4Code() {
    for (size_t i = 0; i < nf4_code.size(); ++i) value[i] = nf4_code[i];
  }
};

/// Packs that a thread takes: so many loads are under way together.
constexpr int packs_each = 4;

template <typename T, bool vector, bool rows_apart>
__global__ void __launch_bounds__(block_threads)
    dequantize_kernel(T* out, int64_t row, const Nf4View weight, int64_t count, const __grid_constant__ Nf4Code nf4,
                      const __grid_constant__ DynamicCode dynamic) {
  __shared__ float code[16], absmax_code[256];
  if (threadIdx.x < 16) code[threadIdx.x] = nf4.value[threadIdx.x];
  if (weight.absmax == nullptr) absmax_code[threadIdx.x] = dynamic.value[threadIdx.x];
  __syncthreads();
  const auto place = [&](int64_t i) {
    if constexpr (!rows_apart) return i;
    // A weight has fewer than 2^32 elements.
    const auto at = static_cast<uint32_t>(i), cols = static_cast<uint32_t>(weight.cols);
    return at / cols * row + at % cols;
  };
  const int64_t first = static_cast<int64_t>(blockIdx.x) * block_threads * packs_each + threadIdx.x;
  uint32_t packed[packs_each] = {};
  float absmax[packs_each] = {};
#pragma unroll
  for (int k = 0; k < packs_each; ++k) {
    const int64_t i = (first + k * block_threads) * pack;
    if (i >= count) continue;
    if (vector && i + pack <= count) {
      packed[k] = *reinterpret_cast<const uint32_t*>(weight.packed + i / 2);
    } else {
      for (int j = 0; j < pack && i + j < count; j += 2) packed[k] |= uint32_t{weight.packed[(i + j) / 2]} << (4 * j);
    }
    const int64_t block = i / nf4_block;
    absmax[k] =
        weight.absmax != nullptr
            ? weight.absmax[block]
            : __fadd_rn(__fmul_rn(absmax_code[weight.absmax_u8[block]], weight.absmax2[block / nf4_nested_block]),
                        weight.offset);
  }
#pragma unroll
  for (int k = 0; k < packs_each; ++k) {
    const int64_t i = (first + k * block_threads) * pack;
    if (i >= count) continue;
    float v[pack];
#pragma unroll
    for (int j = 0; j < pack; ++j) {
      // Element 2 b lies in the high nibble of byte b.
      v[j] = code[packed[k] >> (j % 2 == 0 ? 4 * j + 4 : 4 * j - 4) & 15] * absmax[k];
    }
    if (vector && i + pack <= count) {
      store(out + place(i), v);
    } else {
#pragma unroll
      for (int j = 0; j < pack; ++j) {
        if (i + j < count) out[place(i + j)] = rounded<T>(v[j]);
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Quantisation

struct Thresholds {
  float value[15];

  Thresholds() {
    for (size_t i = 0; i < nf4_thresholds.size(); ++i) value[i] = nf4_thresholds[i];
  }
};

/// Eight threads a block of 64 elements, eight elements each.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    quantize_kernel(uint8_t* packed, float* absmaxes, const T* weight, int64_t count,
                    const __grid_constant__ Thresholds thresholds) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x) * pack;
  float v[pack], absmax = 0.0f;
#pragma unroll
  for (int j = 0; j < pack; ++j) {
    v[j] = i + j < count ? static_cast<float>(weight[i + j]) : 0.0f;
    absmax = fmaxf(absmax, fabsf(v[j]));
  }
#pragma unroll
  for (int step = 1; step < 8; step *= 2) absmax = fmaxf(absmax, __shfl_xor_sync(all_lanes, absmax, step));
  if (i >= count) return;
  if (i % nf4_block == 0) absmaxes[i / nf4_block] = absmax;
  const float inverse = __fdiv_rn(1.0f, absmax);
  int codes[pack];
#pragma unroll
  for (int j = 0; j < pack; ++j) {
    // The padding after an odd count is a zero that no reciprocal multiplies; NaN is greater than nothing.
    const float x = i + j < count ? __fmul_rn(v[j], inverse) : 0.0f;
    codes[j] = 0;
#pragma unroll
    for (int t = 0; t < 15; ++t) codes[j] += x > thresholds.value[t] ? 1 : 0;
  }
#pragma unroll
  for (int j = 0; j < pack; j += 2) {
    if (i + j < count) packed[(i + j) / 2] = static_cast<uint8_t>(codes[j] << 4 | codes[j + 1]);
  }
}

__global__ void __launch_bounds__(block_threads) mean_parts_kernel(double* parts, const float* values, int64_t count) {
  const int64_t part = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  const int64_t first = part * nf4_mean_block, last = min(count, first + nf4_mean_block);
  if (first >= count) return;
  double sum = 0.0;
  for (int64_t i = first; i < last; ++i) sum += static_cast<double>(values[i]);
  parts[part] = sum;
}

/// One thread: the order of the sum decides its last bit.
__global__ void mean_kernel(float* mean, const double* parts, int64_t num_parts, int64_t count) {
  double sum = 0.0;
  for (int64_t part = 0; part < num_parts; ++part) sum += parts[part];
  *mean = static_cast<float>(sum / static_cast<double>(count));
}

/// One block of threads a nested block of 256 absmax.
__global__ void __launch_bounds__(nf4_nested_block)
    quantize_absmax_kernel(uint8_t* codes, float* absmax2, const float* absmax, const float* mean, int64_t blocks,
                           const __grid_constant__ DynamicCode dynamic) {
  __shared__ float code[256];
  __shared__ float scratch[nf4_nested_block / 32];
  code[threadIdx.x] = dynamic.value[threadIdx.x];
  const int64_t b = static_cast<int64_t>(blockIdx.x) * nf4_nested_block + threadIdx.x;
  const float value = b < blocks ? __fsub_rn(absmax[b], *mean) : 0.0f;
  const float largest = block_max<nf4_nested_block>(fabsf(value), scratch);
  if (threadIdx.x == 0) absmax2[blockIdx.x] = largest;
  const float inverse = __fdiv_rn(1.0f, largest);
  if (b < blocks) codes[b] = static_cast<uint8_t>(nearest_dynamic_code(code, __fmul_rn(value, inverse)));
}

}  // namespace

void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight) {
  nf4_dequantize_rows(exec, out, weight.cols, weight);
}

void nf4_dequantize_rows(const Exec& exec, Ptr out, int64_t row, const Nf4View& weight) {
  const int64_t count = weight.rows * weight.cols;
  if (count == 0) return;
  const unsigned blocks = blocks_for(count, int64_t{block_threads} * packs_each * pack);
  dispatch(out.dtype, [&]<typename T>() {
    // Where rows are apart, a pack must not reach over the end of one.
    const bool apart = row != weight.cols;
    const bool vector =
        aligned16(out.as<T>(), weight.packed) && (!apart || (row % pack == 0 && weight.cols % pack == 0));
    const auto kernel = apart ? (vector ? dequantize_kernel<T, true, true> : dequantize_kernel<T, false, true>)
                              : (vector ? dequantize_kernel<T, true, false> : dequantize_kernel<T, false, false>);
    kernel<<<blocks, block_threads, 0, stream_of(exec)>>>(out.as<T>(), row, weight, count, Nf4Code(),
                                                          DynamicCode(dynamic_code_signed));
  });
  check_launch("nf4_dequantize");
}

Nf4View nf4_quantize_into(const Exec& exec, const Nf4Arrays& arrays, ConstPtr weight, int64_t rows, int64_t cols) {
  Nf4View view{arrays.packed, arrays.absmax, arrays.absmax_u8, arrays.absmax2, 0.0f, rows, cols};
  const int64_t count = rows * cols, blocks = view.blocks();
  const int64_t parts = (blocks + nf4_mean_block - 1) / nf4_mean_block;
  if (count == 0) return view;
  // Sums, mean and, where it is not kept, the first absmax.
  double* const sums = exec.cuda->workspace<double>(parts + 1 + (blocks + 1) / 2);
  float* const mean = reinterpret_cast<float*>(sums + parts);
  float* const absmax = arrays.absmax == nullptr ? mean + 2 : arrays.absmax;
  dispatch(weight.dtype, [&]<typename T>() {
    quantize_kernel<<<blocks_for(count, int64_t{block_threads} * pack), block_threads, 0, stream_of(exec)>>>(
        arrays.packed, absmax, weight.as<T>(), count, Thresholds());
  });
  check_launch("nf4_quantize_into");
  if (arrays.absmax == nullptr) {
    mean_parts_kernel<<<blocks_for(parts, block_threads), block_threads, 0, stream_of(exec)>>>(sums, absmax, blocks);
    mean_kernel<<<1, 1, 0, stream_of(exec)>>>(mean, sums, parts, blocks);
    quantize_absmax_kernel<<<blocks_for(blocks, nf4_nested_block), nf4_nested_block, 0, stream_of(exec)>>>(
        arrays.absmax_u8, arrays.absmax2, absmax, mean, blocks, DynamicCode(dynamic_code_signed));
    check_launch("nf4_quantize_into");
    download(exec, &view.offset, mean, sizeof view.offset);
  }
  return view;
}

}  // namespace caravan::cuda
