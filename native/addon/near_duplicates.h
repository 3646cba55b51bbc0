// AddonNearDuplicates of core/engine/AddonTypes.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "addon/exclusive.h"
#include "engine/data/near_duplicates.h"

namespace caravan::addon {

class NearDuplicatesObject : public Napi::ObjectWrap<NearDuplicatesObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit NearDuplicatesObject(const Napi::CallbackInfo& info);

  using Search = Exclusive<NearDuplicates>;

 private:
  const std::shared_ptr<Search>& search() const;
  Napi::Value bands(const Napi::CallbackInfo& info);
  Napi::Value rows_per_band(const Napi::CallbackInfo& info);
  Napi::Value add(const Napi::CallbackInfo& info);
  Napi::Value find_candidates(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value verify(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Search> search_;  // null once disposed
};

}  // namespace caravan::addon
