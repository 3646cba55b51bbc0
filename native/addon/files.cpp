#include "addon/files.h"

#include <chrono>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "addon/js_error.h"
#include "addon/model_summary.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/task.h"
#include "addon/values.h"
#include "engine/data/row_order.h"
#include "engine/data/tokenizer_gguf.h"
#include "engine/io/gguf.h"
#include "engine/io/model_identity.h"
#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"

namespace caravan::addon {

namespace {

struct Header {
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

Napi::Value to_js(Napi::Env env, const Header& header) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("tensors", array_of(env, header.tensors, [](Napi::Env e, const TensorInfo& tensor) {
               const Napi::Object item = Napi::Object::New(e);
               item.Set("name", tensor.name);
               item.Set("dtype", stored_type_name(tensor.type));
               item.Set("shape",
                        array_of(e, tensor.shape, [](Napi::Env f, int64_t extent) { return number(f, extent); }));
               return item;
             }));
  result.Set("metadata", text_map(env, header.metadata));
  return result;
}

Napi::Value to_js(Napi::Env env, const GgufTemplate& found) {
  const auto maybe = [&](const std::optional<std::string>& value) { return value ? text(env, *value) : env.Null(); };
  const Napi::Object result = Napi::Object::New(env);
  result.Set("bos", maybe(found.bos));
  result.Set("eos", maybe(found.eos));
  result.Set("specials", array_of(env, found.specials, text));
  result.Set("chatTemplate", maybe(found.chat_template));
  result.Set("stopIds", int32_array(env, found.stop_ids));
  return result;
}

/// The callback of hashModel, and when it was last called. Lives and dies on the JavaScript thread.
struct ProgressListener {
  Napi::FunctionReference on_progress;
};

}  // namespace

Napi::Value hash_file(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<std::string>::run(
        info.Env(), [path = to_text(info[0], "hashFile: path")] { return sha256_file(path); }, text);
  });
}

Napi::Value hash_model_folder(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    const std::string dir = to_text(info[0], "hashModel: dir");
    const auto listener = std::make_shared<ProgressListener>();
    if (!info[1].IsUndefined()) {
      listener->on_progress = Napi::Persistent(to_function(info[1], "hashModel: onProgress"));
    }
    const auto work = [dir, raw = listener.get(), told = !info[1].IsUndefined()](Courier& courier) -> Task::Settle {
      const std::string hash = hash_model(dir, [&](int64_t done, int64_t total) {
        if (!told) return;
        courier.send([raw, done, total](Napi::Env env) {
          const Napi::Object progress = Napi::Object::New(env);
          progress.Set("done", number(env, done));
          progress.Set("total", number(env, total));
          progress.Set("unit", "bytes");
          raw->on_progress.Call({progress});
        });
      });
      return [hash](Napi::Env env) { return text(env, hash); };
    };
    return Task::start(info.Env(), {.work = work, .cancel = {}, .ended = {}, .kept = listener});
  });
}

Napi::Value inspect_model(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<ModelSummary>::run(
        info.Env(), [dir = to_text(info[0], "inspectModel: dir")] { return summarize_model(dir); }, summary_to_js);
  });
}

Napi::Value inspect_safetensors(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<Header>::run(
        info.Env(),
        [path = to_text(info[0], "inspectSafetensors: path")] {
          const SafetensorsFile file = SafetensorsFile::open(path);
          return Header{file.tensors(), file.metadata()};
        },
        [](Napi::Env env, const Header& header) { return to_js(env, header); });
  });
}

Napi::Value inspect_gguf_tokenizer(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<GgufTemplate>::run(
        info.Env(),
        [path = to_text(info[0], "inspectGgufTokenizer: path")] { return read_gguf_template(GgufFile::open(path)); },
        [](Napi::Env env, const GgufTemplate& found) { return to_js(env, found); });
  });
}

Napi::Value order_rows(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    constexpr int64_t max_word = std::numeric_limits<uint32_t>::max();
    const auto seed = static_cast<uint32_t>(to_integer(info[0], "rowOrder: seed", 0, max_word));
    const auto epoch = static_cast<uint32_t>(to_integer(info[1], "rowOrder: epoch", 0, max_word));
    const int64_t rows = to_integer(info[2], "rowOrder: rows", 0, max_count);
    return int32_array(info.Env(), row_order(seed, epoch, rows));
  });
}

}  // namespace caravan::addon
