// Weights that bitsandbytes stored in 4 bits (its serialisation since 0.42): the packed codes under the weight's own name,
// and their state in tensors beside it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "kernels/nf4.h"

namespace caravan {

struct BitsandbytesWeight {
  std::vector<int64_t> shape;           // of the weight, not of its codes
  uint64_t bytes = 0;                   // of codes and state
  StoredType dtype = StoredType::BF16;  // bitsandbytes rounds what it dequantises to this
  int64_t block = 64;
  std::vector<uint8_t> packed;  // byte k holds element 2 k in its high half
  std::vector<float> absmax;    // (blocks), double quantisation undone
  // With double quantisation, as stored; empty without.
  std::vector<uint8_t> absmax_u8;
  std::vector<float> absmax2;
  float offset = 0.0f;
  int64_t nested_block = 256;

  int64_t elements() const;
  /// All values as f32 or bf16, rounded to `dtype` on the way.
  void read(Ptr out) const;
  /// The very codes and constants, where their blocks are those that this engine computes with.
  std::optional<Nf4Storage> storage() const;
};

/// Whether a tensor is one of the pieces of such a weight's state, and not a tensor of the model.
bool is_bitsandbytes_state(const std::string& name);

/// Shape alone; nothing where `name` is no such weight. @throws EngineError bad_file, naming the tensor
std::optional<std::vector<int64_t>> bitsandbytes_shape(const ModelTensors& tensors, const std::string& name);
/// Nothing where `name` is no such weight. @throws EngineError bad_file, naming the tensor
std::optional<BitsandbytesWeight> read_bitsandbytes(const ModelTensors& tensors, const std::string& name);

}  // namespace caravan
