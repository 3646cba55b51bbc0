#include "engine/checkpoint/checkpoint_manifest.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "engine/io/sha256.h"
#include "engine/platform/error.h"
#include "engine/train/train_options_json.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void bad(const std::string& file, const std::string& what) {
  throw EngineError("bad_file", file + ": " + what + "; resume from another checkpoint of this run");
}

/// JSON has no NaN and no infinity: null stands for them.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
double number(const Json& value, double absent) { return value.is_null() ? absent : value.get<double>(); }

std::string digest_of(const Json& document) {
  const std::string text = document.dump();
  return sha256_hex(std::as_bytes(std::span(text)));
}

std::string text_of(const Json& document) { return document.dump(2) + "\n"; }

CheckpointManifest read_members(const Json& json) {
  CheckpointManifest manifest;
  manifest.progress.step = json.at("step").get<int64_t>();
  manifest.total_steps = json.at("totalSteps").get<int64_t>();
  const Json& state = json.at("state");
  manifest.progress.updates = state.at("updates").get<int64_t>();
  manifest.progress.consecutive_skips = state.at("consecutiveSkips").get<int64_t>();
  manifest.progress.step_zero_difference =
      number(state.at("stepZeroDifference"), std::numeric_limits<double>::infinity());
  manifest.progress.quantization_difference = number(state.at("quantizationDifference"), -1.0);
  manifest.held_out_loss = number(state.at("heldOutLoss"), std::numeric_limits<double>::quiet_NaN());
  manifest.rows = json.at("trainShard").at("rows").get<int64_t>();
  manifest.tokens = json.at("trainShard").at("tokens").get<int64_t>();
  for (const auto& [name, value] : json.at("options").items()) manifest.defining[name] = value.dump();
  manifest.identity = json.at("identity").get<std::map<std::string, std::string>>();
  for (const auto& [name, file] : json.at("files").items()) {
    manifest.files[name] = {file.at("bytes").get<int64_t>(), file.at("sha256").get<std::string>()};
  }
  return manifest;
}

}  // namespace

TrainOptions CheckpointManifest::options() const {
  Json json = Json::object();
  for (const auto& [name, text] : defining) json[name] = Json::parse(text);
  return parse_train_options(json.dump(), checkpoint_manifest_name);
}

int64_t CheckpointManifest::bytes() const {
  int64_t sum = 0;
  for (const auto& [name, file] : files) sum += file.bytes;
  return sum;
}

std::string write_manifest(const CheckpointManifest& manifest) {
  const RunProgress& progress = manifest.progress;
  Json json;
  json["format"] = "caravan-checkpoint";
  json["schema"] = checkpoint_schema;
  json["step"] = progress.step;
  json["totalSteps"] = manifest.total_steps;
  json["state"] = {{"updates", progress.updates},
                   {"consecutiveSkips", progress.consecutive_skips},
                   {"heldOutLoss", number(manifest.held_out_loss)},
                   {"stepZeroDifference", number(progress.step_zero_difference)},
                   {"quantizationDifference", number(progress.quantization_difference)}};
  json["trainShard"] = {{"rows", manifest.rows}, {"tokens", manifest.tokens}};
  json["options"] = Json::object();
  for (const auto& [name, text] : manifest.defining) json["options"][name] = Json::parse(text);
  json["identity"] = manifest.identity;
  json["files"] = Json::object();
  for (const auto& [name, file] : manifest.files) {
    json["files"][name] = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  }
  json["sha256"] = digest_of(json);
  return text_of(json);
}

CheckpointManifest parse_manifest(const std::string& text, const std::string& file) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) bad(file, "is not valid JSON");
  // Every byte counts: what this program wrote it would write again.
  if (text_of(json) != text) bad(file, "was changed after it was written");
  try {
    const std::string digest = json.at("sha256").get<std::string>();
    json.erase("sha256");
    if (digest != digest_of(json)) bad(file, "does not match its own hash");
    if (json.at("format") != "caravan-checkpoint") bad(file, "is not the manifest of a checkpoint");
    if (json.at("schema") != checkpoint_schema) {
      bad(file, "has schema " + json.at("schema").dump() + ", this program reads " + std::to_string(checkpoint_schema));
    }
    return read_members(json);
  } catch (const Json::exception& error) {
    bad(file, std::string("lacks what a manifest has (") + error.what() + ")");
  }
}

}  // namespace caravan
