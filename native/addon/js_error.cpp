#include "addon/js_error.h"

#include <new>
#include <stdexcept>

namespace caravan::addon {

Napi::Error to_js_error(Napi::Env env, const EngineError& error) {
  Napi::Error made = Napi::Error::New(env, error.what());
  made.Set("code", Napi::String::New(env, error.code));
  return made;
}

EngineError as_engine_error(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const EngineError& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {"out_of_memory", "there is not enough memory for this"};
  } catch (const std::exception& error) {
    return {"internal", error.what()};
  } catch (...) {
    return {"internal", "an exception of unknown type"};
  }
}

}  // namespace caravan::addon
