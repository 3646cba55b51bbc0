#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/tasks.h"

namespace caravan::cpu {

namespace portable {
extern const GemmKernels kernels;
}
#if defined(CARAVAN_X86_64)
namespace avx2 {
extern const GemmKernels kernels;
}
namespace avx512 {
extern const GemmKernels kernels;
}
namespace avx512bf16 {
extern const GemmKernels kernels;
}
#endif

namespace {

constexpr int64_t min_tile_rows = 48;
constexpr int64_t min_tile_columns = 128;
constexpr int64_t tiles_per_thread = 4;

/// Where one product's tiles stand among all.
struct Tiling {
  int64_t rows = 0;  // of a tile
  int64_t columns = 0;
  int64_t across = 0;  // tiles along n
  int64_t first = 0;   // number of its first tile
  int64_t count = 0;
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Large tiles pack less, small ones share better. The choice changes no bit of the result.
Tiling tiling_for(const Gemm& g, int64_t wanted_tiles) {
  Tiling t;
  t.rows = max_tile_rows;
  t.columns = max_tile_columns;
  const auto tiles = [&] { return divide_up(g.m, t.rows) * divide_up(g.n, t.columns); };
  while (tiles() < wanted_tiles && t.columns > min_tile_columns && g.n > min_tile_columns) t.columns -= column_group;
  while (tiles() < wanted_tiles && t.rows > min_tile_rows && g.m > min_tile_rows) t.rows -= min_tile_rows;
  // Gradients of small weights have few elements and long sums: there even packing twice as much beats idle threads.
  const auto idle = [&] { return tiles() * tiles_per_thread < wanted_tiles; };
  if (idle() && g.n > column_group) t.columns = std::min(t.columns, column_group);
  if (idle() && g.m > min_tile_rows / 2) t.rows = std::min(t.rows, min_tile_rows / 2);
  t.rows = std::min(max_tile_rows, divide_up(divide_up(g.m, divide_up(g.m, t.rows)), 12) * 12);
  t.across = divide_up(g.n, t.columns);
  t.count = divide_up(g.m, t.rows) * t.across;
  return t;
}

/// Few rows over all products, not in each, so that in training the path hangs on the batch and not on the routing.
bool are_skinny(const Gemm* products, int64_t count) {
  int64_t rows = 0;
  for (int64_t p = 0; p < count; ++p) {
    if (!products[p].a.k_contiguous || !products[p].b.k_contiguous) return false;
    rows += products[p].m;
  }
  return rows <= skinny_rows;
}

/// All products of at most skinny_rows rows: columns are cut into equal runs.
void run_skinny(const Exec& exec, const Gemm* products, int64_t count) {
  const GemmKernels& kernels = gemm_kernels();
  std::vector<float*> prepared(static_cast<size_t>(count));
  std::vector<float> storage;
  int64_t floats = 0;
  int64_t work = 0;
  int64_t longest = 0;
  for (int64_t p = 0; p < count; ++p) {
    floats += products[p].m * skinny_ld(products[p].k);
    work += products[p].n * products[p].k;
    longest = std::max(longest, products[p].k);
  }
  storage.resize(static_cast<size_t>(floats));
  float* at = storage.data();
  for (int64_t p = 0; p < count; ++p) {
    prepared[static_cast<size_t>(p)] = at;
    kernels.skinny_prepare(products[p], at);
    at += products[p].m * skinny_ld(products[p].k);
  }
  // A run of some 30,000 weights takes a few microseconds: less is not worth waking a thread for.
  constexpr int64_t min_work = 32768;
  struct Run {
    int64_t product, j0, j1;
  };
  std::vector<Run> runs;
  const int64_t wanted = std::max<int64_t>(1, std::min(tiles_per_thread * thread_count(exec), work / min_work));
  for (int64_t p = 0; p < count; ++p) {
    const Gemm& g = products[p];
    const int64_t share = work == 0 ? 1 : std::max<int64_t>(1, divide_up(wanted * g.n * g.k, work));
    const int64_t columns = divide_up(divide_up(g.n, share), 32) * 32;
    for (int64_t j = 0; j < g.n; j += columns) runs.push_back({p, j, std::min(g.n, j + columns)});
  }
  run_tasks(exec, static_cast<int64_t>(runs.size()), [&](int64_t i) {
    const Run& run = runs[static_cast<size_t>(i)];
    kernels.skinny_columns(products[run.product], prepared[static_cast<size_t>(run.product)], run.j0, run.j1,
                           scratch(Scratch::task, skinny_scratch_floats(longest)));
  });
}

bool is_bf16(const Operand& x) { return x.type == OperandType::bf16 || x.round_to_bf16; }

void run_tiled(const Exec& exec, const Gemm* products, int64_t count) {
  const GemmKernels& kernels = gemm_kernels();
  std::vector<Tiling> tilings;
  tilings.reserve(static_cast<size_t>(count));
  const int64_t wanted = divide_up(tiles_per_thread * thread_count(exec), count);
  int64_t tiles = 0;
  for (int64_t p = 0; p < count; ++p) {
    Tiling t = tiling_for(products[p], wanted);
    t.first = tiles;
    tiles += t.count;
    tilings.push_back(t);
  }
  run_tasks(exec, tiles, [&](int64_t i) {
    size_t p = 0;
    while (i >= tilings[p].first + tilings[p].count) ++p;
    const Tiling& t = tilings[p];
    const Gemm& g = products[p];
    const int64_t i0 = (i - t.first) / t.across * t.rows;
    const int64_t j0 = (i - t.first) % t.across * t.columns;
    const bool bf16 = kernels.tile_bf16 != nullptr && is_bf16(g.a) && is_bf16(g.b);
    const auto tile = bf16 ? kernels.tile_bf16 : kernels.tile;
    tile(g, i0, std::min(g.m, i0 + t.rows), j0, std::min(g.n, j0 + t.columns),
         scratch(Scratch::task, tile_scratch_floats()));
  });
}

}  // namespace

const GemmKernels& gemm_kernels() {
#if defined(CARAVAN_X86_64)
  switch (cpu_isa()) {
    case Isa::avx512bf16: return avx512bf16::kernels;
    case Isa::avx512: return avx512::kernels;
    case Isa::avx2: return avx2::kernels;
    case Isa::portable: break;
  }
#endif
  return portable::kernels;
}

const Nf4Tables& nf4_tables() {
  static const Nf4Tables tables = [] {
    Nf4Tables t;
    for (size_t i = 0; i < 16; ++i) {
      t.code[i] = nf4_code[i];
      uint8_t bytes[4];
      std::memcpy(bytes, &nf4_code[i], 4);
      for (size_t b = 0; b < 4; ++b) t.byte_plane[b][i] = bytes[b];
    }
    t.dynamic_code = dynamic_code_signed.data();
    return t;
  }();
  return tables;
}

void gemm_run(const Exec& exec, const Gemm* products, int64_t count) {
  if (count == 0) return;
  if (are_skinny(products, count)) {
    run_skinny(exec, products, count);
  } else {
    run_tiled(exec, products, count);
  }
}

}  // namespace caravan::cpu
