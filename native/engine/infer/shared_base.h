// Models of one base share it: the base itself, and every checkpoint crafted from it, stand side by side with one copy of
// the stored weights.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/model/base_model.h"

namespace caravan {

/// The base of `model_dir`, which may be open already: then it is that one, unless its files were written anew since.
/// Two threads that open the same base load it once. Ready for other streams when it returns.
std::shared_ptr<const BaseModel> open_shared_base(const Exec& exec, const std::string& model_dir,
                                                  const BaseOptions& options,
                                                  const std::function<void(int64_t, int64_t)>& progress);

}  // namespace caravan
