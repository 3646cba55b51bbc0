// Checkpoints that bitsandbytes stored in NF4: code by code where the base is kept in NF4, and dequantised as
// bitsandbytes does, against its own recorded output.
#include "engine/io/bitsandbytes.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "engine/model/model_source.h"
#include "engine/platform/error.h"
#include "test_data.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

/// Collects tensors that own their bytes.
struct Writer {
  std::vector<TensorToWrite> tensors;
  std::vector<std::vector<std::byte>> held;

  void add(const std::string& name, StoredType type, std::vector<int64_t> shape, const void* data, size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    held.emplace_back(from, from + bytes);
    tensors.push_back({name, type, std::move(shape), {}});
  }
  void text(const std::string& name, const std::string& value) {
    add(name, StoredType::U8, {static_cast<int64_t>(value.size())}, value.data(), value.size());
  }
  void write(const std::string& path) {
    for (size_t i = 0; i < tensors.size(); ++i) tensors[i].data = held[i];
    write_safetensors(path, tensors, {{"format", "pt"}});
  }
};

struct Packed {
  const void* packed;
  int64_t packed_bytes;
  std::vector<float> absmax;  // without double quantisation
  std::vector<uint8_t> absmax_u8;
  std::vector<float> absmax2;
  float offset = 0.0f;
};

/// One weight as bitsandbytes serialises it.
void add_weight(Writer& writer, const std::string& name, const Packed& weight, const std::vector<int64_t>& shape,
                const std::string& dtype) {
  writer.add(name, StoredType::U8, {weight.packed_bytes, 1}, weight.packed, static_cast<size_t>(weight.packed_bytes));
  writer.add(name + ".quant_map", StoredType::F32, {16}, nf4_code.data(), sizeof nf4_code);
  nlohmann::json state = {{"quant_type", "nf4"}, {"blocksize", 64}, {"dtype", dtype}, {"shape", shape}};
  if (weight.absmax_u8.empty()) {
    writer.add(name + ".absmax", StoredType::F32, {static_cast<int64_t>(weight.absmax.size())}, weight.absmax.data(),
               weight.absmax.size() * 4);
  } else {
    writer.add(name + ".absmax", StoredType::U8, {static_cast<int64_t>(weight.absmax_u8.size())},
               weight.absmax_u8.data(), weight.absmax_u8.size());
    writer.add(name + ".nested_absmax", StoredType::F32, {static_cast<int64_t>(weight.absmax2.size())},
               weight.absmax2.data(), weight.absmax2.size() * 4);
    writer.add(name + ".nested_quant_map", StoredType::F32, {256}, dynamic_code_signed.data(),
               sizeof dynamic_code_signed);
    state["nested_blocksize"] = 256;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = weight.offset;
  }
  writer.text(name + ".quant_state.bitsandbytes__nf4", state.dump());
}

Packed packed_of(const Nf4Storage& storage) {
  return {storage.packed.data(), static_cast<int64_t>(storage.packed.size()),
          storage.absmax,        storage.absmax_u8,
          storage.absmax2,       storage.offset};
}

/// The tiny model with its projections stored in NF4.
void write_quantised_model(const TempFolder& folder, bool nested) {
  write_tiny_model(folder.path("plain"));
  fs::create_directories(folder.path("nf4"));
  const SafetensorsFile plain = SafetensorsFile::open(folder.path("plain/model.safetensors"));
  Writer writer;
  for (const TensorInfo& tensor : plain.tensors()) {
    const std::span<const std::byte> bytes = plain.bytes(tensor);
    if (tensor.name.find("_proj.weight") == std::string::npos) {
      writer.add(tensor.name, tensor.type, tensor.shape, bytes.data(), bytes.size());
      continue;
    }
    const Nf4Storage storage =
        nf4_quantize(Exec(), ConstPtr(bytes.data(), DType::f32), tensor.shape[0], tensor.shape[1], nested);
    add_weight(writer, tensor.name, packed_of(storage), tensor.shape, "float32");
  }
  writer.write(folder.path("nf4/model.safetensors"));
  nlohmann::json config = nlohmann::json::parse(read_file(folder.path("plain/config.json")));
  config["quantization_config"] = {{"quant_method", "bitsandbytes"},       {"load_in_4bit", true},
                                   {"bnb_4bit_quant_type", "nf4"},         {"bnb_4bit_use_double_quant", nested},
                                   {"bnb_4bit_compute_dtype", "bfloat16"}, {"bnb_4bit_quant_storage", "uint8"},
                                   {"llm_int8_skip_modules", {"lm_head"}}};
  write_file(folder.path("nf4/config.json"), config.dump());
}

std::vector<float> logits_of(const std::string& dir, BaseDType base, bool double_quant) {
  OpenModelOptions options;
  options.model_dir = dir;
  options.base_dtype = base;
  options.double_quant = double_quant;
  options.threads = 1;
  const std::vector<int32_t> row = {1, 7, 19, 33, 60, 2, 5};
  return InferenceModel::open(options)->logits(row);
}

std::string error_with(const TempFolder& folder, const std::string& from, const std::string& to) {
  std::string text = read_file(folder.path("nf4/config.json"));
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  const std::string whole = text;
  write_file(folder.path("nf4/config.json"), text.replace(at, from.size(), to));
  std::string error;
  try {
    read_model_config(folder.path("nf4"));
  } catch (const EngineError& caught) {
    error = caught.what();
  }
  write_file(folder.path("nf4/config.json"), whole);
  return error;
}

}  // namespace

TEST_CASE("a model that bitsandbytes stored is the one that is quantised when it is loaded, bit for bit") {
  for (const bool nested : {false, true}) {
    CAPTURE(nested);
    const TempFolder folder("bitsandbytes");
    write_quantised_model(folder, nested);
    CHECK(logits_of(folder.path("nf4"), BaseDType::nf4, nested) ==
          logits_of(folder.path("plain"), BaseDType::nf4, nested));
    // Beside an NF4 base the embedding is kept in bf16.
    const std::vector<float> wide = logits_of(folder.path("nf4"), BaseDType::f32, nested);
    const std::vector<float> narrow = logits_of(folder.path("nf4"), BaseDType::nf4, nested);
    for (size_t i = 0; i < wide.size(); ++i) REQUIRE(std::fabs(wide[i] - narrow[i]) < 5e-3f);
    CHECK(ModelSource::open(folder.path("nf4"))->stored_types() == std::vector<std::string>{"F32", "NF4"});
  }
}

TEST_CASE("other quantisations are refused by name") {
  const TempFolder folder("refused");
  write_quantised_model(folder, true);
  CHECK(error_with(folder, "\"nf4\"", "\"fp4\"").find("bnb_4bit_quant_type") != std::string::npos);
  CHECK(error_with(folder, "\"bitsandbytes\"", "\"gptq\"").find("quantised by gptq") != std::string::npos);
  CHECK(error_with(folder, "\"uint8\"", "\"bfloat16\"").find("bnb_4bit_quant_storage") != std::string::npos);
}

TEST_CASE("bitsandbytes' own output is dequantised as it does") {
  const auto path = test_data("data/bitsandbytes-cases.safetensors", "NF4 checkpoints against bitsandbytes' output");
  if (!path) return;
  const SafetensorsFile file = SafetensorsFile::open(*path);
  const TempFolder folder("recorded");
  int checked = 0;
  for (const char* kind : {"plain", "odd", "heavy_tail", "tiny"}) {
    for (const char* dtype : {"float32", "float16", "bfloat16"}) {
      for (const bool nested : {false, true}) {
        const std::string prefix = std::string("nf4.") + kind + "." + dtype + ".";
        const TensorInfo& codes = file.get(prefix + "packed");
        const TensorInfo& input = file.get(prefix + "input");
        Packed packed{file.bytes(codes).data(), static_cast<int64_t>(codes.size), {}, {}, {}, 0.0f};
        const auto floats = [&](const char* name) {
          const auto values = file.as<float>(file.get(prefix + name));
          return std::vector<float>(values.begin(), values.end());
        };
        packed.absmax = floats("absmax");
        if (nested) {
          const auto bytes = file.as<uint8_t>(file.get(prefix + "dq.absmax_u8"));
          packed.absmax_u8.assign(bytes.begin(), bytes.end());
          packed.absmax2 = floats("dq.absmax2");
          packed.offset = floats("dq.offset")[0];
        }
        Writer writer;
        add_weight(writer, "a.weight", packed, input.shape, dtype);
        writer.write(folder.path("model.safetensors"));
        const auto read = read_bitsandbytes(ModelTensors::open(folder.path()), "a.weight");
        REQUIRE(read);
        std::vector<float> values(static_cast<size_t>(read->elements()));
        read->read(values.data());
        const TensorInfo& expected = file.get(prefix + (nested ? "dq.dequant" : "dequant"));
        std::vector<float> wanted(values.size());
        if (expected.type == StoredType::U16) {
          const auto bits = file.as<uint16_t>(expected);
          for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = static_cast<float>(bf16::from_bits(bits[i]));
        } else {
          read_tensor(file, expected, wanted.data());
        }
        CHECK(values == wanted);
        ++checked;
      }
    }
  }
  CHECK(checked == 24);
}
