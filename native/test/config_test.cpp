// config.json of the families, every rope scaling against transformers' formulas worked by hand, and refusals.
#include <cmath>

#include "doctest/doctest.h"
#include "engine/model/model_config.h"
#include "engine/model/rope_table.h"
#include "kernels/error.h"
#include "tiny_model.h"

using namespace caravan;

namespace {

std::string with(const std::string& json, const std::string& extra) {
  return json.substr(0, json.rfind('}')) + ", " + extra + "}";
}

std::string without(std::string json, const std::string& key) {
  const size_t at = json.find("\"" + key + "\"");
  const size_t end = json.find(',', at);
  return json.erase(at, end - at + 1);
}

EngineError error_of(const std::string& json) {
  try {
    parse_model_config(json, "m/config.json");
  } catch (const EngineError& error) {
    return error;
  }
  FAIL("no error");
  return {"", ""};
}

std::vector<double> frequencies(const std::string& scaling, int64_t positions, double* factor) {
  return rope_frequencies(parse_model_config(with(test::tiny_config_json(), scaling), "tiny"), positions, factor);
}

}  // namespace

TEST_CASE("each family reads its own switches") {
  const ModelConfig llama = test::tiny_config("llama");
  CHECK(llama.family == "llama");
  CHECK(llama.head_dim == 8);
  CHECK_FALSE(llama.qkv_bias);
  CHECK(llama.windows == std::vector<int64_t>{0, 0});

  const ModelConfig biased =
      parse_model_config(with(test::tiny_config_json(), R"("attention_bias": true, "mlp_bias": true)"), "tiny");
  CHECK(biased.qkv_bias);
  CHECK(biased.o_bias);
  CHECK(biased.mlp_bias);

  const ModelConfig qwen2 = test::tiny_config("qwen2");
  CHECK(qwen2.qkv_bias);
  CHECK_FALSE(qwen2.o_bias);
  CHECK(qwen2.tied_embeddings);
  CHECK(test::tiny_config("qwen3").qk_norm);
}

TEST_CASE("sliding windows: Mistral everywhere, Qwen2 only when switched on and from max_window_layers") {
  const auto windows = [](const std::string& family, const std::string& extra) {
    return parse_model_config(with(test::tiny_config_json(family), extra), "tiny").windows;
  };
  using Windows = std::vector<int64_t>;
  CHECK(windows("mistral", R"("sliding_window": 16)") == Windows{16, 16});
  CHECK(windows("mistral", R"("sliding_window": null)") == Windows{0, 0});
  CHECK(windows("qwen2", R"("sliding_window": 16, "max_window_layers": 1)") == Windows{0, 0});
  CHECK(windows("qwen2", R"("sliding_window": 16, "max_window_layers": 1, "use_sliding_window": true)") ==
        Windows{0, 16});
  CHECK(windows("qwen2", R"("sliding_window": 16, "use_sliding_window": true,
                            "layer_types": ["sliding_attention", "full_attention"])") == Windows{16, 0});
  CHECK(windows("llama", R"("sliding_window": 16)") == Windows{0, 0});
}

TEST_CASE("rope: plain, linear, dynamic, llama3, yarn under old and new keys") {
  double factor = 0.0;
  const std::vector<double> plain = frequencies(R"("rope_scaling": null)", 128, &factor);
  REQUIRE(plain.size() == 4);
  CHECK(plain[0] == 1.0);
  CHECK(plain[2] == doctest::Approx(0.01));
  CHECK(factor == 1.0);

  const auto linear = frequencies(R"("rope_scaling": {"type": "linear", "factor": 4.0})", 128, &factor);
  CHECK(linear[1] == doctest::Approx(plain[1] / 4.0));

  const std::string dynamic = R"("rope_scaling": {"rope_type": "dynamic", "factor": 2.0})";
  CHECK(frequencies(dynamic, 128, &factor)[3] == doctest::Approx(plain[3]));
  // Twice the length: base * (2 * 2 - 1)^(8 / 6).
  const double base = 10000.0 * std::pow(3.0, 8.0 / 6.0);
  CHECK(frequencies(dynamic, 256, &factor)[3] == doctest::Approx(std::pow(base, -6.0 / 8.0)));

  const auto llama3 = frequencies(
      R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64})",
      128, &factor);
  CHECK(llama3[0] == doctest::Approx(plain[0]));        // wave 6.3 < 64 / 4
  CHECK(llama3[3] == doctest::Approx(plain[3] / 8.0));  // wave 6283 > 64
  const double wave = 2.0 * M_PI / plain[1];            // 62.8: between 16 and 64
  const double blend = (64.0 / wave - 1.0) / 3.0;
  CHECK(llama3[1] == doctest::Approx((1.0 - blend) * plain[1] / 8.0 + blend * plain[1]));

  const auto yarn = frequencies(
      R"("rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})", 128, &factor);
  CHECK(factor == doctest::Approx(0.1 * std::log(4.0) + 1.0));
  // dim(32) = 8 ln(64 / (64 pi)) / (2 ln 10000) < 0 -> 0; dim(1) = 8 ln(64 / (2 pi)) / (2 ln 10000) = 1.008 -> 2.
  CHECK(yarn[0] == doctest::Approx(plain[0]));
  CHECK(yarn[1] == doctest::Approx(plain[1] * (0.5 + 0.5 / 4.0)));
  CHECK(yarn[2] == doctest::Approx(plain[2] / 4.0));
}

TEST_CASE("what is missing or unknown is named with its mend") {
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "rms_norm_eps",
                          "max_position_embeddings", "intermediate_size"}) {
    const EngineError error = error_of(without(test::tiny_config_json(), key));
    CHECK(error.code == "bad_file");
    CHECK(std::string(error.what()).find("m/config.json: " + std::string(key) + " is missing") != std::string::npos);
  }
  const std::string text = test::tiny_config_json();
  EngineError error = error_of(std::string(text).replace(text.find("LlamaForCausalLM"), 16, "GemmaForCausalLM"));
  CHECK(error.code == "unsupported_architecture");
  CHECK(std::string(error.what()).find("GemmaForCausalLM") != std::string::npos);
  CHECK(error_of("{\"architectures\": ").code == "bad_file");
  CHECK(error_of("[]").code == "bad_file");
  CHECK(error_of(with(text, R"("rope_scaling": {"type": "longrope", "factor": 2.0})")).code == "bad_file");
  CHECK(error_of(with(text, R"("rope_scaling": {"type": "linear"})")).code == "bad_file");
  CHECK(error_of(with(text, R"("quantization_config": {"load_in_4bit": true})")).code == "bad_file");
  CHECK(error_of(with(without(text, "num_key_value_heads"), R"("num_key_value_heads": 3)")).code == "bad_file");
  CHECK(error_of(with(without(text, "hidden_size"), R"("hidden_size": "many")")).code == "bad_file");
}

TEST_CASE("a written config reads back to the same model") {
  for (const char* family : {"llama", "qwen2", "qwen3", "mistral"}) {
    const ModelConfig config = test::tiny_config(family);
    const ModelConfig again = parse_model_config(write_model_config(config, "bfloat16"), "written");
    CHECK(again.architecture == config.architecture);
    CHECK(again.head_dim == config.head_dim);
    CHECK(again.norm_eps == config.norm_eps);
    CHECK(again.qkv_bias == config.qkv_bias);
    CHECK(again.tied_embeddings == config.tied_embeddings);
    CHECK(again.parameter_count() == config.parameter_count());
  }
}

TEST_CASE("parameters of Llama-2-7B") {
  const ModelConfig config = parse_model_config(
      R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
          "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
          "rms_norm_eps": 1e-5})",
      "llama-2");
  CHECK(config.parameter_count() == 6738415616);
  MethodOptions method;
  method.method = Method::pesc;
  int64_t trainable = 0;
  for (const Parameter& parameter : list_parameters(config, method)) trainable += parameter.count;
  CHECK(trainable == 1234698240);  // Camelidae 8x7B with LoRA r64
  MethodOptions merged = method;
  int64_t added = 0;
  for (const Parameter& parameter : list_parameters(config, merged)) {
    if (parameter.group != ParameterGroup::lora) added += parameter.count;
  }
  CHECK(config.parameter_count() + added == 7813206016);
}
