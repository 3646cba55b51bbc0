// Which product computes each function of matmul.h, and what its weight must become first.
#include "kernels/matmul.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/nf4.h"
#include "kernels/kernel_times.h"

namespace caravan::cuda {

namespace {

/// What one call takes from the workspace: space for cuBLASLt, then for a weight of another type.
struct Scratch {
  void* cublaslt = nullptr;
  void* weight = nullptr;

  Scratch(const Exec& exec, int64_t weight_elements, DType dtype) {
    const size_t space = exec.cuda->cublaslt() == nullptr ? 0 : CublasLt::workspace_bytes;
    const size_t bytes = space + static_cast<size_t>(weight_elements) * size_of(dtype);
    if (bytes == 0) return;
    cublaslt = exec.cuda->workspace(bytes);
    weight = static_cast<char*>(cublaslt) + space;
  }
};

__global__ void round_kernel(bf16* out, const float* in, int64_t count) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < count) out[at] = bf16(in[at]);
}

void round_to_bf16(const Exec& exec, void* out, const void* in, int64_t count) {
  if (count == 0) return;
  constexpr int threads = 256;
  round_kernel<<<static_cast<unsigned>((count + threads - 1) / threads), threads, 0, stream_of(exec)>>>(
      static_cast<bf16*>(out), static_cast<const float*>(in), count);
  check_launch("round_to_bf16");
}

template <typename T, typename S>
__global__ void copy_columns_kernel(T* out, int64_t out_row, const S* in, int64_t count, int64_t cols, float scale) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < count) out[at / cols * out_row + at % cols] = T(scale * static_cast<float>(in[at]));
}

/// out (rows of out_row elements) = scale * in (rows, cols), rounded to out's type.
void copy_columns(const Exec& exec, Ptr out, int64_t out_row, ConstPtr in, int64_t rows, int64_t cols, float scale) {
  if (out.dtype == in.dtype && scale == 1.0f) {
    const size_t each = size_of(in.dtype), width = static_cast<size_t>(cols) * each;
    check(cudaMemcpy2DAsync(out.data, static_cast<size_t>(out_row) * each, in.data, width, width,
                            static_cast<size_t>(rows), cudaMemcpyDeviceToDevice, stream_of(exec)),
          "copy_columns");
    return;
  }
  constexpr int threads = 256;
  const int64_t count = rows * cols;
  dispatch(out.dtype, [&]<typename T>() {
    dispatch(in.dtype, [&]<typename S>() {
      copy_columns_kernel<<<static_cast<unsigned>((count + threads - 1) / threads), threads, 0, stream_of(exec)>>>(
          out.as<T>(), out_row, in.as<S>(), count, cols, scale);
    });
  });
  check_launch("copy_columns");
}

/// Whether a weight must be written anew before it multiplies activations of this type.
bool needs_copy(const Weight& w, DType activations) {
  return w.nf4 != nullptr || (activations == DType::bf16 && w.dense.dtype == DType::f32);
}

ConstPtr weight_for(const Exec& exec, const Weight& w, DType activations, void* scratch) {
  if (w.nf4 != nullptr) {
    const Ptr out(scratch, activations);
    caravan::nf4_dequantize(exec, out, *w.nf4);
    return out;
  }
  if (!needs_copy(w, activations)) return w.dense;
  round_to_bf16(exec, scratch, w.dense.data, w.rows * w.cols);
  return {scratch, DType::bf16};
}

/// Products with a dimension up to this are bound by memory, and are named apart where kernels are timed.
constexpr int64_t narrow = 256;

void run(const Exec& exec, const Gemm& gemm, const Scratch& scratch) {
  if (gemm.m == 0 || gemm.n == 0) return;
  const bool is_narrow = std::min({gemm.m, gemm.n, gemm.k}) <= narrow;
  const TimedOperation operation(exec, gemm.grouped_by != GroupedBy::none ? "grouped product"
                                       : is_narrow                        ? "narrow product"
                                                                          : "product");
  if (CublasLt* const cublaslt = exec.cuda->cublaslt()) {
    if (cublaslt->run(exec, gemm, scratch.cublaslt)) return;
  }
  const bool both_bf16 = gemm.a.data.dtype == DType::bf16 && gemm.b.data.dtype == DType::bf16;
  if (!both_bf16) return gemm_simt(exec, gemm);
  if (!gemm_wgmma(exec, gemm)) gemm_mma(exec, gemm);
}

Gemm product(Ptr c, int64_t m, int64_t n, int64_t k, float scale, bool accumulate) {
  Gemm g;
  g.c = c;
  g.m = m;
  g.n = n;
  g.k = k;
  g.scale = scale;
  g.accumulate = accumulate;
  return g;
}

/// x (N, k) times a weight (rows, cols), transposed where `forward`.
void run_linear(const Exec& exec, Gemm g, ConstPtr x, const Weight& w, bool forward) {
  if (g.m == 0 || g.n == 0) return;
  const Scratch scratch(exec, needs_copy(w, x.dtype) ? w.rows * w.cols : 0, DType::f32);
  g.a = {x, g.k, true};
  g.b = {weight_for(exec, w, x.dtype, scratch.weight), w.cols, forward};
  run(exec, g, scratch);
}

void run_grouped(const Exec& exec, Gemm g, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                 bool forward) {
  if (g.m == 0 || g.n == 0) return;
  const Weight all = Weight::of(w, groups * g.n, g.k);
  const Scratch scratch(exec, needs_copy(all, x.dtype) ? all.rows * all.cols : 0, DType::bf16);
  g.a = {x, g.k, true};
  g.b = {weight_for(exec, all, x.dtype, scratch.weight), forward ? g.k : g.n, forward};
  g.grouped_by = GroupedBy::rows;
  g.offsets = offsets;
  g.groups = groups;
  run(exec, g, scratch);
}

// Rows of dy that one block sums, and columns it sums them of.
constexpr int bias_rows = 256, bias_cols = 32;

/// partial (blocks of rows, O) = sums of a block of rows, or with one block dbias += the sum.
template <typename T>
__global__ void bias_kernel(float* out, const T* dy, int64_t n, int64_t out_features, int64_t rows, bool accumulate) {
  __shared__ float sums[8][bias_cols + 1];
  const int64_t o = static_cast<int64_t>(blockIdx.x) * bias_cols + threadIdx.x;
  const int64_t first = blockIdx.y * rows, end = first + rows < n ? first + rows : n;
  float sum = 0.0f;
  if (o < out_features) {
    for (int64_t row = first + threadIdx.y; row < end; row += 8) sum += static_cast<float>(dy[row * out_features + o]);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || o >= out_features) return;
  for (int i = 1; i < 8; ++i) sum += sums[i][threadIdx.x];
  float* const to = out + blockIdx.y * out_features + o;
  *to = accumulate ? *to + sum : sum;
}

}  // namespace

void linear_forward(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
                    bool accumulate) {
  if (n <= gemv_rows) return gemv(exec, y, x, w, bias, n, scale, accumulate);
  Gemm g = product(y, n, w.rows, w.cols, scale, accumulate);
  g.bias = bias;
  run_linear(exec, g, x, w, true);
}

void linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale,
                           bool accumulate) {
  run_linear(exec, product(dx, n, w.cols, w.rows, scale, accumulate), dy, w, false);
}

void linear_lora_forward(const Exec& exec, Ptr y, ConstPtr x, int64_t row, const Weight& w, const float* bias,
                         ConstPtr b, float scale, int64_t u_at, int64_t r, int64_t n) {
  if (n * w.rows == 0) return;
  const int64_t k = u_at + r;
  const Scratch scratch(exec, w.rows * k, x.dtype);
  const Ptr wide(scratch.weight, x.dtype);
  if (w.nf4 != nullptr) {
    const TimedOperation operation(exec, "nf4_dequantize");
    nf4_dequantize_rows(exec, wide, k, *w.nf4);
  } else {
    copy_columns(exec, wide, k, w.dense, w.rows, w.cols, 1.0f);
  }
  if (u_at > w.cols) {
    check(cudaMemset2DAsync(wide.at(w.cols).data, static_cast<size_t>(k) * size_of(x.dtype), 0,
                            static_cast<size_t>(u_at - w.cols) * size_of(x.dtype), static_cast<size_t>(w.rows),
                            stream_of(exec)),
          "linear_lora_forward");
  }
  copy_columns(exec, wide.at(u_at), k, b, w.rows, r, scale);
  Gemm g = product(y, n, w.rows, k, 1.0f, false);
  g.bias = bias;
  g.a = {x, row, true};
  g.b = {wide, k, true};
  run(exec, g, scratch);
}

void linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features,
                            int64_t in_features, float scale, int64_t x_row) {
  Gemm g = product(dw, out_features, in_features, n, scale, true);
  g.a = {dy, out_features, false};
  g.b = {x, x_row, false};
  run(exec, g, Scratch(exec, 0, DType::f32));
}

void bias_backward(const Exec& exec, float* dbias, ConstPtr dy, int64_t n, int64_t out_features) {
  if (n == 0 || out_features == 0) return;
  const int64_t blocks = (n + bias_rows - 1) / bias_rows;
  const dim3 threads(bias_cols, 8);
  const auto columns = static_cast<unsigned>((out_features + bias_cols - 1) / bias_cols);
  float* const partial = blocks == 1 ? dbias : exec.cuda->workspace<float>(blocks * out_features);
  dispatch(dy.dtype, [&]<typename T>() {
    bias_kernel<T><<<dim3(columns, static_cast<unsigned>(blocks)), threads, 0, stream_of(exec)>>>(
        partial, dy.as<T>(), n, out_features, bias_rows, blocks == 1);
  });
  check_launch("bias_backward");
  if (blocks == 1) return;
  bias_kernel<float><<<columns, threads, 0, stream_of(exec)>>>(dbias, partial, blocks, out_features, blocks, true);
  check_launch("bias_backward");
}

void grouped_linear_forward(const Exec& exec, Ptr y, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                            int64_t n, int64_t out_features, int64_t in_features, float scale, bool accumulate) {
  if (n <= gemv_grouped_rows) {
    return gemv(exec, y, x, Weight::of(w, out_features, in_features), nullptr, n, scale, accumulate, offsets, groups);
  }
  run_grouped(exec, product(y, n, out_features, in_features, scale, accumulate), x, w, offsets, groups, true);
}

void grouped_linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr w, const int32_t* offsets,
                                   int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale,
                                   bool accumulate) {
  run_grouped(exec, product(dx, n, in_features, out_features, scale, accumulate), dy, w, offsets, groups, false);
}

void grouped_linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, const int32_t* offsets,
                                    int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale) {
  Gemm g = product(dw, out_features, in_features, n, scale, true);
  g.a = {dy, out_features, false};
  g.b = {x, in_features, false};
  g.grouped_by = GroupedBy::k;
  g.offsets = offsets;
  g.groups = groups;
  run(exec, g, Scratch(exec, 0, DType::f32));
}

}  // namespace caravan::cuda
