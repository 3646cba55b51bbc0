// Token shards for JavaScript: what the mixer writes, and what the window reads back.
#include "engine/data/token_shard.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "addon/files.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

template <typename Array>
Array to_typed_array(OptionReader& reader, const char* field, napi_typedarray_type type, const char* name) {
  const Napi::Value value = reader.required(field);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    throw EngineError("bad_option", reader.name(field) + " must be a " + name);
  }
  return value.As<Array>();
}

/// A copy: the worker may not look into JavaScript's memory.
struct ShardCopy {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  std::vector<uint8_t> targets;
  std::vector<int32_t> source;
  std::vector<std::string> sources;
  std::map<std::string, std::string> metadata;
};

void check(const ShardCopy& shard, const OptionReader& reader) {
  const auto refuse = [&](const char* field, const std::string& what) {
    throw EngineError("bad_option", reader.name(field) + " " + what);
  };
  if (shard.offsets.empty() || shard.offsets.front() != 0) refuse("offsets", "must begin with 0");
  if (!std::is_sorted(shard.offsets.begin(), shard.offsets.end())) refuse("offsets", "must not fall");
  if (std::cmp_not_equal(shard.offsets.back(), shard.ids.size())) refuse("offsets", "must end at the length of ids");
  if (shard.targets.size() != shard.ids.size()) refuse("targets", "must have one mark per id");
  if (shard.source.size() + 1 != shard.offsets.size()) refuse("source", "must have one index per row");
  for (const int32_t source : shard.source) {
    if (source < 0 || std::cmp_greater_equal(source, shard.sources.size())) {
      refuse("source", "holds " + std::to_string(source) + ", which is no index into sources");
    }
  }
}

ShardCopy to_shard(Napi::Value value) {
  OptionReader reader(value, "writeTokenShard");
  const auto ids = to_typed_array<Napi::Int32Array>(reader, "ids", napi_int32_array, "Int32Array");
  const auto offsets = to_typed_array<Napi::Float64Array>(reader, "offsets", napi_float64_array, "Float64Array");
  const auto targets = to_typed_array<Napi::Uint8Array>(reader, "targets", napi_uint8_array, "Uint8Array");
  const auto source = to_typed_array<Napi::Int32Array>(reader, "source", napi_int32_array, "Int32Array");
  ShardCopy shard;
  shard.ids.assign(ids.Data(), ids.Data() + ids.ElementLength());
  shard.targets.assign(targets.Data(), targets.Data() + targets.ElementLength());
  shard.source.assign(source.Data(), source.Data() + source.ElementLength());
  for (size_t i = 0; i < offsets.ElementLength(); ++i) {
    const double offset = offsets[i];
    if (!(offset >= 0.0 && offset <= 9007199254740991.0) || offset != std::floor(offset)) {
      throw EngineError("bad_option", reader.name("offsets") + "[" + std::to_string(i) + "] must be a whole number");
    }
    shard.offsets.push_back(static_cast<int64_t>(offset));
  }
  shard.sources = to_texts(reader.required("sources"), reader.name("sources"));
  shard.metadata = to_text_map(reader.required("metadata"), reader.name("metadata"));
  reader.finish();
  check(shard, reader);
  return shard;
}

struct SourceCounts {
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
};

struct ShardInfo {
  SourceCounts all;
  int64_t longest_row = 0;
  std::vector<std::string> sources;
  std::vector<SourceCounts> by_source;
  std::map<std::string, std::string> metadata;
};

ShardInfo summarize(const TokenShard& shard) {
  ShardInfo info;
  info.sources = shard.sources();
  info.by_source.resize(info.sources.size());
  info.metadata = shard.metadata();
  for (int64_t r = 0; r < shard.rows(); ++r) {
    const ShardRow row = shard.row(r);
    info.longest_row = std::max(info.longest_row, shard.row_length(r));
    for (SourceCounts* counts : {&info.all, &info.by_source[static_cast<size_t>(row.source)]}) {
      counts->rows += 1;
      counts->tokens += shard.row_length(r);
      counts->targets += row.target_count();
    }
  }
  return info;
}

void set_counts(Napi::Env env, Napi::Object object, const SourceCounts& counts) {
  object.Set("rows", number(env, counts.rows));
  object.Set("tokens", number(env, counts.tokens));
  object.Set("targetTokens", number(env, counts.targets));
}

Napi::Value info_to_js(Napi::Env env, const ShardInfo& info) {
  const Napi::Object result = Napi::Object::New(env);
  set_counts(env, result, info.all);
  result.Set("longestRow", number(env, info.longest_row));
  const Napi::Array sources = Napi::Array::New(env, info.sources.size());
  for (uint32_t i = 0; i < sources.Length(); ++i) {
    const Napi::Object source = Napi::Object::New(env);
    source.Set("name", info.sources[i]);
    set_counts(env, source, info.by_source[i]);
    sources.Set(i, source);
  }
  result.Set("sources", sources);
  result.Set("metadata", text_map(env, info.metadata));
  return result;
}

/// Rows as they lie in the mapped file, which this holds open.
struct Rows {
  TokenShard shard;
  std::vector<int32_t> rows;
};

Napi::Value rows_to_js(Napi::Env env, const Rows& asked) {
  return array_of(env, asked.rows, [&](Napi::Env e, int32_t index) {
    const ShardRow row = asked.shard.row(index);
    const Napi::Object item = Napi::Object::New(e);
    item.Set("row", number(e, int64_t{index}));
    item.Set("source", asked.shard.sources()[static_cast<size_t>(row.source)]);
    item.Set("ids", int32_array(e, row.ids));
    item.Set("targets", uint8_array(e, row.targets));
    return item;
  });
}

}  // namespace

Napi::Value write_shard(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    const std::string path = to_text(info[0], "writeTokenShard: path");
    return PromiseWorker<bool>::run(
        info.Env(),
        [path, shard = to_shard(info[1])] {
          write_token_shard(path,
                            {shard.ids, shard.offsets, shard.targets, shard.source, shard.sources, shard.metadata});
          return true;
        },
        [](Napi::Env env, bool) { return env.Undefined(); });
  });
}

Napi::Value read_shard_info(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<ShardInfo>::run(
        info.Env(), [path = to_text(info[0], "readTokenShardInfo: path")] { return summarize(TokenShard::open(path)); },
        info_to_js);
  });
}

Napi::Value read_shard_rows(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    const std::string path = to_text(info[0], "readTokenShardRows: path");
    return PromiseWorker<std::shared_ptr<Rows>>::run(
        info.Env(),
        [path, rows = to_ids(info[1], "readTokenShardRows: rows")] {
          auto opened = std::make_shared<Rows>(Rows{TokenShard::open(path), rows});
          for (const int32_t row : rows) {
            if (row < 0 || row >= opened->shard.rows()) {
              throw EngineError("bad_option", "readTokenShardRows: " + path + " has " +
                                                  std::to_string(opened->shard.rows()) + " rows, so none of number " +
                                                  std::to_string(row));
            }
          }
          return opened;
        },
        [](Napi::Env env, const std::shared_ptr<Rows>& opened) { return rows_to_js(env, *opened); });
  });
}

}  // namespace caravan::addon
