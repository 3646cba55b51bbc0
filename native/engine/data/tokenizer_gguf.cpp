#include "engine/data/tokenizer_gguf.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include "engine/data/unicode.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr std::string_view marker = "\xE2\x96\x81";  // sentencepiece's blank, U+2581
// Every split of a sentencepiece token is looked up, so their length bounds the work; the longest in use has 93 bytes.
constexpr size_t max_piece_bytes = 256;
constexpr size_t max_token_bytes = 1 << 16;

/// tokenizer.ggml.token_type
enum TokenKind : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

[[noreturn]] void bad(const GgufFile& file, const std::string& what) {
  throw EngineError("tokenizer_invalid", file.path() + ": " + what);
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> kinds;  // TokenKind

  bool is_special(size_t id) const { return kinds[id] == control || kinds[id] == unknown; }
  /// Converters fill holes of the vocabulary with "[PAD151646]", which no tokenizer has.
  bool is_filler(size_t id) const {
    return (kinds[id] == unused || kinds[id] == user_defined) && tokens[id] == "[PAD" + std::to_string(id) + "]";
  }
};

Vocabulary read_vocabulary(const GgufFile& file) {
  auto tokens = file.texts("tokenizer.ggml.tokens");
  if (!tokens || tokens->empty()) bad(file, "tokenizer.ggml.tokens is missing: the file has no vocabulary");
  auto kinds = file.integers("tokenizer.ggml.token_type");
  if (!kinds) bad(file, "tokenizer.ggml.token_type is missing, so special tokens cannot be told from text");
  if (kinds->size() != tokens->size())
    bad(file, "tokenizer.ggml.token_type has " + std::to_string(kinds->size()) + " entries for " +
                  std::to_string(tokens->size()) + " tokens");
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string place = "tokenizer.ggml.tokens[" + std::to_string(i) + "]";
    if ((*tokens)[i].size() > max_token_bytes) bad(file, place + " has over 65536 bytes");
    if (find_invalid_utf8((*tokens)[i])) bad(file, place + " is no UTF-8");
    if ((*kinds)[i] < normal || (*kinds)[i] > byte)
      bad(file, "tokenizer.ggml.token_type[" + std::to_string(i) + "] is " + std::to_string((*kinds)[i]) +
                    "; it must be from 1 to 6");
  }
  return {std::move(*tokens), std::move(*kinds)};
}

std::optional<int32_t> read_id(const GgufFile& file, const char* key, const Vocabulary& vocabulary) {
  const auto id = file.integer(key);
  if (!id) return std::nullopt;
  if (*id < 0 || static_cast<size_t>(*id) >= vocabulary.tokens.size())
    bad(file, std::string(key) + " is " + std::to_string(*id) + ", which is no token's id");
  return static_cast<int32_t>(*id);
}

void add_tokens(const Vocabulary& vocabulary, TokenizerSpec& spec) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool special = vocabulary.is_special(id);
    if ((!special && vocabulary.kinds[id] != user_defined) || vocabulary.is_filler(id)) continue;
    if (vocabulary.tokens[id].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = vocabulary.tokens[id];
    token.special = special;
    spec.added_tokens.push_back(std::move(token));
  }
}

// --------------------------------------------------------------------------------------------------------------------
// Sentencepiece ("llama"): scores become merges

size_t code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// As transformers' convert_slow_tokenizer: every way to make a token of two tokens, the best score first, then the
/// longer left part; equals by the ids of token, left and right part.
void add_merges(const GgufFile& file, const Vocabulary& vocabulary, const std::vector<float>& scores,
                TokenizerSpec& spec) {
  struct Merge {
    float score;
    size_t left_length, right_length;  // code points
    std::string_view left, right;
  };
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids.emplace(vocabulary.tokens[id], static_cast<int32_t>(id));
  std::vector<Merge> merges;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string_view token = vocabulary.tokens[id];
    if (token.size() > max_piece_bytes) {
      if (vocabulary.is_special(id)) continue;
      bad(file, "tokenizer.ggml.tokens[" + std::to_string(id) + "] has over 256 bytes, which no sentencepiece has");
    }
    struct Split {
      int32_t left_id, right_id;
      size_t at;
    };
    std::vector<Split> splits;
    for (size_t at = 1; at < token.size(); ++at) {
      if ((token[at] & 0xC0) == 0x80) continue;
      const auto left = ids.find(token.substr(0, at));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(at));
      if (right != ids.end()) splits.push_back({left->second, right->second, at});
    }
    std::stable_sort(splits.begin(), splits.end(), [](const Split& a, const Split& b) {
      return a.left_id != b.left_id ? a.left_id < b.left_id : a.right_id < b.right_id;
    });
    for (const Split& split : splits) {
      const std::string_view left = token.substr(0, split.at), right = token.substr(split.at);
      merges.push_back({scores[id], code_points(left), code_points(right), left, right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    return a.right_length > b.right_length;
  });
  spec.merges.reserve(merges.size());
  for (const Merge& merge : merges) spec.merges.emplace_back(merge.left, merge.right);
}

DecoderStep decoder(DecoderStep::Kind kind) {
  DecoderStep step{};
  step.kind = kind;
  return step;
}

void read_sentencepiece(const GgufFile& file, const Vocabulary& vocabulary, TokenizerSpec& spec) {
  const auto scores = file.numbers("tokenizer.ggml.scores");
  if (!scores || scores->size() != vocabulary.tokens.size())
    bad(file, "tokenizer.ggml.scores must hold one number for each token");
  if (std::any_of(scores->begin(), scores->end(), [](float score) { return score != score; }))
    bad(file, "tokenizer.ggml.scores holds what is no number");
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!vocabulary.is_filler(id)) spec.vocab.emplace_back(vocabulary.tokens[id], static_cast<int32_t>(id));
  }
  add_merges(file, vocabulary, *scores, spec);
  spec.byte_fallback = true;
  spec.fuse_unk = true;
  if (const auto id = read_id(file, "tokenizer.ggml.unknown_token_id", vocabulary)) {
    spec.unk_token = vocabulary.tokens[static_cast<size_t>(*id)];
  }
  const bool prefix = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  if (prefix) {
    NormalizerStep prepend{};
    prepend.kind = NormalizerStep::Kind::prepend;
    prepend.content = marker;
    spec.normalizers.push_back(std::move(prepend));
  }
  NormalizerStep blanks{};
  blanks.kind = NormalizerStep::Kind::replace;
  blanks.pattern = " ";
  blanks.content = marker;
  spec.normalizers.push_back(std::move(blanks));
  std::vector<DecoderStep>& steps = spec.decoders.emplace();
  steps.push_back(decoder(DecoderStep::Kind::replace));
  steps.back().pattern = marker;
  steps.back().content = " ";
  steps.push_back(decoder(DecoderStep::Kind::byte_fallback));
  steps.push_back(decoder(DecoderStep::Kind::fuse));
  if (prefix) {
    steps.push_back(decoder(DecoderStep::Kind::strip));
    steps.back().pattern = " ";
    steps.back().start = 1;
  }
}

// --------------------------------------------------------------------------------------------------------------------
// Byte-level byte pair encoding ("gpt2"): tokenizer.ggml.pre names how text is cut into words

enum class Cut : uint8_t { gpt2, digits_gpt2, llama3, qwen2 };

struct NamedCut {
  std::string_view pre;
  Cut cut;
};
constexpr std::array<NamedCut, 9> cuts{{{"gpt-2", Cut::gpt2},
                                        {"smollm", Cut::digits_gpt2},
                                        {"starcoder", Cut::digits_gpt2},
                                        {"refact", Cut::digits_gpt2},
                                        {"llama-bpe", Cut::llama3},
                                        {"llama3", Cut::llama3},
                                        {"llama-v3", Cut::llama3},
                                        {"qwen2", Cut::qwen2},
                                        {"deepseek-r1-qwen", Cut::qwen2}}};

Cut read_cut(const GgufFile& file) {
  const auto pre = file.text("tokenizer.ggml.pre");
  for (const NamedCut& known : cuts)
    if (pre == known.pre) return known.cut;
  std::string names;
  for (const NamedCut& known : cuts) names += (names.empty() ? "" : ", ") + std::string(known.pre);
  bad(file, (pre ? "tokenizer.ggml.pre is \"" + *pre + "\"" : std::string("tokenizer.ggml.pre is missing")) +
                ", so how its byte-level tokenizer cuts text into words is not known; supported are " + names +
                "; convert the model again, or give its Hugging Face folder");
}

void read_byte_level(const GgufFile& file, const Vocabulary& vocabulary, TokenizerSpec& spec) {
  using Kind = PreTokenizerStep::Kind;
  const Cut cut = read_cut(file);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    // Special tokens stay out of what text can be made of.
    if (vocabulary.is_special(id) || vocabulary.is_filler(id)) continue;
    spec.vocab.emplace_back(vocabulary.tokens[id], static_cast<int32_t>(id));
  }
  const auto merges = file.texts("tokenizer.ggml.merges");
  if (!merges) bad(file, "tokenizer.ggml.merges is missing");
  spec.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string& merge = (*merges)[i];
    const size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos)
      bad(file, "tokenizer.ggml.merges[" + std::to_string(i) + "] is no pair of tokens");
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  spec.ignore_merges = cut == Cut::llama3;
  if (cut == Cut::qwen2) {
    NormalizerStep nfc{};
    nfc.kind = NormalizerStep::Kind::normal_form;
    spec.normalizers.push_back(std::move(nfc));
  }
  PreTokenizerStep first{};
  if (cut == Cut::digits_gpt2) {
    first.kind = Kind::digits;
    spec.pre_tokenizers.push_back(first);
  } else if (cut != Cut::gpt2) {
    first.kind = Kind::split_rule;
    first.rule = cut == Cut::llama3 ? SplitRule::llama3 : SplitRule::qwen2;
    spec.pre_tokenizers.push_back(first);
  }
  PreTokenizerStep bytes{};
  bytes.kind = Kind::byte_level;
  bytes.add_prefix_space = file.boolean("tokenizer.ggml.add_space_prefix").value_or(false);
  bytes.use_regex = cut == Cut::gpt2 || cut == Cut::digits_gpt2;
  spec.pre_tokenizers.push_back(bytes);
  spec.decoders.emplace().push_back(decoder(DecoderStep::Kind::byte_level));
}

bool is_sentencepiece(const GgufFile& file) {
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) bad(file, "tokenizer.ggml.model is missing: the file has no vocabulary");
  if (*model == "llama") return true;
  if (*model == "gpt2") return false;
  bad(file, "tokenizer.ggml.model is \"" + *model + "\"; supported are llama and gpt2");
}

/// Whether a text begins with BOS where the file leaves it open.
bool adds_bos_by_default(const GgufFile& file) { return is_sentencepiece(file) || read_cut(file) == Cut::llama3; }

/// What is wrong with a value's type is as wrong as its content.
template <typename Read>
auto as_tokenizer_error(Read&& read) {
  try {
    return read();
  } catch (const EngineError& error) {
    if (error.code != "bad_file") throw;
    throw EngineError("tokenizer_invalid", error.what());
  }
}

}  // namespace

TokenizerSpec read_gguf_tokenizer(const GgufFile& file) {
  return as_tokenizer_error([&] {
    const bool sentencepiece = is_sentencepiece(file);
    const Vocabulary vocabulary = read_vocabulary(file);
    TokenizerSpec spec;
    spec.name = file.path();
    if (sentencepiece) {
      read_sentencepiece(file, vocabulary, spec);
    } else {
      read_byte_level(file, vocabulary, spec);
    }
    add_tokens(vocabulary, spec);
    if (file.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos_by_default(file))) {
      spec.bos_id = read_id(file, "tokenizer.ggml.bos_token_id", vocabulary);
    }
    if (file.boolean("tokenizer.ggml.add_eos_token").value_or(false)) {
      spec.eos_id = read_id(file, "tokenizer.ggml.eos_token_id", vocabulary);
    }
    return spec;
  });
}

GgufTemplate read_gguf_template(const GgufFile& file) {
  return as_tokenizer_error([&] {
    const bool sentencepiece = is_sentencepiece(file);
    const Vocabulary vocabulary = read_vocabulary(file);
    GgufTemplate result;
    const auto bos = read_id(file, "tokenizer.ggml.bos_token_id", vocabulary);
    const auto eos = read_id(file, "tokenizer.ggml.eos_token_id", vocabulary);
    const bool adds_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos_by_default(file));
    // Qwen's tokenizer has no BOS, but converters write the padding token in its place.
    const bool no_bos = !sentencepiece && read_cut(file) == Cut::qwen2 && !adds_bos;
    if (bos && !no_bos) result.bos = vocabulary.tokens[static_cast<size_t>(*bos)];
    if (eos) result.eos = vocabulary.tokens[static_cast<size_t>(*eos)];
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (vocabulary.is_special(id)) result.specials.push_back(vocabulary.tokens[id]);
    }
    result.chat_template = file.text("tokenizer.chat_template");
    if (result.chat_template && find_invalid_utf8(*result.chat_template))
      bad(file, "tokenizer.chat_template is no UTF-8");
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
      const auto id = read_id(file, key, vocabulary);
      if (id && std::find(result.stop_ids.begin(), result.stop_ids.end(), *id) == result.stop_ids.end())
        result.stop_ids.push_back(*id);
    }
    return result;
  });
}

}  // namespace caravan
