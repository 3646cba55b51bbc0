// A tokenised split of a mix on disk, read by memory map: safetensors with `ids` I32 (tokens), `offsets` I64 (rows + 1),
// `targets` U8 (tokens; 1: this token is to be predicted) and `source` I32 (rows).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"

namespace caravan {

inline constexpr const char* token_shard_format = "caravan-tokens-1";

struct ShardRow {
  std::span<const int32_t> ids;
  std::span<const uint8_t> targets;
  int32_t source = 0;

  /// Tokens that are predicted: the first of a row never is.
  int64_t target_count() const;
};

class TokenShard {
 public:
  /// Checks everything: shapes, monotone offsets, ids below `vocab_size` (0: not checked), sources, and that every row
  /// has a token to predict. @throws EngineError bad_file naming file and row.
  static TokenShard open(const std::string& path, int64_t vocab_size = 0);

  int64_t rows() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  ShardRow row(int64_t index) const;
  int64_t row_length(int64_t index) const {
    return offsets_[static_cast<size_t>(index + 1)] - offsets_[static_cast<size_t>(index)];
  }
  /// Names of the sources, by index.
  const std::vector<std::string>& sources() const { return sources_; }
  const std::map<std::string, std::string>& metadata() const { return file_.metadata(); }

 private:
  SafetensorsFile file_;
  std::span<const int32_t> ids_;
  std::span<const int64_t> offsets_;
  std::span<const uint8_t> targets_;
  std::span<const int32_t> source_;
  std::vector<std::string> sources_;
};

/// What is written. Spans must outlive the call.
struct TokenShardData {
  std::span<const int32_t> ids;
  std::span<const int64_t> offsets;
  std::span<const uint8_t> targets;
  std::span<const int32_t> source;
  std::vector<std::string> sources;
  std::map<std::string, std::string> metadata;  // beside `format` and `sources`
};
/// Bytes depend on the arguments alone.
void write_token_shard(const std::string& path, const TokenShardData& shard);

}  // namespace caravan
