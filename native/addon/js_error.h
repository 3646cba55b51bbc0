// The one error path to JavaScript: an EngineError becomes an Error whose `code` is the EngineError's.
#pragma once

#include <exception>
#include <utility>

#include <napi.h>

#include "engine/platform/error.h"

namespace caravan::addon {

Napi::Error to_js_error(Napi::Env env, const EngineError& error);

/// The exception under way as an EngineError; bad_alloc is out_of_memory, anything else `internal`.
EngineError as_engine_error(const std::exception_ptr& exception);

/// Runs an exported function: whatever it throws reaches JavaScript as an Error with a code. Exceptions of JavaScript
/// pass unchanged.
template <typename Body>
auto guarded(Napi::Env env, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, as_engine_error(std::current_exception()));
  }
}

}  // namespace caravan::addon
