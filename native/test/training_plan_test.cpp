// The plan of a run against the run itself.
#include <fstream>
#include <sstream>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/train/training_plan.h"
#include "engine/train/training_session.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const Method all_methods[] = {Method::lora, Method::pesc, Method::full, Method::upcycle};

int64_t bytes_of(const TrainingPlan& plan, const std::string& item) {
  for (const MemoryItem& one : plan.memory.items) {
    if (one.item == item) return one.bytes;
  }
  FAIL("the plan has no item " << item);
  return 0;
}

ModelConfig llama2_7b() {
  return parse_model_config(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": false})",
                            "llama2");
}

}  // namespace

TEST_CASE("planned parameters are those of a real set, group by group") {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    for (const Method method : all_methods) {
      const TempFolder folder("plan");
      TrainOptions options = tiny_run(folder, method);
      write_tiny_model(folder.path("model"), family);
      const TrainingPlan plan = plan_training(options);
      const TrainingSession session = open_training_session(options);
      int64_t lora = 0, adapter = 0, router = 0, all = 0;
      for (const Parameter& parameter : session.set->parameters()) {
        all += parameter.count;
        if (parameter.group == ParameterGroup::lora) lora += parameter.count;
        if (parameter.group == ParameterGroup::adapter) adapter += parameter.count;
        if (parameter.group == ParameterGroup::router) router += parameter.count;
      }
      INFO(std::string(family) << " " << std::string(method_name(method)));
      CHECK(plan.trainable_parameters == all);
      CHECK(plan.lora_parameters == lora);
      CHECK(plan.adapter_parameters == adapter);
      CHECK(plan.router_parameters == router);
      CHECK(plan.base_parameters == session.config.parameter_count());
      switch (method) {
        case Method::full: CHECK(plan.total_parameters == plan.base_parameters); break;
        case Method::upcycle: CHECK(plan.total_parameters == all); break;
        default: CHECK(plan.total_parameters == plan.base_parameters + all); break;
      }
      CHECK(plan.rows == 40);
      CHECK(plan.steps == 10);
      CHECK(plan.warmup_steps == 1);
    }
  }
}

TEST_CASE("Camelidae 8x7B has its published number of parameters") {
  const ModelConfig config = llama2_7b();
  MethodOptions method;
  method.method = Method::pesc;
  int64_t lora = 0, all = 0;
  for (const Parameter& parameter : list_parameters(config, method)) {
    all += parameter.count;
    if (parameter.group == ParameterGroup::lora) lora += parameter.count;
  }
  CHECK(all == 1'234'698'240);
  CHECK(config.parameter_count() + all - lora == 7'813'206'016);  // LoRA merged
}

TEST_CASE("planned memory is within a tenth of what a session holds, item by item") {
  for (const Method method : all_methods) {
    for (const BaseDType base : {BaseDType::f32, BaseDType::bf16, BaseDType::nf4}) {
      for (const bool eight_bit : {false, true}) {
        if (base == BaseDType::nf4 && (method == Method::full || method == Method::upcycle)) continue;
        const TempFolder folder("memory");
        TrainOptions options = tiny_run(folder, method);
        options.base_dtype = base;
        options.train_dtype = eight_bit ? DType::bf16 : DType::f32;
        options.optimizer = eight_bit ? "adamw8bit" : "adamw";
        options.method.adapter_dim = 64;
        options.method.lora_rank = 16;
        const TrainingPlan plan = plan_training(options);
        TrainingSession session = open_training_session(options);
        const auto close = [&](const char* item, size_t real) {
          INFO(std::string(method_name(method))
               << " " << std::string(base_dtype_name(base)) << " " << std::string(item));
          CHECK(static_cast<double>(bytes_of(plan, item)) == doctest::Approx(static_cast<double>(real)).epsilon(0.1));
        };
        close("trainable", session.set->value_bytes());
        close("gradients", session.set->value_bytes());
        close("optimizer", session.optimizer->bytes());
        const BaseModel* held = session.model->base();
        close("base", held == nullptr ? 0 : held->bytes());
        const int64_t pass = bytes_of(plan, "activations") + bytes_of(plan, "workspace") + bytes_of(plan, "logits");
        INFO(std::string(method_name(method)));
        CHECK(static_cast<double>(pass) ==
              doctest::Approx(static_cast<double>(session.decoder->memory_bytes())).epsilon(0.1));

        int64_t sum = 0;
        for (const MemoryItem& one : plan.memory.items) sum += one.bytes;
        CHECK(plan.memory.total == sum);

        int64_t checkpoint = 0;
        for (const TensorToWrite& tensor : trainable_tensors(*session.set)) checkpoint += tensor.data.size();
        for (const TensorToWrite& tensor : optimizer_tensors(*session.optimizer)) checkpoint += tensor.data.size();
        CHECK(static_cast<double>(plan.checkpoint_bytes) ==
              doctest::Approx(static_cast<double>(checkpoint)).epsilon(0.1));
        CHECK(bytes_of(plan, "snapshot") == plan.checkpoint_bytes);
      }
    }
  }
}

TEST_CASE("a micro-batch is planned for no more bins than a step has, and a run with more evaluates as it trains") {
  const TempFolder folder("bins");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.micro_batch_size = options.batch_size = 4;
  const TrainingPlan exact = plan_training(options);
  const Told run = train(options);
  options.micro_batch_size = 4000;
  const TrainingPlan capped = plan_training(options);
  CHECK(capped.memory.total == exact.memory.total);
  CHECK(probe_training(options).step_ms > 0.0);
  options.checkpoint_dir = folder.path("more");
  const Told more = train(options);
  REQUIRE(more.evaluations.size() == run.evaluations.size());
  for (size_t i = 0; i < run.evaluations.size(); ++i) CHECK(more.evaluations[i].loss == run.evaluations[i].loss);
  REQUIRE(more.steps.size() == run.steps.size());
  CHECK(more.steps.back().loss == run.steps.back().loss);
}

TEST_CASE("a probe times a step of the run and leaves no trace") {
  const TempFolder folder("probe");
  const TrainOptions options = tiny_run(folder, Method::pesc);
  const ProbeResult probe = probe_training(options);
  CHECK(probe.step_ms > 0.0);
  // 8 conversations of 6 to 20 tokens.
  const double tokens = probe.tokens_per_second * probe.step_ms / 1000.0;
  CHECK(tokens > 8 * 6);
  CHECK(tokens < 8 * 20);
  CHECK_FALSE(std::filesystem::exists(options.checkpoint_dir));
}

TEST_CASE("what cannot be planned is refused by name") {
  const TempFolder folder("unplanned");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.batch_size = 0;
  CHECK_THROWS_WITH_AS(plan_training(options), doctest::Contains("batchSize is 0"), EngineError);
  options = tiny_run(folder, Method::full);
  options.base_dtype = BaseDType::nf4;
  CHECK_THROWS_WITH_AS(plan_training(options), doctest::Contains("baseDtype is nf4"), EngineError);
  options = tiny_run(folder, Method::lora);
  options.model_dir = folder.path("none");
  CHECK_THROWS_AS(plan_training(options), EngineError);
}
