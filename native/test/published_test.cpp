// Sparse models in the layouts of their publishers against published_model.py, plain PyTorch (record_published.py).
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "engine/io/safetensors.h"
#include "engine/model/model_summary.h"
#include "engine/platform/error.h"
#include "engine/train/training_plan.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

std::string published(const std::string& name) { return std::string(CARAVAN_TEST_DIR) + "/published/" + name; }

struct Copy {
  TempFolder folder;
  std::string dir;
  explicit Copy(const std::string& name) : folder("published"), dir(folder.path("model")) {
    fs::create_directories(dir);
    fs::copy(published(name), dir);
  }
  void replace(const std::string& from, const std::string& to) const {
    std::string text = read_file(dir + "/config.json");
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    write_file(dir + "/config.json", text.replace(at, from.size(), to));
  }
};

std::shared_ptr<InferenceModel> open(const std::string& dir, BaseDType base = BaseDType::f32) {
  OpenModelOptions options;
  options.model_dir = dir;
  options.base_dtype = base;
  options.threads = 1;
  return InferenceModel::open(options);
}

struct Expected {
  std::vector<int32_t> ids;
  std::vector<float> logits;
};

Expected expected_of(const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(published(name) + "/expected.safetensors");
  const auto ids = file.as<int32_t>(file.get("ids"));
  const auto logits = file.as<float>(file.get("logits"));
  return {{ids.begin(), ids.end()}, {logits.begin(), logits.end()}};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(double{a[i]} - double{b[i]}));
  return largest;
}

std::string error_of(const std::string& dir) {
  try {
    open(dir);
  } catch (const EngineError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("published layouts load and match plain PyTorch") {
  struct Case {
    const char* name;
    const char* family;
    int64_t experts, top_k;
    double scale;
  };
  for (const Case& each : {Case{"camelidae", "llama", 4, 2, 0.25}, Case{"camelidae-first", "llama", 4, 1, 0.25},
                           Case{"qwen2idae", "qwen2", 6, 4, 0.25}, Case{"sparsetral", "mistral", 6, 4, 1.0}}) {
    CAPTURE(each.name);
    const auto model = open(published(each.name));
    const ModelSummary summary = summarize_model(published(each.name));
    CHECK(summary.config.family == each.family);
    CHECK(summary.config.experts.num_experts == each.experts);
    CHECK(summary.config.experts.top_k == each.top_k);
    CHECK(summary.config.experts.adapter_scale == doctest::Approx(each.scale));
    CHECK(summary.parameters.experts == 2 * (each.experts * 2 * 6 * 32 + each.experts * 32));
    CHECK(model->num_experts() == each.experts);
    const Expected expected = expected_of(each.name);
    CHECK(largest_difference(model->logits(expected.ids), expected.logits) < 1e-4);
    // The numbers are stored in bf16, so a bf16 base loses nothing.
    CHECK(largest_difference(open(published(each.name), BaseDType::bf16)->logits(expected.ids), expected.logits) <
          1e-4);
  }
}

TEST_CASE("scale and top-k of the file are honoured") {
  const Expected expected = expected_of("camelidae");
  const Copy scale("camelidae");
  scale.replace("\"moe_scaling\": 0.25", "\"moe_scaling\": 1.0");
  CHECK(largest_difference(open(scale.dir)->logits(expected.ids), expected.logits) > 1e-2);
  const Copy top_k("camelidae");
  top_k.replace("\"topk\": 2", "\"topk\": 1");
  CHECK(largest_difference(open(top_k.dir)->logits(expected.ids), expected.logits) > 1e-2);
}

TEST_CASE("what is missing is named, not guessed") {
  const Copy scale("camelidae");
  scale.replace("\"moe_scaling\"", "\"scaling\"");
  CHECK(error_of(scale.dir).find("moe_scaling is missing") != std::string::npos);
  const Copy experts("sparsetral");
  experts.replace("\"num_experts\": 6", "\"num_experts\": 7");
  CHECK(error_of(experts.dir).find("experts.6.adapter_down.weight") != std::string::npos);
  const Copy width("camelidae");
  width.replace("\"adapter_dim\": 6", "\"adapter_dim\": 5");
  CHECK(error_of(width.dir).find("has shape (6, 32), but config.json asks for (5, 32)") != std::string::npos);
  const Copy many("camelidae");
  many.replace("\"topk\": 2", "\"topk\": 5");
  CHECK(error_of(many.dir).find("topk is 5; it must be from 1 to 4") != std::string::npos);
}

TEST_CASE("Camelidae-8x34B computes with the rotary base of Yi-34B, which its configuration leaves out") {
  std::string text = read_file(published("camelidae") + "/config.json");
  CHECK(parse_model_config(text, "config.json").rope_theta == 10000.0);
  const auto set = [&](const std::string& key, const std::string& value) {
    const size_t at = text.find("\"" + key + "\":"), end = text.find(',', at);
    text.replace(at, end - at, "\"" + key + "\": " + value);
  };
  set("hidden_size", "7168");
  set("num_hidden_layers", "60");
  set("num_attention_heads", "56");
  set("num_key_value_heads", "8");
  set("vocab_size", "64000");
  CHECK(parse_model_config(text, "config.json").rope_theta == 5e6);
}

TEST_CASE("a mixture of experts is no base to train on") {
  const TempFolder folder("on-experts");
  TrainOptions options = tiny_run(folder, Method::pesc);
  options.model_dir = published("camelidae");
  try {
    plan_training(options);
    FAIL("it was planned");
  } catch (const EngineError& error) {
    CHECK(error.code == "unsupported_architecture");
    CHECK(std::string(error.what()).find("dense model") != std::string::npos);
  }
}
