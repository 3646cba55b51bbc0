// Values from JavaScript, checked once: what passes here is a C++ value and needs no second look.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <napi.h>

namespace caravan::addon {

/// @param what names the value in messages: "path", "createTrainer: modelDir"
/// @throws EngineError bad_option for another type, invalid_utf8 for a lone surrogate
std::string to_text(Napi::Value value, const std::string& what);
/// A whole number in [low, high].
int64_t to_integer(Napi::Value value, const std::string& what, int64_t low, int64_t high);
double to_number(Napi::Value value, const std::string& what);
bool to_bool(Napi::Value value, const std::string& what);
std::map<std::string, std::string> to_text_map(Napi::Value value, const std::string& what);
std::vector<std::string> to_texts(Napi::Value value, const std::string& what);
/// Good while `texts` live unchanged.
inline std::vector<std::string_view> views(const std::vector<std::string>& texts) {
  return {texts.begin(), texts.end()};
}
/// An Int32Array, or a plain array of whole numbers.
std::vector<int32_t> to_ids(Napi::Value value, const std::string& what);
Napi::Function to_function(Napi::Value value, const std::string& what);

/// Reads the fields of one options object. Every accessor notes its field; `finish` then refuses the others.
/// A field that is undefined counts as missing.
class OptionReader {
 public:
  /// @param call names the call in messages: "createTrainer"
  OptionReader(Napi::Value options, std::string call);

  Napi::Value required(const char* field);
  /// Empty when missing.
  std::optional<Napi::Value> optional(const char* field);

  std::string text(const char* field) { return to_text(required(field), name(field)); }
  std::string text_or(const char* field, std::string otherwise);
  bool flag(const char* field) { return to_bool(required(field), name(field)); }
  bool flag_or(const char* field, bool otherwise);
  double number(const char* field) { return to_number(required(field), name(field)); }
  double number_or(const char* field, double otherwise);
  int64_t integer(const char* field, int64_t low, int64_t high) {
    return to_integer(required(field), name(field), low, high);
  }
  int64_t integer_or(const char* field, int64_t low, int64_t high, int64_t otherwise);
  /// The field as messages call it.
  std::string name(const char* field) const { return call_ + ": " + field; }

  /// @throws EngineError bad_option naming a field that nothing asked for
  void finish();

 private:
  Napi::Object object_;
  std::string call_;
  std::set<std::string> known_;
};

constexpr int64_t max_count = std::numeric_limits<int32_t>::max();

}  // namespace caravan::addon
