#include "engine/data/token_shard.h"

#include <numeric>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/platform/error.h"

namespace caravan {

namespace {

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw EngineError("bad_file", path + ": " + what + "; build the mix again");
}

const TensorInfo& tensor_of(const SafetensorsFile& file, const char* name, StoredType type) {
  const TensorInfo* tensor = file.find(name);
  if (!tensor) bad(file.path(), std::string("has no tensor '") + name + "', so it is not a token shard");
  if (tensor->type != type || tensor->shape.size() != 1)
    bad(file.path(), std::string("tensor '") + name + "' is not a list of " + stored_type_name(type));
  return *tensor;
}

}  // namespace

int64_t ShardRow::target_count() const {
  return std::accumulate(targets.begin(), targets.end(), int64_t{0}) - (targets.empty() ? 0 : targets[0]);
}

TokenShard TokenShard::open(const std::string& path, int64_t vocab_size) {
  TokenShard shard;
  shard.file_ = SafetensorsFile::open(path);
  const SafetensorsFile& file = shard.file_;
  const auto format = file.metadata().find("format");
  if (format == file.metadata().end() || format->second != token_shard_format)
    bad(path, std::string("is not a token shard of format ") + token_shard_format);
  shard.ids_ = file.as<int32_t>(tensor_of(file, "ids", StoredType::I32));
  shard.offsets_ = file.as<int64_t>(tensor_of(file, "offsets", StoredType::I64));
  shard.targets_ = file.as<uint8_t>(tensor_of(file, "targets", StoredType::U8));
  shard.source_ = file.as<int32_t>(tensor_of(file, "source", StoredType::I32));
  const auto sources = file.metadata().find("sources");
  const auto names =
      sources == file.metadata().end() ? nlohmann::json() : nlohmann::json::parse(sources->second, nullptr, false);
  if (!names.is_array()) bad(path, "its metadata names no sources");
  for (const auto& name : names) {
    if (!name.is_string()) bad(path, "its metadata names no sources");
    shard.sources_.push_back(name.get<std::string>());
  }
  if (shard.offsets_.size() < 2) bad(path, "has no rows");
  const int64_t rows = shard.rows();
  if (std::cmp_not_equal(shard.source_.size(), rows)) bad(path, "has another number of sources than rows");
  if (shard.targets_.size() != shard.ids_.size()) bad(path, "has another number of targets than ids");
  if (shard.offsets_.front() != 0 || std::cmp_not_equal(shard.offsets_.back(), shard.ids_.size()))
    bad(path, "its offsets do not cover its ids");
  // In order first: only then may a row be looked at.
  for (int64_t r = 0; r < rows; ++r)
    if (shard.row_length(r) < 2) bad(path, "row " + std::to_string(r) + " has fewer than two tokens");
  for (int64_t r = 0; r < rows; ++r) {
    const ShardRow row = shard.row(r);
    if (row.source < 0 || std::cmp_greater_equal(row.source, shard.sources_.size()))
      bad(path, "row " + std::to_string(r) + " names source " + std::to_string(row.source));
    for (const uint8_t target : row.targets)
      if (target > 1) bad(path, "row " + std::to_string(r) + " has a target mark of " + std::to_string(target));
    if (row.target_count() == 0) bad(path, "row " + std::to_string(r) + " has no token to learn");
    if (vocab_size == 0) continue;
    for (const int32_t id : row.ids)
      if (id < 0 || id >= vocab_size)
        bad(path, "row " + std::to_string(r) + " holds token " + std::to_string(id) +
                      ", but the model's vocabulary has " + std::to_string(vocab_size));
  }
  return shard;
}

ShardRow TokenShard::row(int64_t index) const {
  const auto begin = static_cast<size_t>(offsets_[static_cast<size_t>(index)]);
  const auto length = static_cast<size_t>(row_length(index));
  return {ids_.subspan(begin, length), targets_.subspan(begin, length), source_[static_cast<size_t>(index)]};
}

void write_token_shard(const std::string& path, const TokenShardData& shard) {
  std::map<std::string, std::string> metadata = shard.metadata;
  metadata["format"] = token_shard_format;
  metadata["sources"] = nlohmann::json(shard.sources).dump();
  const auto list = [](const char* name, StoredType type, auto values) {
    return TensorToWrite{name, type, {static_cast<int64_t>(values.size())}, std::as_bytes(values)};
  };
  write_safetensors(path,
                    {list("ids", StoredType::I32, shard.ids), list("offsets", StoredType::I64, shard.offsets),
                     list("targets", StoredType::U8, shard.targets), list("source", StoredType::I32, shard.source)},
                    metadata);
}

}  // namespace caravan
