#include "engine/train/training_plan.h"

#include "addon/options.h"
#include "addon/promise.h"
#include "addon/train_options.h"
#include "addon/training_plan.h"
#include "addon/values.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/platform/memory.h"

namespace caravan::addon {

namespace {

Napi::Value probe_to_js(Napi::Env env, const ProbeResult& probe) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("stepMs", number(env, probe.step_ms));
  result.Set("tokensPerSecond", number(env, probe.tokens_per_second));
  return result;
}

Napi::Value plan_to_js(Napi::Env env, const TrainingPlan& plan) {
  const Napi::Object result = Napi::Object::New(env);
  const Napi::Object parameters = Napi::Object::New(env);
  parameters.Set("base", number(env, plan.base_parameters));
  parameters.Set("lora", number(env, plan.lora_parameters));
  parameters.Set("adapters", number(env, plan.adapter_parameters));
  parameters.Set("routers", number(env, plan.router_parameters));
  parameters.Set("trainable", number(env, plan.trainable_parameters));
  parameters.Set("total", number(env, plan.total_parameters));
  result.Set("parameters", parameters);
  result.Set("memory", array_of(env, plan.memory.items, [](Napi::Env e, const MemoryItem& item) {
               const Napi::Object entry = Napi::Object::New(e);
               entry.Set("item", item.item);
               entry.Set("bytes", number(e, item.bytes));
               return entry;
             }));
  result.Set("totalMemoryBytes", number(env, plan.memory.total));
  result.Set("hostMemoryBytes", number(env, plan.memory.host));
  result.Set("checkpointBytes", number(env, plan.checkpoint_bytes));
  result.Set("rows", number(env, plan.rows));
  result.Set("steps", number(env, plan.steps));
  result.Set("warmupSteps", number(env, plan.warmup_steps));
  result.Set("probe", plan.probe ? probe_to_js(env, *plan.probe) : env.Null());
  return result;
}

Napi::Value checkpoints_to_js(Napi::Env env, const std::vector<CheckpointInfo>& checkpoints) {
  return array_of(env, checkpoints, [](Napi::Env e, const CheckpointInfo& checkpoint) {
    const Napi::Object item = Napi::Object::New(e);
    item.Set("step", number(e, checkpoint.step));
    item.Set("path", checkpoint.path);
    item.Set("bytes", number(e, checkpoint.bytes));
    item.Set("problem", checkpoint.problem.empty() ? e.Null() : text(e, checkpoint.problem));
    return item;
  });
}

/// What this program held before it had done anything: Node and the addon. A training process begins with as much.
int64_t program_bytes = 0;

TrainingPlan plan_with_program(const TrainOptions& options) {
  TrainingPlan plan = plan_training(options);
  if (options.device != Device::cpu) {
    plan.memory.host += program_bytes;  // a GPU's memory holds no program
    return plan;
  }
  plan.memory.items.push_back({"program", program_bytes});
  plan.memory.total += program_bytes;
  return plan;
}

}  // namespace

void measure_program() { program_bytes = peak_resident_bytes(); }

Napi::Value plan_run(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<TrainingPlan>::run(
        info.Env(), [options = to_train_options(info[0], "planTraining")] { return plan_with_program(options); },
        plan_to_js);
  });
}

Napi::Value probe_run(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<ProbeResult>::run(
        info.Env(), [options = to_train_options(info[0], "probeTraining")] { return probe_training(options); },
        probe_to_js);
  });
}

Napi::Value list_run_checkpoints(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<std::vector<CheckpointInfo>>::run(
        info.Env(), [dir = to_text(info[0], "listCheckpoints: checkpointDir")] { return list_checkpoints(dir); },
        checkpoints_to_js);
  });
}

}  // namespace caravan::addon
