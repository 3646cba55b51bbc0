// Reading the keys of config.json and its like.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/platform/error.h"

namespace caravan {

/// The keys of one JSON object, read with messages that name file and key.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& object, const std::string& file, std::string prefix = "")
      : object_(object), file_(file), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& problem) const {
    throw EngineError("bad_file", file_ + ": " + prefix_ + key + " " + problem);
  }

  /// Present and not null.
  bool has(const std::string& key) const { return object_.contains(key) && !object_.at(key).is_null(); }

  int64_t integer(const std::string& key, int64_t least = 1, int64_t most = int64_t{1} << 31) const {
    const nlohmann::json& value = require(key, "a whole number");
    if (!value.is_number_integer()) fail(key, "is " + value.dump() + "; it must be a whole number");
    const int64_t number = value.get<int64_t>();
    if (number < least || number > most) {
      fail(key, "is " + value.dump() + "; it must be from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return number;
  }
  int64_t integer_or(const std::string& key, int64_t fallback, int64_t least = 1) const {
    return has(key) ? integer(key, least) : fallback;
  }
  double number(const std::string& key, double above = 0.0) const {
    const nlohmann::json& value = require(key, "a number");
    if (!value.is_number()) fail(key, "is " + value.dump() + "; it must be a number");
    const double result = value.get<double>();
    if (!std::isfinite(result) || result < above) {
      fail(key, "is " + value.dump() + "; it must be a number of at least " + std::to_string(above));
    }
    return result;
  }
  double number_or(const std::string& key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool boolean_or(const std::string& key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!object_.at(key).is_boolean()) fail(key, "is " + object_.at(key).dump() + "; it must be true or false");
    return object_.at(key).get<bool>();
  }
  std::string text_or(const std::string& key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    if (!object_.at(key).is_string()) fail(key, "is " + object_.at(key).dump() + "; it must be a string");
    return object_.at(key).get<std::string>();
  }
  std::vector<int32_t> ids(const std::string& key) const {
    std::vector<int32_t> result;
    if (!has(key)) return result;
    const nlohmann::json& value = object_.at(key);
    for (const nlohmann::json& id : value.is_array() ? value : nlohmann::json::array({value})) {
      if (!id.is_number_integer()) fail(key, "is " + value.dump() + "; it must be a token id or a list of them");
      result.push_back(id.get<int32_t>());
    }
    return result;
  }
  const nlohmann::json& at(const std::string& key) const { return object_.at(key); }
  const std::string& file() const { return file_; }

 private:
  const nlohmann::json& require(const std::string& key, const char* kind) const {
    if (!has(key)) fail(key, std::string("is missing; add ") + kind + ", as the model's original config.json has it");
    return object_.at(key);
  }
  const nlohmann::json& object_;
  const std::string& file_;
  std::string prefix_;
};

}  // namespace caravan
