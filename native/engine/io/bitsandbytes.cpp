#include "engine/io/bitsandbytes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include <nlohmann/json.hpp>

#include "engine/io/half.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr const char* state_suffix = ".quant_state.bitsandbytes__nf4";
constexpr uint64_t max_state_bytes = 1 << 16;

[[noreturn]] void bad(const ModelTensors::Entry& entry, const std::string& what) {
  throw EngineError("bad_file", entry.file->path() + ": tensor " + entry.tensor->name + " " + what +
                                    "; take the model's original weights");
}

struct State {
  std::vector<int64_t> shape;
  StoredType dtype = StoredType::F32;
  int64_t block = 64;
  int64_t nested_block = 0;  // 0: no double quantisation
  float offset = 0.0f;
};

State read_state(const ModelTensors::Entry& entry) {
  if (entry.tensor->type != StoredType::U8 || entry.tensor->size > max_state_bytes) bad(entry, "is no JSON text in U8");
  const std::span<const std::byte> bytes = entry.file->bytes(*entry.tensor);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) bad(entry, "holds no JSON object");
  State state;
  try {
    if (json.at("quant_type") != "nf4") bad(entry, "has the quant_type " + json.at("quant_type").dump() + ", not nf4");
    uint64_t elements = 1;
    for (const nlohmann::json& extent : json.at("shape")) {
      const int64_t size = extent.get<int64_t>();
      if (size < 1 || size > (int64_t{1} << 32)) bad(entry, "has an impossible shape");
      state.shape.push_back(size);
      elements *= static_cast<uint64_t>(size);
      if (elements > (uint64_t{1} << 40)) bad(entry, "has an impossible shape");
    }
    const std::string dtype = json.at("dtype").get<std::string>();
    if (dtype == "float16") {
      state.dtype = StoredType::F16;
    } else if (dtype == "bfloat16") {
      state.dtype = StoredType::BF16;
    } else if (dtype != "float32") {
      bad(entry, "has the dtype \"" + dtype + "\"");
    }
    state.block = json.at("blocksize").get<int64_t>();
    if (json.contains("nested_blocksize")) {
      state.nested_block = json.at("nested_blocksize").get<int64_t>();
      state.offset = json.at("nested_offset").get<float>();
      if (!std::isfinite(state.offset)) bad(entry, "has an offset that is no number");
      if (state.nested_block < 1 || state.nested_block > (1 << 20)) bad(entry, "has an impossible nested_blocksize");
    }
  } catch (const nlohmann::json::exception& error) {
    bad(entry, std::string("lacks what a quantisation state has (") + error.what() + ")");
  }
  if (state.block < 2 || state.block > (1 << 20)) bad(entry, "has an impossible blocksize");
  return state;
}

/// A piece of the state, of this type and number of elements.
ModelTensors::Entry piece(const ModelTensors& tensors, const ModelTensors::Entry& weight, const char* suffix,
                          StoredType type, int64_t count) {
  const std::string name = weight.tensor->name + suffix;
  const ModelTensors::Entry entry = tensors.find(name);
  if (entry.tensor == nullptr) bad(weight, "lacks its " + name);
  if (entry.tensor->type != type || entry.tensor->elements() != count) {
    bad(entry, "must hold " + std::to_string(count) + " values of " + stored_type_name(type));
  }
  return entry;
}

template <typename T>
std::vector<T> copy_of(const ModelTensors::Entry& entry) {
  const std::span<const std::byte> bytes = entry.file->bytes(*entry.tensor);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template <size_t N>
void check_code(const ModelTensors::Entry& entry, const std::array<float, N>& code) {
  const std::vector<float> found = copy_of<float>(entry);
  if (!std::equal(found.begin(), found.end(), code.begin(),
                  [](float a, float b) { return std::fabs(a - b) < 1e-6f; })) {
    bad(entry, "is another code than bitsandbytes' own");
  }
}

std::optional<std::pair<ModelTensors::Entry, State>> find_weight(const ModelTensors& tensors, const std::string& name) {
  const ModelTensors::Entry state = tensors.find(name + state_suffix);
  if (state.tensor == nullptr) return std::nullopt;
  const ModelTensors::Entry weight = tensors.find(name);
  if (weight.tensor == nullptr) bad(state, "has no weight beside it");
  return std::pair(weight, read_state(state));
}

float rounded(StoredType dtype, float value) {
  if (dtype == StoredType::F16) return half_to_float(float_to_half(value));
  if (dtype == StoredType::BF16) return static_cast<float>(bf16(value));
  return value;
}

}  // namespace

int64_t BitsandbytesWeight::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

void BitsandbytesWeight::read(Ptr out) const {
  dispatch(out.dtype, [&]<typename T>() {
    T* to = out.as<T>();
    const int64_t count = elements();
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t pair = packed[static_cast<size_t>(i / 2)];
      const float value = nf4_code[i % 2 == 0 ? pair >> 4 : pair & 15] * absmax[static_cast<size_t>(i / block)];
      to[i] = T(rounded(dtype, value));
    }
  });
}

std::optional<Nf4Storage> BitsandbytesWeight::storage() const {
  const bool nested = !absmax_u8.empty();
  if (shape.size() != 2 || block != nf4_block || (nested && nested_block != nf4_nested_block)) return std::nullopt;
  Nf4Storage storage;
  storage.packed = packed;
  storage.rows = shape[0];
  storage.cols = shape[1];
  if (nested) {
    storage.absmax_u8 = absmax_u8;
    storage.absmax2 = absmax2;
    storage.offset = offset;
  } else {
    storage.absmax = absmax;
  }
  return storage;
}

bool is_bitsandbytes_state(const std::string& name) {
  for (const char* suffix : {".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
                             ".weight.quant_state.bitsandbytes__nf4"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

std::optional<std::vector<int64_t>> bitsandbytes_shape(const ModelTensors& tensors, const std::string& name) {
  const auto found = find_weight(tensors, name);
  if (!found) return std::nullopt;
  return found->second.shape;
}

std::optional<BitsandbytesWeight> read_bitsandbytes(const ModelTensors& tensors, const std::string& name) {
  const auto found = find_weight(tensors, name);
  if (!found) return std::nullopt;
  const auto& [weight, state] = *found;
  BitsandbytesWeight result;
  result.shape = state.shape;
  result.dtype = state.dtype;
  result.block = state.block;
  const int64_t count = result.elements(), blocks = (count + state.block - 1) / state.block;
  if (weight.tensor->type != StoredType::U8 || weight.tensor->elements() != (count + 1) / 2) {
    bad(weight, "must hold " + std::to_string((count + 1) / 2) + " bytes of 4-bit codes");
  }
  result.packed = copy_of<uint8_t>(weight);
  check_code(piece(tensors, weight, ".quant_map", StoredType::F32, 16), nf4_code);
  if (state.nested_block == 0) {
    result.absmax = copy_of<float>(piece(tensors, weight, ".absmax", StoredType::F32, blocks));
  } else {
    const int64_t outer = (blocks + state.nested_block - 1) / state.nested_block;
    result.nested_block = state.nested_block;
    result.offset = state.offset;
    result.absmax_u8 = copy_of<uint8_t>(piece(tensors, weight, ".absmax", StoredType::U8, blocks));
    result.absmax2 = copy_of<float>(piece(tensors, weight, ".nested_absmax", StoredType::F32, outer));
    check_code(piece(tensors, weight, ".nested_quant_map", StoredType::F32, 256), dynamic_code_signed);
    result.absmax.resize(static_cast<size_t>(blocks));
    for (int64_t i = 0; i < blocks; ++i) {
      result.absmax[static_cast<size_t>(i)] = dynamic_code_signed[result.absmax_u8[static_cast<size_t>(i)]] *
                                                  result.absmax2[static_cast<size_t>(i / state.nested_block)] +
                                              state.offset;
    }
  }
  result.bytes = weight.tensor->size + static_cast<uint64_t>(blocks) * (state.nested_block == 0 ? 4 : 1);
  return result;
}

}  // namespace caravan
