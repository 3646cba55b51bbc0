// cuBLASLt, found and loaded at run time, so that a build needs neither its headers nor its library and the addon loads
// where it is missing. Only what we use of its interface is declared, from NVIDIA's documentation of it.
#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#include <compare>
#include <map>
#include <string>

#include "kernels/cuda/gemm.h"

namespace caravan::cuda {

namespace lt {

using Handle = struct HandleOpaque*;
using MatmulDesc = struct MatmulDescOpaque*;
using MatrixLayout = struct MatrixLayoutOpaque*;
using MatmulPreference = struct MatmulPreferenceOpaque*;

struct MatmulAlgo {
  uint64_t data[8];
};

struct MatmulHeuristicResult {
  MatmulAlgo algo;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

/// cublasLt's functions by their names less the prefix; each returns a cublasStatus_t, 0 for success.
struct Functions {
  size_t (*GetVersion)();
  int (*Create)(Handle*);
  int (*Destroy)(Handle);
  int (*MatmulDescCreate)(MatmulDesc*, int compute_type, cudaDataType scale_type);
  int (*MatmulDescDestroy)(MatmulDesc);
  int (*MatmulDescSetAttribute)(MatmulDesc, int attribute, const void*, size_t);
  int (*MatrixLayoutCreate)(MatrixLayout*, cudaDataType, uint64_t rows, uint64_t cols, int64_t ld);
  int (*MatrixLayoutDestroy)(MatrixLayout);
  int (*MatmulPreferenceCreate)(MatmulPreference*);
  int (*MatmulPreferenceDestroy)(MatmulPreference);
  int (*MatmulPreferenceSetAttribute)(MatmulPreference, int attribute, const void*, size_t);
  int (*MatmulAlgoGetHeuristic)(Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d,
                                MatmulPreference, int requested, MatmulHeuristicResult*, int* found);
  int (*Matmul)(Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout, const void* b, MatrixLayout,
                const void* beta, const void* c, MatrixLayout, void* d, MatrixLayout, const MatmulAlgo*,
                void* workspace, size_t workspace_bytes, cudaStream_t);
};

}  // namespace lt

/// The library, or why there is none. Searched, in this order: $CARAVAN_CUDA_PATH (a folder, or several with ':'
/// between), beside the addon, the loader's own path, /usr/local/cuda/lib64, and the folders into which pip installs
/// NVIDIA's packages below $VIRTUAL_ENV, $CONDA_PREFIX, ~/.local and /usr.
struct CublasLtLibrary {
  lt::Functions functions = {};
  std::string path;     // empty: missing
  size_t version = 0;   // major * 10000 + minor * 100 + patch
  std::string missing;  // what was looked for where; empty: it is there

  bool found() const { return missing.empty(); }
};

/// Loaded at the first call, once for the process.
const CublasLtLibrary& cublaslt_library();

/// cuBLASLt for one device: its handle, and what it chose for each shape.
class CublasLt {
 public:
  explicit CublasLt(const CublasLtLibrary& library);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  static constexpr size_t workspace_bytes = size_t{32} << 20;

  /// Enqueues the product with `workspace` of workspace_bytes. False where cuBLASLt does not do it: operands of two
  /// types, f32 into bf16, a bias, groups, or a shape it has no algorithm for.
  bool run(const Exec& exec, const Gemm& gemm, void* workspace);
  static bool can_do(const Gemm& gemm);

 private:
  /// What an algorithm may depend on.
  struct Shape {
    int64_t m, n, k, lda, ldb;
    bool a_k_contiguous, b_k_contiguous, accumulate;
    DType input, output;
    uint32_t align_a, align_b, align_c;
    auto operator<=>(const Shape&) const = default;
  };
  struct Plan {
    lt::MatmulDesc desc = nullptr;
    lt::MatrixLayout a = nullptr, b = nullptr, c = nullptr;
    lt::MatmulAlgo algo = {};
    bool usable = false;
  };

  const Plan& plan_of(const Shape& shape);

  const lt::Functions& lt_;
  lt::Handle handle_ = nullptr;
  std::map<Shape, Plan> plans_;
};

}  // namespace caravan::cuda
