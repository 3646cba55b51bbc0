// What caravan.node exports: core/engine/AddonTypes.ts names and explains all of it.
#include <napi.h>

#include "addon/environment.h"
#include "addon/exporting.h"
#include "addon/files.h"
#include "addon/inference.h"
#include "addon/machine.h"
#include "addon/near_duplicates.h"
#include "addon/onnx.h"
#include "addon/overlap.h"
#include "addon/tokenizer.h"
#include "addon/trainer.h"
#include "addon/training_plan.h"

namespace caravan::addon {

namespace {

/// Runs before the environment's objects and references go.
void end_environment(Environment* environment) {
  while (!environment->running.empty()) {
    Running* const running = *environment->running.begin();
    environment->running.erase(running);
    running->stop_and_join();
  }
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment;
  env.SetInstanceData(environment);
  environment->tokenizer_class = Napi::Persistent(TokenizerObject::define(env));
  environment->near_duplicates_class = Napi::Persistent(NearDuplicatesObject::define(env));
  environment->overlap_class = Napi::Persistent(OverlapObject::define(env));
  environment->model_class = Napi::Persistent(ModelObject::define(env));
  environment->trainer_class = Napi::Persistent(TrainerObject::define(env));
  environment->answer_class = Napi::Persistent(AnswerObject::define(env));
  env.AddCleanupHook(end_environment, environment);
  measure_program();

  const auto add = [&](const char* name, auto* function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("buildInfo", describe_build);
  add("devices", list_devices);
  add("cudaStatus", describe_cuda);
  add("openTokenizer", TokenizerObject::open);
  add("hashFile", hash_file);
  add("hashModel", hash_model_folder);
  add("inspectModel", inspect_model);
  add("inspectSafetensors", inspect_safetensors);
  add("inspectGgufTokenizer", inspect_gguf_tokenizer);
  add("writeTokenShard", write_shard);
  add("readTokenShardInfo", read_shard_info);
  add("readTokenShardRows", read_shard_rows);
  add("rowOrder", order_rows);
  add("createNearDuplicates", NearDuplicatesObject::create);
  add("createOverlapSearch", OverlapObject::create);
  add("openModel", ModelObject::open);
  add("planExport", plan_model_export);
  add("exportModel", export_model);
  add("describeOnnxExport", describe_onnx_export);
  add("exportOnnx", export_onnx);
  add("compareLogits", compare_model_logits);
  add("createAnswer", AnswerObject::create);
  add("createTrainer", TrainerObject::create);
  add("planTraining", plan_run);
  add("probeTraining", probe_run);
  add("listCheckpoints", list_run_checkpoints);
  return exports;
}

}  // namespace

NODE_API_MODULE(caravan, initialize)

}  // namespace caravan::addon
