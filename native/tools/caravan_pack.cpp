// Documents to token shards for pre-training: JSON lines {"text": ...} become rows BOS + ids + EOS in which every token
// is a target. A document longer than --seq-len is cut into several rows; each begins with the last token of the one
// before, as context, so every token is predicted exactly once.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <thread>

#include <nlohmann/json.hpp>

#include "command_line.h"
#include "engine/data/token_shard.h"
#include "engine/data/tokenizer.h"
#include "engine/io/sha256.h"
#include "engine/model/model_config.h"
#include "engine/platform/error.h"
#include "kernels/exec.h"

using namespace caravan;

namespace {

const char* const usage =
    "caravan_pack DOCUMENTS.jsonl... --model DIR --out TRAIN.safetensors\n"
    "         [--seq-len 512] [--held-out VALIDATION.safetensors --every 200] [--source NAME] [--threads 0]\n"
    "  DIR holds tokenizer.json, and config.json with bos_token_id and eos_token_id.";

/// Documents that are parsed and tokenised together; bounds the memory of what is under way.
constexpr size_t lines_at_once = 1 << 16;

/// A shard in the making.
class ShardRows {
 public:
  void add(const std::vector<int32_t>& document, int64_t seq_len) {
    const int64_t size = static_cast<int64_t>(document.size());
    for (int64_t first = 0;; first += seq_len - 1) {
      const int64_t last = std::min(size, first + seq_len);
      ids_.insert(ids_.end(), document.begin() + first, document.begin() + last);
      offsets_.push_back(static_cast<int64_t>(ids_.size()));
      if (last == size) break;
    }
  }

  int64_t rows() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }

  void write(const std::string& path, const std::string& source,
             const std::map<std::string, std::string>& metadata) const {
    if (rows() == 0) throw EngineError("no_rows", path + ": no document fell to it; give more documents");
    const std::vector<uint8_t> targets(ids_.size(), 1);
    const std::vector<int32_t> sources(static_cast<size_t>(rows()), 0);
    write_token_shard(path, {ids_, offsets_, targets, sources, {source}, metadata});
    std::fprintf(stderr, "%s: %lld rows, %lld tokens\n", path.c_str(), static_cast<long long>(rows()),
                 static_cast<long long>(tokens()));
  }

 private:
  std::vector<int32_t> ids_;
  std::vector<int64_t> offsets_ = {0};
};

std::vector<std::string_view> lines_of(std::span<const std::byte> bytes) {
  std::vector<std::string_view> lines;
  const char* at = reinterpret_cast<const char*>(bytes.data());
  const char* const end = at + bytes.size();
  while (at < end) {
    const void* found = std::memchr(at, '\n', static_cast<size_t>(end - at));
    const char* const stop = found != nullptr ? static_cast<const char*>(found) : end;
    lines.emplace_back(at, static_cast<size_t>(stop - at));
    at = stop + 1;
  }
  return lines;
}

std::string text_of(std::string_view line, const std::string& file, size_t number) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  const auto text = json.is_object() ? json.find("text") : json.end();
  if (json.is_discarded() || !json.is_object() || text == json.end() || !text->is_string()) {
    throw EngineError("bad_file",
                      file + ", line " + std::to_string(number) + ": is no JSON object with a string \"text\"");
  }
  return text->get<std::string>();
}

int32_t single_id(const std::vector<int32_t>& ids, const char* field, const std::string& model) {
  if (ids.empty()) throw EngineError("bad_file", model + "/config.json: has no " + field + "; add the token's id");
  return ids.front();
}

int pack(const CommandLine& arguments) {
  if (arguments.plain().empty()) throw EngineError("bad_option", "no file of documents was named");
  const std::string model = arguments.required("model"), out = arguments.required("out");
  const int64_t seq_len = arguments.whole("seq-len", 512, 2);
  const int64_t every = arguments.whole("every", 200, 2);
  const std::string held_out = arguments.text("held-out");
  const std::string tokenizer_file = (std::filesystem::path(model) / "tokenizer.json").string();
  const auto tokenizer = Tokenizer::from_file(tokenizer_file);
  const ModelConfig config = read_model_config(model);
  const int32_t bos = single_id(config.bos_ids, "bos_token_id", model);
  const int32_t eos = single_id(config.eos_ids, "eos_token_id", model);

  const auto pool = make_thread_pool(static_cast<int>(arguments.whole("threads", 0, 0)));
  Exec exec;
  exec.pool = pool.get();
  ShardRows train, validation;
  int64_t documents = 0;
  for (const std::string& file : arguments.plain()) {
    const MappedFile mapped = MappedFile::open(file);
    const std::vector<std::string_view> lines = lines_of(mapped.bytes());
    for (size_t first = 0; first < lines.size(); first += lines_at_once) {
      const size_t count = std::min(lines_at_once, lines.size() - first);
      std::vector<std::string> texts(count);
      parallel_for(exec, static_cast<int64_t>(count), 64, [&](int64_t begin, int64_t end) {
        for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
          texts[i] = text_of(lines[first + i], file, first + i + 1);
        }
      });
      const std::vector<std::string_view> views(texts.begin(), texts.end());
      std::vector<std::vector<int32_t>> encoded = encode_batch(*tokenizer, views, thread_count(exec));
      for (std::vector<int32_t>& ids : encoded) {
        ids.insert(ids.begin(), bos);
        ids.push_back(eos);
        const bool hold_out = !held_out.empty() && documents % every == every - 1;
        (hold_out ? validation : train).add(ids, seq_len);
        ++documents;
      }
      std::fprintf(stderr, "\r%lld documents, %lld tokens", static_cast<long long>(documents),
                   static_cast<long long>(train.tokens() + validation.tokens()));
    }
  }
  std::fprintf(stderr, "\n");
  const std::string source = arguments.text("source", "text");
  const std::string hash = sha256_file(tokenizer_file);
  train.write(out, source, {{"split", "train"}, {"tokenizer", hash}});
  if (!held_out.empty()) validation.write(held_out, source, {{"split", "validation"}, {"tokenizer", hash}});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(usage, [&] {
    return pack(CommandLine(argc, argv, {"model", "out", "seq-len", "held-out", "every", "source", "threads"}));
  });
}
