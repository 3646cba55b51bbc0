#include "kernels/cuda/cublaslt.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/nvidia_library.h"

namespace caravan::cuda {
namespace {

// Values of cuBLASLt's enumerations.
constexpr int compute_32f = 68;  // fp32 sums, and for fp32 operands fp32 products: no TF32
constexpr int op_n = 0, op_t = 1;
constexpr int desc_trans_a = 3, desc_trans_b = 4;
constexpr int preference_max_workspace = 1, preference_reduction_schemes = 3;
constexpr int preference_min_alignment_a = 5;  // b, c and d follow
// Partial sums of split k go to the workspace in fp32 and are added in order. The in-place scheme adds them in the order
// of arrival, the output-type scheme rounds them.
constexpr uint32_t reduction_compute_type = 2;

void check_lt(int status, const char* operation) {
  if (status == 0) return;
  throw EngineError("device_failed", std::string(operation) + ": cuBLASLt returned status " + std::to_string(status));
}

template <typename F>
bool resolve(const SharedLibrary& library, const char* name, F& function) {
  function = reinterpret_cast<F>(library.symbol(name));
  return function != nullptr;
}

bool resolve_all(const SharedLibrary& library, lt::Functions& f) {
  return resolve(library, "cublasLtGetVersion", f.GetVersion) && resolve(library, "cublasLtCreate", f.Create) &&
         resolve(library, "cublasLtDestroy", f.Destroy) &&
         resolve(library, "cublasLtMatmulDescCreate", f.MatmulDescCreate) &&
         resolve(library, "cublasLtMatmulDescDestroy", f.MatmulDescDestroy) &&
         resolve(library, "cublasLtMatmulDescSetAttribute", f.MatmulDescSetAttribute) &&
         resolve(library, "cublasLtMatrixLayoutCreate", f.MatrixLayoutCreate) &&
         resolve(library, "cublasLtMatrixLayoutDestroy", f.MatrixLayoutDestroy) &&
         resolve(library, "cublasLtMatmulPreferenceCreate", f.MatmulPreferenceCreate) &&
         resolve(library, "cublasLtMatmulPreferenceDestroy", f.MatmulPreferenceDestroy) &&
         resolve(library, "cublasLtMatmulPreferenceSetAttribute", f.MatmulPreferenceSetAttribute) &&
         resolve(library, "cublasLtMatmulAlgoGetHeuristic", f.MatmulAlgoGetHeuristic) &&
         resolve(library, "cublasLtMatmul", f.Matmul);
}

CublasLtLibrary load() {
  CublasLtLibrary result;
  // The major version of the CUDA that this build was made with comes first.
  std::vector<std::string> names;
  for (const int major : {CUDART_VERSION / 1000, 13, 12}) {
    const std::string name = "libcublasLt.so." + std::to_string(major);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  SharedLibrary library = open_nvidia_library(names, {"cublas", "cu" + std::to_string(CUDART_VERSION / 1000)});
  if (!library.loaded()) {
    result.missing = library.why_not();
  } else if (!resolve_all(library, result.functions)) {
    result.missing = library.path() + " lacks functions that cuBLASLt 12 has";
  } else {
    result.path = library.path();
    result.version = result.functions.GetVersion();
    library.keep();
  }
  return result;
}

cudaDataType data_type(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

/// The largest power of two up to 256 that divides the address: what cuBLASLt may rely on.
uint32_t alignment(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

}  // namespace

const CublasLtLibrary& cublaslt_library() {
  static const CublasLtLibrary library = load();
  return library;
}

CublasLt::CublasLt(const CublasLtLibrary& library) : lt_(library.functions) {
  check_lt(lt_.Create(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() {
  for (const auto& [shape, plan] : plans_) {
    lt_.MatrixLayoutDestroy(plan.a);
    lt_.MatrixLayoutDestroy(plan.b);
    lt_.MatrixLayoutDestroy(plan.c);
    lt_.MatmulDescDestroy(plan.desc);
  }
  lt_.Destroy(handle_);
}

bool CublasLt::can_do(const Gemm& g) {
  return g.grouped_by == GroupedBy::none && g.bias == nullptr && g.a.data.dtype == g.b.data.dtype &&
         (g.a.data.dtype == DType::bf16 || g.c.dtype == DType::f32) && g.k > 0;
}

// cuBLASLt's matrices are column-major: it is given the transposed product, C^T (n, m) = B A^T.
const CublasLt::Plan& CublasLt::plan_of(const Shape& s) {
  const auto [at, is_new] = plans_.try_emplace(s);
  Plan& plan = at->second;
  if (!is_new) return plan;
  const auto layout = [&](lt::MatrixLayout& result, DType dtype, int64_t rows, int64_t cols, int64_t ld) {
    check_lt(
        lt_.MatrixLayoutCreate(&result, data_type(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld),
        "cublasLtMatrixLayoutCreate");
  };
  const int trans_a = s.b_k_contiguous ? op_t : op_n, trans_b = s.a_k_contiguous ? op_n : op_t;
  check_lt(lt_.MatmulDescCreate(&plan.desc, compute_32f, CUDA_R_32F), "cublasLtMatmulDescCreate");
  check_lt(lt_.MatmulDescSetAttribute(plan.desc, desc_trans_a, &trans_a, sizeof(trans_a)), "cublasLtMatmulDesc");
  check_lt(lt_.MatmulDescSetAttribute(plan.desc, desc_trans_b, &trans_b, sizeof(trans_b)), "cublasLtMatmulDesc");
  s.b_k_contiguous ? layout(plan.a, s.input, s.k, s.n, s.ldb) : layout(plan.a, s.input, s.n, s.k, s.ldb);
  s.a_k_contiguous ? layout(plan.b, s.input, s.k, s.m, s.lda) : layout(plan.b, s.input, s.m, s.k, s.lda);
  layout(plan.c, s.output, s.n, s.m, s.n);

  lt::MatmulPreference preference = nullptr;
  check_lt(lt_.MatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](int attribute, auto value) {
    check_lt(lt_.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
             "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(preference_max_workspace, uint64_t{workspace_bytes});
  prefer(preference_reduction_schemes, reduction_compute_type);
  const uint32_t alignments[] = {s.align_b, s.align_a, s.align_c, s.align_c};
  for (int i = 0; i < 4; ++i) prefer(preference_min_alignment_a + i, alignments[i]);
  lt::MatmulHeuristicResult result = {};
  int found = 0;
  const int status =
      lt_.MatmulAlgoGetHeuristic(handle_, plan.desc, plan.a, plan.b, plan.c, plan.c, preference, 1, &result, &found);
  check_lt(lt_.MatmulPreferenceDestroy(preference), "cublasLtMatmulPreferenceDestroy");
  plan.usable = status == 0 && found > 0 && result.state == 0;
  plan.algo = result.algo;
  return plan;
}

bool CublasLt::run(const Exec& exec, const Gemm& g, void* workspace) {
  if (!can_do(g)) return false;
  const Plan& plan =
      plan_of({g.m, g.n, g.k, g.a.ld, g.b.ld, g.a.k_contiguous, g.b.k_contiguous, g.accumulate, g.a.data.dtype,
               g.c.dtype, alignment(g.a.data.data), alignment(g.b.data.data), alignment(g.c.data)});
  if (!plan.usable) return false;
  const float beta = g.accumulate ? 1.0f : 0.0f;
  check_lt(lt_.Matmul(handle_, plan.desc, &g.scale, g.b.data.data, plan.a, g.a.data.data, plan.b, &beta, g.c.data,
                      plan.c, g.c.data, plan.c, &plan.algo, workspace, workspace_bytes, stream_of(exec)),
           "cublasLtMatmul");
  return true;
}

}  // namespace caravan::cuda
