#include "addon/options.h"

#include <cmath>
#include <utility>

#include "engine/platform/error.h"

namespace caravan::addon {

namespace {

const char* type_name(Napi::Value value) {
  if (value.IsArray()) return "an array";
  switch (value.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "a number";
    case napi_string: return "a string";
    case napi_function: return "a function";
    case napi_object: return "an object";
    default: return "of another type";
  }
}

[[noreturn]] void refuse(const std::string& what, Napi::Value value, const char* expected) {
  throw EngineError("bad_option", what + " is " + type_name(value) + "; it must be " + expected);
}

}  // namespace

std::string to_text(Napi::Value value, const std::string& what) {
  if (!value.IsString()) refuse(what, value, "a string");
  const Napi::String string = value.As<Napi::String>();
  std::string text = string.Utf8Value();
  // Node-API writes U+FFFD for half of a surrogate pair: only a text that holds one needs the closer look.
  if (text.find("\xEF\xBF\xBD") == std::string::npos) return text;
  const std::u16string units = string.Utf16Value();
  for (size_t i = 0; i < units.size(); ++i) {
    if (units[i] < 0xD800 || units[i] > 0xDFFF) continue;
    const bool pair = units[i] < 0xDC00 && i + 1 < units.size() && units[i + 1] >= 0xDC00 && units[i + 1] <= 0xDFFF;
    if (!pair) {
      throw EngineError("invalid_utf8",
                        what + " holds half of a surrogate pair at position " + std::to_string(i) + "; remove it");
    }
    ++i;
  }
  return text;
}

double to_number(Napi::Value value, const std::string& what) {
  if (!value.IsNumber()) refuse(what, value, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number)) throw EngineError("bad_option", what + " must be a finite number");
  return number;
}

int64_t to_integer(Napi::Value value, const std::string& what, int64_t low, int64_t high) {
  if (!value.IsNumber()) refuse(what, value, "a whole number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (number != std::floor(number) || number < static_cast<double>(low) || number > static_cast<double>(high)) {
    throw EngineError("bad_option", what + " is " + value.ToString().Utf8Value() + "; it must be a whole number from " +
                                        std::to_string(low) + " to " + std::to_string(high));
  }
  return static_cast<int64_t>(number);
}

bool to_bool(Napi::Value value, const std::string& what) {
  if (!value.IsBoolean()) refuse(what, value, "true or false");
  return value.As<Napi::Boolean>().Value();
}

std::map<std::string, std::string> to_text_map(Napi::Value value, const std::string& what) {
  if (value.Type() != napi_object || value.IsArray()) refuse(what, value, "an object of strings");
  std::map<std::string, std::string> result;
  const Napi::Object object = value.As<Napi::Object>();
  const Napi::Array names = object.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = Napi::Value(names[i]).ToString().Utf8Value();
    result[name] = to_text(object.Get(name), what + "." + name);
  }
  return result;
}

std::vector<std::string> to_texts(Napi::Value value, const std::string& what) {
  if (!value.IsArray()) refuse(what, value, "an array of strings");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<std::string> texts;
  texts.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    texts.push_back(to_text(array[i], what + "[" + std::to_string(i) + "]"));
  }
  return texts;
}

std::vector<int32_t> to_ids(Napi::Value value, const std::string& what) {
  if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array) {
    const Napi::Int32Array array = value.As<Napi::Int32Array>();
    return {array.Data(), array.Data() + array.ElementLength()};
  }
  if (!value.IsArray()) refuse(what, value, "an Int32Array or an array of ids");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<int32_t> ids;
  ids.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    ids.push_back(
        static_cast<int32_t>(to_integer(array[i], what + "[" + std::to_string(i) + "]", -max_count - 1, max_count)));
  }
  return ids;
}

Napi::Function to_function(Napi::Value value, const std::string& what) {
  if (!value.IsFunction()) refuse(what, value, "a function");
  return value.As<Napi::Function>();
}

OptionReader::OptionReader(Napi::Value options, std::string call) : call_(std::move(call)) {
  if (options.Type() != napi_object || options.IsArray()) refuse(call_ + ": options", options, "an object");
  object_ = options.As<Napi::Object>();
}

std::optional<Napi::Value> OptionReader::optional(const char* field) {
  known_.insert(field);
  const Napi::Value value = object_.Get(field);
  if (value.IsUndefined()) return std::nullopt;
  return value;
}

Napi::Value OptionReader::required(const char* field) {
  const std::optional<Napi::Value> value = optional(field);
  if (!value) throw EngineError("bad_option", name(field) + " is missing");
  return *value;
}

std::string OptionReader::text_or(const char* field, std::string otherwise) {
  const auto value = optional(field);
  return value ? to_text(*value, name(field)) : std::move(otherwise);
}

bool OptionReader::flag_or(const char* field, bool otherwise) {
  const auto value = optional(field);
  return value ? to_bool(*value, name(field)) : otherwise;
}

double OptionReader::number_or(const char* field, double otherwise) {
  const auto value = optional(field);
  return value ? to_number(*value, name(field)) : otherwise;
}

int64_t OptionReader::integer_or(const char* field, int64_t low, int64_t high, int64_t otherwise) {
  const auto value = optional(field);
  return value ? to_integer(*value, name(field), low, high) : otherwise;
}

void OptionReader::finish() {
  const Napi::Array names = object_.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string field = Napi::Value(names[i]).ToString().Utf8Value();
    if (known_.count(field) == 0) {
      throw EngineError("bad_option", call_ + ": " + field + " is no option of this call; remove or respell it");
    }
  }
}

}  // namespace caravan::addon
