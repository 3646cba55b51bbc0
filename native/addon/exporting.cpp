#include "addon/exporting.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "addon/inference.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/task.h"
#include "addon/train_options.h"
#include "addon/values.h"
#include "engine/export/verify_export.h"

namespace caravan::addon {

ExportOptions to_export_options(Napi::Value value, const char* call) {
  OptionReader reader(value, call);
  ExportOptions options;
  options.model_dir = reader.text("modelDir");
  options.checkpoint_dir = reader.text("checkpointDir");
  options.base.dtype = to_base_dtype(reader.text("baseDtype"), reader.name("baseDtype"));
  options.base.double_quant = reader.flag("doubleQuant");
  options.layout = parse_export_layout(reader.text("layout"));
  options.type = parse_export_type(reader.text("type"));
  options.original_base = reader.flag("originalBase");
  options.out_dir = reader.text("outDir");
  options.shard_bytes = static_cast<uint64_t>(reader.number("shardBytes"));
  options.adapter_base.name = reader.text("baseName");
  options.adapter_base.identity = reader.text("baseIdentity");
  options.gguf_file = reader.text("ggufFile");
  options.gguf_name = reader.text("ggufName");
  options.tokenizer_path = reader.text("tokenizerPath");
  options.chat_template = reader.text("chatTemplate");
  options.eos_ids = to_ids(reader.required("eosIds"), reader.name("eosIds"));
  options.threads = static_cast<int>(reader.integer_or("threads", 0, 4096, 0));
  reader.finish();
  return options;
}

Napi::Value from_json(Napi::Env env, const std::string& json) {
  const Napi::Object parser = env.Global().Get("JSON").As<Napi::Object>();
  return parser.Get("parse").As<Napi::Function>().Call(parser, {text(env, json)});
}

namespace {

struct Watched {
  Napi::FunctionReference on_progress;
  std::atomic<bool> cancelled{false};
};

}  // namespace

Napi::Value plan_model_export(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<ExportPlan>::run(
        info.Env(), [options = to_export_options(info[0], "planExport")] { return plan_export(options); },
        [](Napi::Env env, const ExportPlan& plan) -> Napi::Value {
          const Napi::Object result = Napi::Object::New(env);
          result.Set("bytes", number(env, static_cast<int64_t>(plan.bytes)));
          result.Set("tensors", number(env, plan.tensors));
          return result;
        });
  });
}

Napi::Promise start_export(Napi::Env env, Napi::Value on_progress, int threads, ExportWork work) {
  const auto watched = std::make_shared<Watched>();
  watched->on_progress = Napi::Persistent(to_function(on_progress, "onProgress"));
  const auto run = [work = std::move(work), threads, raw = watched.get()](Courier& courier) -> Task::Settle {
    ExportWatch watch;
    watch.cancelled = &raw->cancelled;
    std::string last_stage;
    auto last = std::chrono::steady_clock::now();
    watch.progress = [&](const char* stage, int64_t done, int64_t total) {
      const auto now = std::chrono::steady_clock::now();
      if (last_stage == stage && now - last < std::chrono::milliseconds(50)) return;
      last = now;
      last_stage = stage;
      courier.send([raw, stage, done, total](Napi::Env e) {
        const Napi::Value go_on = raw->on_progress.Call({text(e, stage), number(e, done), number(e, total)});
        if (go_on.IsBoolean() && !go_on.As<Napi::Boolean>().Value()) raw->cancelled = true;
      });
    };
    const std::shared_ptr<ThreadPool> pool = make_thread_pool(threads);
    Exec exec;
    exec.pool = pool.get();
    return work(exec, watch);
  };
  return Task::start(
      env, {.work = run, .cancel = [raw = watched.get()] { raw->cancelled = true; }, .ended = {}, .kept = watched});
}

Napi::Value export_model(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    ExportOptions options = to_export_options(info[0], "exportModel");
    std::vector<std::vector<int32_t>> rows = to_rows(info[1], "exportModel: rows");
    const int threads = options.threads;
    return start_export(info.Env(), info[2], threads,
                        [options = std::move(options), rows = std::move(rows)](
                            const Exec& exec, const ExportWatch& watch) -> Task::Settle {
                          const TrainedModel model = TrainedModel::open(exec, options, watch);
                          const std::vector<ExportedFile> files = write_export(model, options, watch);
                          const std::string report = report_json(verify_export(model, options, rows, watch));
                          return [files, report](Napi::Env env) -> Napi::Value {
                            const Napi::Object result = Napi::Object::New(env);
                            result.Set("files", array_of(env, files, [](Napi::Env e, const ExportedFile& file) {
                                         const Napi::Object item = Napi::Object::New(e);
                                         item.Set("name", file.name);
                                         item.Set("bytes", number(e, static_cast<int64_t>(file.bytes)));
                                         return item;
                                       }));
                            result.Set("parity", from_json(env, report));
                            return result;
                          };
                        });
  });
}

}  // namespace caravan::addon
