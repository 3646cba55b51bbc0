// The parity gate: what is written passes, and what was changed by a byte afterwards does not.
#include <bit>
#include <cmath>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/export/verify_export.h"
#include "engine/io/half.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::vector<int32_t>> prompts = {{1, 5, 9, 13, 17, 21, 25}, {2, 4, 8, 16, 32}, {60, 3, 59, 6}};

struct Exported {
  TempFolder folder;
  ExportOptions options;

  Exported(const char* name, Method method, ExportLayout layout, ExportType type) : folder(name) {
    TrainOptions run = tiny_run(folder, method);
    run.epochs = 1;
    const Told told = train(run);
    REQUIRE(told.error == "");
    options.model_dir = run.model_dir;
    options.checkpoint_dir = told.result.checkpoint;
    options.base = {run.base_dtype, run.double_quant, DType::bf16};
    options.layout = layout;
    options.type = type;
    options.out_dir = folder.path("out");
    options.threads = 1;
    fs::create_directories(options.out_dir);
    write_export(open(), options, {});
  }

  TrainedModel open() const { return TrainedModel::open(Exec(), options, {}); }
  ExportReport verify() const { return verify_export(open(), options, prompts, {}); }
  std::string file(const char* name) const { return (fs::path(options.out_dir) / name).string(); }
  /// Flips the lowest bit of one element of a tensor.
  void change(const char* file_name, const std::string& tensor, int64_t element = 0) const {
    std::string bytes = read_file(file(file_name));
    {
      const SafetensorsFile opened = SafetensorsFile::open(file(file_name));
      const TensorInfo& info = opened.get(tensor);
      bytes[info.offset + static_cast<uint64_t>(element) * stored_type_size(info.type)] ^= 1;
    }
    write_file(file(file_name), bytes);
  }
};

bool names(const ExportReport& report, const std::string& tensor) {
  for (const std::string& wrong : report.tensors.wrong)
    if (wrong.starts_with(tensor)) return true;
  return false;
}

}  // namespace

TEST_CASE("a merged export is the run, and one changed bit of a copied tensor is found") {
  const Exported exported("merged", Method::lora, ExportLayout::merged, ExportType::f32);
  const ExportReport report = exported.verify();
  CHECK(report.passed);
  CHECK(report.tensors.wrong.empty());
  CHECK(report.tensors.merged == 14);
  CHECK(report.logits.tokens == 16);
  CHECK(report.logits.max_difference < 1e-4);
  CHECK(report.logits.max_difference > 0.0);  // two ways to one sum
  exported.change("model.safetensors", "model.norm.weight", 3);
  const ExportReport changed = exported.verify();
  CHECK_FALSE(changed.passed);
  REQUIRE(changed.tensors.wrong.size() == 1);
  CHECK(names(changed, "model.norm.weight: 1 of 32 elements"));
}

TEST_CASE("a merge that is off by more than rounding is found") {
  const Exported exported("off", Method::lora, ExportLayout::merged, ExportType::f32);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  std::string bytes = read_file(exported.file("model.safetensors"));
  {
    const SafetensorsFile file = SafetensorsFile::open(exported.file("model.safetensors"));
    bytes[file.get(name).offset + 1] ^= 0x20;  // some 2e-5 of its value
  }
  write_file(exported.file("model.safetensors"), bytes);
  CHECK(names(exported.verify(), name));
}

TEST_CASE("experts that were swapped are found by their numbers and by the logits") {
  const Exported exported("swapped", Method::pesc, ExportLayout::camelidae, ExportType::f32);
  CHECK(exported.verify().passed);
  const std::string up = ".adapter_up.weight", expert = "model.layers.0.mlp.moe_adapter.experts.expert_";
  std::string bytes = read_file(exported.file("model.safetensors"));
  {
    const SafetensorsFile file = SafetensorsFile::open(exported.file("model.safetensors"));
    const TensorInfo &a = file.get(expert + "0" + up), &b = file.get(expert + "1" + up);
    std::swap_ranges(bytes.begin() + static_cast<long>(a.offset), bytes.begin() + static_cast<long>(a.offset + a.size),
                     bytes.begin() + static_cast<long>(b.offset));
  }
  write_file(exported.file("model.safetensors"), bytes);
  const ExportReport report = exported.verify();
  CHECK_FALSE(report.passed);
  CHECK(names(report, expert + "0" + up));
  CHECK(names(report, expert + "1" + up));
  CHECK(report.logits.max_difference > 0.0);
}

TEST_CASE("a tensor too many and one too few are named") {
  const Exported exported("named", Method::pesc, ExportLayout::adapter, ExportType::f32);
  CHECK(exported.verify().passed);
  std::string bytes = read_file(exported.file(adapter_weights_name));
  // The header keeps its length, so the file stays whole.
  const size_t at = bytes.find("layers.1.mlp.router");
  REQUIRE(at != std::string::npos);
  bytes[at + 7] = '7';
  write_file(exported.file(adapter_weights_name), bytes);
  // Our own reader refuses it first: no logits are compared with what does not load.
  CHECK_THROWS_AS(exported.verify(), EngineError);
}

TEST_CASE("16 bits pass by divergence, and experts without a token are named") {
  const Exported exported("sixteen", Method::upcycle, ExportLayout::mixtral, ExportType::bf16);
  const ExportReport report = exported.verify();
  CHECK(report.passed);
  CHECK(report.logits.max_difference > 1e-5);
  CHECK(report.logits.kl < 1e-4);
  CHECK(report.limit.find("KL") != std::string::npos);
  int64_t used = 0;
  for (const auto& each : report.unused) used += each.layer >= 0 && each.expert < 4 ? 1 : 0;
  CHECK(used == static_cast<int64_t>(report.unused.size()));
}

TEST_CASE("a cancelled export ends at once") {
  Exported exported("cancelled", Method::lora, ExportLayout::merged, ExportType::f32);
  std::atomic<bool> cancelled{true};
  ExportWatch watch;
  watch.cancelled = &cancelled;
  try {
    write_export(exported.open(), exported.options, watch);
    FAIL("it went on");
  } catch (const EngineError& error) {
    CHECK(error.code == "cancelled");
  }
}

TEST_CASE("half precision: every value comes back, and ties go to the even neighbour") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value)) {
      CHECK(std::isnan(half_to_float(float_to_half(value))));
    } else {
      CHECK(float_to_half(value) == half);
    }
  }
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const float middle = 0.5f * (half_to_float(low) + half_to_float(high));
    CHECK(float_to_half(middle) == (low % 2 == 0 ? low : high));
    CHECK(float_to_half(std::nextafter(middle, 0.0f)) == low);
    CHECK(float_to_half(-std::nextafter(middle, 1e9f)) == (high | 0x8000));
  }
  CHECK(float_to_half(65519.0f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
}

TEST_CASE("Q8_0 and Q4_0 are within half a step of every value") {
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<float>(i) * 1.7f) * (i < 32 ? 1.0f : 1e-3f);
  for (const GgmlType type : {GgmlType::Q8_0, GgmlType::Q4_0}) {
    std::vector<std::byte> blocks(2 * ggml_layout(type).bytes);
    quantize_blocks(type, values, blocks);
    std::vector<float> back(values.size());
    dequantize_blocks(type, blocks, back.data());
    for (size_t i = 0; i < values.size(); ++i) {
      const float largest = i < 32 ? 1.0f : 1e-3f;
      CHECK(std::fabs(values[i] - back[i]) <= largest * (type == GgmlType::Q8_0 ? 0.6f / 127.0f : 1.01f / 8.0f));
    }
  }
}
