#include "addon/overlap.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "addon/environment.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

using Search = OverlapObject::Search;

OverlapOptions to_options(Napi::Value value) {
  OptionReader reader(value, "createOverlapSearch");
  OverlapOptions options;
  options.ngram = static_cast<int>(reader.integer("ngram", 1, 100));
  options.floor = static_cast<int>(reader.integer("floor", 1, 100));
  options.threads = static_cast<int>(reader.integer_or("threads", 0, 1024, 0));
  reader.finish();
  return options;
}

/// Runs work(finder) alone, off the JavaScript thread.
template <typename Result, typename Work>
Napi::Value begin(Napi::Env env, const std::shared_ptr<Search>& search, Work work,
                  typename PromiseWorker<Result>::Convert convert) {
  return run_alone<Result>(env, search, "this search", std::move(work), std::move(convert));
}

Napi::Value overlaps_to_js(Napi::Env env, const std::vector<Overlap>& found) {
  const auto column = [&](auto value) {
    std::vector<int32_t> values;
    values.reserve(found.size());
    for (const Overlap& one : found) values.push_back(static_cast<int32_t>(value(one)));
    return int32_array(env, values);
  };
  const Napi::Object result = Napi::Object::New(env);
  result.Set("texts", column([](const Overlap& one) { return one.text; }));
  result.Set("parts", column([](const Overlap& one) { return one.part; }));
  result.Set("equal", column([](const Overlap& one) { return one.equal; }));
  result.Set("covered", column([](const Overlap& one) { return one.covered; }));
  result.Set("longest", column([](const Overlap& one) { return one.longest; }));
  return result;
}

}  // namespace

Napi::Function OverlapObject::define(Napi::Env env) {
  using T = OverlapObject;
  return DefineClass(
      env, "AddonOverlapSearch",
      {InstanceMethod<&T::add>("add"), InstanceMethod<&T::scan>("scan"), InstanceMethod<&T::dispose>("dispose")});
}

Napi::Value OverlapObject::create(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    using Created = std::shared_ptr<Search>;
    return PromiseWorker<Created>::run(
        info.Env(), [options = to_options(info[0])] { return std::make_shared<Search>(options); },
        [](Napi::Env env, const Created& created) -> Napi::Value {
          return construct(env, Environment::of(env).overlap_class, created);
        });
  });
}

OverlapObject::OverlapObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<OverlapObject>(info) {
  search_ = take_payload<const std::shared_ptr<Search>>(info, "createOverlapSearch");
}

const std::shared_ptr<OverlapObject::Search>& OverlapObject::search() const {
  if (search_ == nullptr) throw EngineError("wrong_state", "this search is disposed");
  return search_;
}

Napi::Value OverlapObject::add(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    using Counts = std::vector<int32_t>;
    return begin<Counts>(
        info.Env(), search(),
        [parts = to_texts(info[0], "add: parts")](OverlapSearch& finder) { return finder.add(views(parts)); },
        [](Napi::Env env, const Counts& counts) -> Napi::Value { return int32_array(env, counts); });
  });
}

Napi::Value OverlapObject::scan(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return begin<std::vector<Overlap>>(
        info.Env(), search(),
        [texts = to_texts(info[0], "scan: texts")](OverlapSearch& finder) { return finder.scan(views(texts)); },
        overlaps_to_js);
  });
}

Napi::Value OverlapObject::dispose(const Napi::CallbackInfo& info) {
  search_.reset();
  return info.Env().Undefined();
}

}  // namespace caravan::addon
