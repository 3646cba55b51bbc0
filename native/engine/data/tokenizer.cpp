#include "engine/data/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "engine/data/tokenizer_added.h"
#include "engine/data/tokenizer_bpe.h"
#include "engine/data/tokenizer_decode.h"
#include "engine/data/tokenizer_gguf.h"
#include "engine/data/tokenizer_json.h"
#include "engine/data/tokenizer_normalize.h"
#include "engine/data/tokenizer_split.h"
#include "engine/platform/error.h"

namespace caravan {
namespace {

constexpr std::streamoff max_file_bytes = 256 << 20;  // the largest vocabularies in use take 35 MB
constexpr size_t batch_chunk = 16;                    // texts which a thread takes at once

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

// One thread's buffers. A text has pieces, a piece is cut by the pre-tokenizers one after another: each has its own.
struct EncodeScratch {
  BpeScratch bpe;
  IdBuffer ids;
  NormalizeScratch normalize;
  std::vector<AddedTokenMatcher::Piece> raw_pieces;
  std::vector<AddedTokenMatcher::Piece> normalized_pieces;
  struct Level {
    std::string text;
    std::vector<SplitMatch> stretches;
  };
  std::vector<Level> levels;  // (pre-tokenizers)
};

bool is_byte_level(const TokenizerSpec& spec) {
  return !spec.pre_tokenizers.empty() && spec.pre_tokenizers.back().kind == PreTokenizerStep::Kind::byte_level;
}

}  // namespace

struct Tokenizer::State {
  TokenizerSpec spec;  // vocabulary and merges emptied once the tables stand
  TokenTable table;
  BpeModel model;
  AddedTokenMatcher raw_matcher;
  AddedTokenMatcher normalized_matcher;
  std::vector<uint8_t> special;                                 // (vocab_size)
  std::unordered_map<int32_t, std::string> normalized_content;  // of added tokens which the normalizers change

  mutable std::mutex scratch_mutex;
  mutable std::vector<std::unique_ptr<EncodeScratch>> free_scratch;

  explicit State(TokenizerSpec given)
      : spec(std::move(given)),
        table(spec),
        model(spec, table, is_byte_level(spec)),
        special(static_cast<size_t>(table.size()), 0) {
    NormalizeScratch scratch;
    for (const AddedToken& token : spec.added_tokens) {
      if (token.special) special[token.id] = 1;
      if (!token.normalized) {
        raw_matcher.add(token, token.content);
        continue;
      }
      const std::string_view pattern = apply_normalizers(spec.normalizers, token.content, scratch).text;
      normalized_matcher.add(token, pattern);
      if (pattern != token.content) normalized_content.emplace(token.id, pattern);
    }
    spec.vocab = {};
    spec.merges = {};
    code_point_classes();  // built now rather than under the first encode
  }

  // What the decoders see for `id`: an added token that is matched in normalised text, in its normalised form.
  std::string_view decodable(int32_t id) const {
    const auto found = normalized_content.find(id);
    return found == normalized_content.end() ? table.token(id) : std::string_view(found->second);
  }

  std::unique_ptr<EncodeScratch> take_scratch() const {
    {
      const std::lock_guard lock(scratch_mutex);
      if (!free_scratch.empty()) {
        auto scratch = std::move(free_scratch.back());
        free_scratch.pop_back();
        return scratch;
      }
    }
    auto scratch = std::make_unique<EncodeScratch>();
    scratch->levels.resize(spec.pre_tokenizers.size());
    return scratch;
  }
  void give_back(std::unique_ptr<EncodeScratch> scratch) const {
    const std::lock_guard lock(scratch_mutex);
    free_scratch.push_back(std::move(scratch));
  }

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options, EncodeScratch& scratch) const;
  void encode_plain(std::string_view text, bool at_start, EncodeOptions options, EncodeScratch& scratch) const;
  void encode_piece(std::string_view piece, bool at_start, size_t step, EncodeScratch& scratch) const;
  void encode_byte_level(const PreTokenizerStep& step, std::string_view piece, std::string& buffer,
                         EncodeScratch& scratch) const;
  void encode_metaspace(std::string_view piece, bool at_start, size_t step, EncodeScratch& scratch) const;
};

std::vector<int32_t> Tokenizer::State::encode(std::string_view text, EncodeOptions options,
                                              EncodeScratch& scratch) const {
  if (const auto bad = find_invalid_utf8(text))
    throw EngineError("invalid_utf8", "the text is no UTF-8 from byte " + std::to_string(*bad) + " on");
  scratch.ids.clear();
  if (!raw_matcher.matches_any(options.parse_special)) {
    encode_plain(text, true, options, scratch);
  } else {
    raw_matcher.find(text, options.parse_special, scratch.raw_pieces);
    for (const AddedTokenMatcher::Piece& piece : scratch.raw_pieces) {
      if (piece.id >= 0)
        scratch.ids.push(piece.id);
      else
        encode_plain(text.substr(piece.first, piece.end - piece.first), piece.first == 0, options, scratch);
    }
  }
  return {scratch.ids.data(), scratch.ids.data() + scratch.ids.size()};
}

void Tokenizer::State::encode_plain(std::string_view text, bool at_start, EncodeOptions options,
                                    EncodeScratch& scratch) const {
  const NormalizedText normalized = apply_normalizers(spec.normalizers, text, scratch.normalize);
  at_start = at_start && normalized.keeps_start;
  if (!normalized_matcher.matches_any(options.parse_special)) {
    encode_piece(normalized.text, at_start, 0, scratch);
    return;
  }
  normalized_matcher.find(normalized.text, options.parse_special, scratch.normalized_pieces);
  for (const AddedTokenMatcher::Piece& piece : scratch.normalized_pieces) {
    if (piece.id >= 0)
      scratch.ids.push(piece.id);
    else
      encode_piece(normalized.text.substr(piece.first, piece.end - piece.first), at_start && piece.first == 0, 0,
                   scratch);
  }
}

// @param at_start whether the piece begins where the whole input does
void Tokenizer::State::encode_piece(std::string_view piece, bool at_start, size_t step, EncodeScratch& scratch) const {
  using Kind = PreTokenizerStep::Kind;
  if (piece.empty()) return;
  if (step == spec.pre_tokenizers.size()) {
    model.encode(piece, scratch.bpe, scratch.ids);
    return;
  }
  const PreTokenizerStep& pre_tokenizer = spec.pre_tokenizers[step];
  EncodeScratch::Level& level = scratch.levels[step];
  switch (pre_tokenizer.kind) {
    case Kind::byte_level: encode_byte_level(pre_tokenizer, piece, level.text, scratch); return;
    case Kind::metaspace: encode_metaspace(piece, at_start, step, scratch); return;
    case Kind::split_rule:
      for (bool first = at_start; !piece.empty(); first = false) {
        const size_t length = match_split_rule(pre_tokenizer.rule, piece);
        encode_piece(piece.substr(0, length), first, step + 1, scratch);
        piece.remove_prefix(length);
      }
      return;
    default:
      split_by_step(pre_tokenizer, piece, level.stretches);
      for (const SplitMatch& stretch : level.stretches) {
        encode_piece(piece.substr(stretch.first, stretch.end - stretch.first), at_start && stretch.first == 0, step + 1,
                     scratch);
      }
  }
}

void Tokenizer::State::encode_byte_level(const PreTokenizerStep& step, std::string_view piece, std::string& buffer,
                                         EncodeScratch& scratch) const {
  if (step.add_prefix_space && piece[0] != ' ') {
    buffer.assign(1, ' ').append(piece);
    piece = buffer;
  }
  if (!step.use_regex) {
    model.encode(piece, scratch.bpe, scratch.ids);
    return;
  }
  while (!piece.empty()) {
    const size_t length = match_split_rule(SplitRule::gpt2, piece);
    model.encode(piece.substr(0, length), scratch.bpe, scratch.ids);
    piece.remove_prefix(length);
  }
}

void Tokenizer::State::encode_metaspace(std::string_view piece, bool at_start, size_t step,
                                        EncodeScratch& scratch) const {
  const PreTokenizerStep& metaspace = spec.pre_tokenizers[step];
  const std::string& marker = metaspace.literal;
  std::string& text = scratch.levels[step].text;
  replace_all(piece, " ", marker, text);
  const bool may_prepend = metaspace.prepend_scheme == PrependScheme::always ||
                           (metaspace.prepend_scheme == PrependScheme::first && at_start);
  if (may_prepend && !text.starts_with(marker)) text.insert(0, marker);
  if (!metaspace.split) {
    encode_piece(text, at_start, step + 1, scratch);
    return;
  }
  for (size_t first = 0; first < text.size();) {
    const size_t end = std::min(text.find(marker, first + 1), text.size());
    encode_piece(std::string_view(text).substr(first, end - first), at_start && first == 0, step + 1, scratch);
    first = end;
  }
}

// --------------------------------------------------------------------------------------------------------------------
// Tokenizer

Tokenizer::Tokenizer(TokenizerSpec spec) : state_(std::make_unique<State>(std::move(spec))) {}

Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::from_file(const std::string& path) {
  if (is_gguf_file(path)) return from_spec(read_gguf_tokenizer(GgufFile::open(path)));
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) throw EngineError("tokenizer_invalid", path + " cannot be read");
  if (size > max_file_bytes) throw EngineError("tokenizer_invalid", path + " is over 256 MB: no tokenizer.json");
  std::string json(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(json.data(), size)) throw EngineError("tokenizer_invalid", path + " cannot be read");
  return from_json(json, path);
}

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view json, std::string_view name) {
  return from_spec(parse_tokenizer_json(json, name));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_spec(TokenizerSpec spec) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(spec)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  auto scratch = state_->take_scratch();
  std::vector<int32_t> ids = state_->encode(utf8, options, *scratch);
  state_->give_back(std::move(scratch));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (!state_->table.has(id) || (skip_special && state_->special[id])) continue;
    tokens.emplace_back(state_->decodable(id));
  }
  return decode_tokens(state_->spec.decoders, std::move(tokens));
}

std::string Tokenizer::token_bytes(int32_t id) const {
  if (!state_->table.has(id)) return {};
  return decode_token_bytes(state_->spec.decoders, state_->decodable(id));
}

int32_t Tokenizer::vocab_size() const { return state_->table.size(); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const { return state_->table.find(token); }

std::string Tokenizer::id_to_token(int32_t id) const {
  return state_->table.has(id) ? std::string(state_->table.token(id)) : std::string();
}

bool Tokenizer::is_special(int32_t id) const { return state_->table.has(id) && state_->special[id]; }

std::optional<int32_t> Tokenizer::bos_id() const { return state_->spec.bos_id; }

std::optional<int32_t> Tokenizer::eos_id() const { return state_->spec.eos_id; }

// --------------------------------------------------------------------------------------------------------------------
// Batches

std::vector<std::vector<int32_t>> encode_batch(const Tokenizer& tokenizer, std::span<const std::string_view> texts,
                                               int threads, EncodeOptions options) {
  std::vector<std::vector<int32_t>> ids(texts.size());
  std::atomic<size_t> next = 0;
  std::mutex failure_mutex;
  size_t failed_text = texts.size();  // the first of all: what is reported does not depend on the threads
  std::exception_ptr failure;
  const auto work = [&] {
    auto scratch = tokenizer.state_->take_scratch();
    for (size_t first; (first = next.fetch_add(batch_chunk)) < texts.size();) {
      for (size_t i = first; i < std::min(first + batch_chunk, texts.size()); ++i) {
        try {
          ids[i] = tokenizer.state_->encode(texts[i], options, *scratch);
        } catch (...) {
          const std::lock_guard lock(failure_mutex);
          if (i < failed_text) {
            failed_text = i;
            failure = std::current_exception();
          }
        }
      }
    }
    tokenizer.state_->give_back(std::move(scratch));
  };
  const size_t chunks = (texts.size() + batch_chunk - 1) / batch_chunk;
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < std::min<size_t>(std::max(threads, 1), chunks); ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  if (!failure) return ids;
  try {
    std::rethrow_exception(failure);
  } catch (const EngineError& error) {
    throw EngineError(error.code, "text " + std::to_string(failed_text) + ": " + error.what());
  }
}

// --------------------------------------------------------------------------------------------------------------------
// StreamDecoder: as Hugging Face's decode_stream, which decodes a window of the last ids and gives out what is longer
// than before. A window may only begin at ids that make text: a decoder that strips the text's beginning would else
// strip what follows them.

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::decode_window() const { return tokenizer_->decode(window_, skip_special_); }

// What `text` adds to the text that was given out. Where bytes that made a character are seen, with those that follow,
// to make none, that character cannot be taken back: as many code points as it had count as given.
std::string StreamDecoder::beyond_given(const std::string& text) const {
  if (text.starts_with(given_)) return text.substr(given_.size());
  const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  const auto given = std::count_if(given_.begin(), given_.end(), begins);
  std::ptrdiff_t seen = 0;
  return {std::find_if(text.begin(), text.end(), [&](char c) { return begins(c) && seen++ == given; }), text.end()};
}

std::string StreamDecoder::push(int32_t id) {
  window_.push_back(id);
  std::string text = decode_window();
  if (text.size() <= given_.size() || text.ends_with(replacement_character)) return {};
  std::string certain = beyond_given(text);
  const std::vector<int32_t> recent(window_.begin() + static_cast<std::ptrdiff_t>(context_), window_.end());
  std::string recent_text = tokenizer_->decode(recent, skip_special_);
  if (!recent_text.empty()) {
    window_ = recent;
    text = std::move(recent_text);
  }
  given_ = std::move(text);
  context_ = window_.size();
  return certain;
}

std::string StreamDecoder::finish() {
  std::string rest = beyond_given(decode_window());
  window_.clear();
  context_ = 0;
  given_.clear();
  return rest;
}

}  // namespace caravan
