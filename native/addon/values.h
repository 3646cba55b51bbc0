// C++ values as JavaScript's. Arrays are copied: Electron forbids buffers that lie outside V8's own memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <napi.h>

namespace caravan::addon {

template <typename Array, typename T>
Napi::Value typed_array(Napi::Env env, std::span<const T> values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

inline Napi::Value int32_array(Napi::Env env, std::span<const int32_t> values) {
  return typed_array<Napi::Int32Array>(env, values);
}
inline Napi::Value uint8_array(Napi::Env env, std::span<const uint8_t> values) {
  return typed_array<Napi::Uint8Array>(env, values);
}
inline Napi::Value float32_array(Napi::Env env, std::span<const float> values) {
  return typed_array<Napi::Float32Array>(env, values);
}
inline Napi::Value float64_array(Napi::Env env, std::span<const double> values) {
  return typed_array<Napi::Float64Array>(env, values);
}

inline Napi::Value number(Napi::Env env, double value) { return Napi::Number::New(env, value); }
inline Napi::Value number(Napi::Env env, int64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }
inline Napi::Value text(Napi::Env env, const std::string& value) { return Napi::String::New(env, value); }
inline Napi::Value flag(Napi::Env env, bool value) { return Napi::Boolean::New(env, value); }

/// `convert` (env, item) makes each element.
template <typename Items, typename Convert>
Napi::Array array_of(Napi::Env env, const Items& items, Convert&& convert) {
  const Napi::Array array = Napi::Array::New(env, items.size());
  uint32_t index = 0;
  for (const auto& item : items) array.Set(index++, convert(env, item));
  return array;
}

inline Napi::Value text_map(Napi::Env env, const std::map<std::string, std::string>& values) {
  const Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, value] : values) object.Set(name, text(env, value));
  return object;
}

}  // namespace caravan::addon
