#include "addon/near_duplicates.h"

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "addon/environment.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

using Search = NearDuplicatesObject::Search;

NearDuplicateOptions to_options(Napi::Value value) {
  constexpr int64_t max_seed = 9007199254740991;  // 2^53 - 1
  OptionReader reader(value, "createNearDuplicates");
  NearDuplicateOptions options;
  options.ngram = static_cast<int>(reader.integer("ngram", 1, 100));
  options.permutations = static_cast<int>(reader.integer("permutations", 1, 1024));
  options.bands = static_cast<int>(reader.integer_or("bands", 1, 1024, 0));
  options.threshold = reader.number("threshold");
  options.seed = static_cast<uint64_t>(reader.integer("seed", 0, max_seed));
  options.threads = static_cast<int>(reader.integer_or("threads", 0, 1024, 0));
  reader.finish();
  return options;
}

/// Runs work(finder) alone, off the JavaScript thread.
template <typename Result, typename Work>
Napi::Value begin(Napi::Env env, const std::shared_ptr<Search>& search, Work work,
                  typename PromiseWorker<Result>::Convert convert) {
  return run_alone<Result>(env, search, "these near-duplicates", std::move(work), std::move(convert));
}

Napi::Value nothing(Napi::Env env, bool) { return env.Undefined(); }

Napi::Value lost_to_js(Napi::Env env, const std::vector<NearDuplicate>& lost) {
  const auto column = [&](auto field) {
    std::vector<std::remove_cvref_t<decltype(lost[0].*field)>> values;
    values.reserve(lost.size());
    for (const NearDuplicate& one : lost) values.push_back(one.*field);
    return values;
  };
  const Napi::Object result = Napi::Object::New(env);
  result.Set("rows", int32_array(env, column(&NearDuplicate::row)));
  result.Set("kept", int32_array(env, column(&NearDuplicate::kept)));
  result.Set("jaccard", float64_array(env, column(&NearDuplicate::jaccard)));
  result.Set("linked", int32_array(env, column(&NearDuplicate::linked)));
  result.Set("linkedJaccard", float64_array(env, column(&NearDuplicate::linked_jaccard)));
  return result;
}

}  // namespace

Napi::Function NearDuplicatesObject::define(Napi::Env env) {
  using T = NearDuplicatesObject;
  return DefineClass(
      env, "AddonNearDuplicates",
      {InstanceAccessor<&T::bands>("bands"), InstanceAccessor<&T::rows_per_band>("rowsPerBand"),
       InstanceMethod<&T::add>("add"), InstanceMethod<&T::find_candidates>("findCandidates"),
       InstanceMethod<&T::load>("load"), InstanceMethod<&T::verify>("verify"), InstanceMethod<&T::dispose>("dispose")});
}

Napi::Value NearDuplicatesObject::create(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    using Created = std::shared_ptr<Search>;
    return PromiseWorker<Created>::run(
        info.Env(), [options = to_options(info[0])] { return std::make_shared<Search>(options); },
        [](Napi::Env env, const Created& created) -> Napi::Value {
          return construct(env, Environment::of(env).near_duplicates_class, created);
        });
  });
}

NearDuplicatesObject::NearDuplicatesObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<NearDuplicatesObject>(info) {
  search_ = take_payload<const std::shared_ptr<Search>>(info, "createNearDuplicates");
}

const std::shared_ptr<NearDuplicatesObject::Search>& NearDuplicatesObject::search() const {
  if (search_ == nullptr) throw EngineError("wrong_state", "these near-duplicates are disposed");
  return search_;
}

Napi::Value NearDuplicatesObject::bands(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), int64_t{search()->value.shape().bands}); });
}

Napi::Value NearDuplicatesObject::rows_per_band(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), int64_t{search()->value.shape().rows}); });
}

Napi::Value NearDuplicatesObject::add(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return begin<bool>(
        info.Env(), search(),
        [texts = to_texts(info[0], "add: texts")](NearDuplicates& finder) {
          finder.add(views(texts));
          return true;
        },
        nothing);
  });
}

Napi::Value NearDuplicatesObject::find_candidates(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    using Candidates = NearDuplicates::Candidates;
    return begin<Candidates>(
        info.Env(), search(), [](NearDuplicates& finder) { return finder.find_candidates(); },
        [](Napi::Env env, const Candidates& candidates) -> Napi::Value {
          const Napi::Object result = Napi::Object::New(env);
          result.Set("rows", int32_array(env, candidates.rows));
          result.Set("offsets", int32_array(env, candidates.offsets));
          return result;
        });
  });
}

Napi::Value NearDuplicatesObject::load(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return begin<bool>(
        info.Env(), search(),
        [rows = to_ids(info[0], "load: rows"), texts = to_texts(info[1], "load: texts")](NearDuplicates& finder) {
          finder.load(rows, views(texts));
          return true;
        },
        nothing);
  });
}

Napi::Value NearDuplicatesObject::verify(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return begin<std::vector<NearDuplicate>>(
        info.Env(), search(), [](NearDuplicates& finder) { return finder.verify(); }, lost_to_js);
  });
}

Napi::Value NearDuplicatesObject::dispose(const Napi::CallbackInfo& info) {
  search_.reset();
  return info.Env().Undefined();
}

}  // namespace caravan::addon
