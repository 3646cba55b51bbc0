// AddonOverlapSearch of core/engine/AddonTypes.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "addon/exclusive.h"
#include "engine/data/overlap.h"

namespace caravan::addon {

class OverlapObject : public Napi::ObjectWrap<OverlapObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit OverlapObject(const Napi::CallbackInfo& info);

  using Search = Exclusive<OverlapSearch>;

 private:
  const std::shared_ptr<Search>& search() const;
  Napi::Value add(const Napi::CallbackInfo& info);
  Napi::Value scan(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Search> search_;  // null once disposed
};

}  // namespace caravan::addon
