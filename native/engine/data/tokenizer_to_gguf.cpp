#include "engine/data/tokenizer_to_gguf.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "engine/platform/error.h"

namespace caravan {

namespace {

/// tokenizer.ggml.token_type
enum TokenKind : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

[[noreturn]] void refuse(const TokenizerSpec& spec, const std::string& why) {
  throw EngineError("unsupported_tokenizer", spec.name + ": " + why +
                                                 ", so programs that read GGUF would make other tokens of a text; "
                                                 "use the layout merged, which carries tokenizer.json as it is");
}

bool is_sentencepiece(const TokenizerSpec& spec) {
  return spec.byte_fallback && spec.pre_tokenizers.empty() && !spec.normalizers.empty() &&
         spec.normalizers.back().kind == NormalizerStep::Kind::replace;
}

/// tokenizer.ggml.pre of a byte-level tokenizer: how text is cut into words.
std::string name_of_cut(const TokenizerSpec& spec) {
  using Kind = PreTokenizerStep::Kind;
  const std::vector<PreTokenizerStep>& steps = spec.pre_tokenizers;
  if (steps.empty() || steps.size() > 2 || steps.back().kind != Kind::byte_level || steps.back().add_prefix_space) {
    refuse(spec, "it cuts text into words in a way of its own");
  }
  const bool nfc = spec.normalizers.size() == 1 && spec.normalizers[0].kind == NormalizerStep::Kind::normal_form &&
                   spec.normalizers[0].form == NormalForm::nfc;
  if (!spec.normalizers.empty() && !nfc) refuse(spec, "it normalises text in a way of its own");
  if (steps.size() == 1 && steps[0].use_regex && !nfc && !spec.ignore_merges) return "gpt-2";
  const PreTokenizerStep& first = steps[0];
  if (first.kind == Kind::digits && first.behavior == DelimiterBehavior::isolated && steps[1].use_regex && !nfc &&
      !spec.ignore_merges) {
    return "smollm";
  }
  if (first.kind == Kind::split_rule && !steps[1].use_regex) {
    if (first.rule == SplitRule::llama3 && spec.ignore_merges && !nfc) return "llama-bpe";
    if (first.rule == SplitRule::qwen2 && !spec.ignore_merges && nfc) return "qwen2";
  }
  refuse(spec, "it cuts text into words in a way of its own");
}

/// Sentencepiece's scores are gone from tokenizer.json; their order is not: a token scores by the first merge that makes it.
std::vector<float> scores_of(const TokenizerSpec& spec, const std::vector<std::string>& tokens) {
  std::unordered_map<std::string, float> by_token;
  float next = 0.0f;
  for (const auto& [left, right] : spec.merges) {
    if (by_token.emplace(left + right, next).second) next -= 1.0f;
  }
  std::vector<float> scores(tokens.size(), 0.0f);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto found = by_token.find(tokens[id]);
    // What no merge makes is a single character: behind all others, as sentencepiece has them.
    scores[id] = found == by_token.end() ? next - static_cast<float>(id) : found->second;
  }
  return scores;
}

bool is_byte_token(const std::string& token) {
  return token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
}

}  // namespace

void add_gguf_tokenizer(GgufWriter& writer, const TokenizerSpec& spec, const GgufTokenizerFacts& facts) {
  const bool sentencepiece = is_sentencepiece(spec);
  std::vector<std::string> tokens(static_cast<size_t>(facts.vocab_size));
  std::vector<int32_t> kinds(tokens.size(), unused);
  for (size_t id = 0; id < tokens.size(); ++id) tokens[id] = "[PAD" + std::to_string(id) + "]";
  const auto set = [&](int32_t id, const std::string& token, int32_t kind) {
    if (id < 0 || id >= facts.vocab_size) {
      throw EngineError("tokenizer_invalid", spec.name + ": token \"" + token + "\" has id " + std::to_string(id) +
                                                 ", but the model has " + std::to_string(facts.vocab_size) + " rows");
    }
    tokens[static_cast<size_t>(id)] = token;
    kinds[static_cast<size_t>(id)] = kind;
  };
  for (const auto& [token, id] : spec.vocab) {
    set(id, token, sentencepiece && is_byte_token(token) ? byte : normal);
  }
  for (const AddedToken& token : spec.added_tokens)
    set(token.id, token.content, token.special ? control : user_defined);
  writer.text("tokenizer.ggml.model", sentencepiece ? "llama" : "gpt2");
  if (sentencepiece) {
    writer.text("tokenizer.ggml.pre", "default");
    const bool prefix = spec.normalizers[0].kind == NormalizerStep::Kind::prepend;
    writer.boolean("tokenizer.ggml.add_space_prefix", prefix);
    if (spec.unk_token) {
      const auto found = std::find(tokens.begin(), tokens.end(), *spec.unk_token);
      if (found != tokens.end()) {
        const auto id = static_cast<size_t>(found - tokens.begin());
        kinds[id] = unknown;
        writer.u32("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(id));
      }
    }
  } else {
    writer.text("tokenizer.ggml.pre", name_of_cut(spec));
  }
  writer.texts("tokenizer.ggml.tokens", tokens);
  writer.i32s("tokenizer.ggml.token_type", kinds);
  if (sentencepiece) {
    writer.f32s("tokenizer.ggml.scores", scores_of(spec, tokens));
  } else {
    std::vector<std::string> merges;
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    writer.texts("tokenizer.ggml.merges", merges);
  }
  const std::optional<int32_t> bos = facts.bos_id ? facts.bos_id : spec.bos_id;
  if (bos) writer.u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*bos));
  if (!facts.eos_ids.empty()) writer.u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(facts.eos_ids[0]));
  if (facts.eos_ids.size() > 1) writer.u32("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(facts.eos_ids[1]));
  writer.boolean("tokenizer.ggml.add_bos_token", spec.bos_id.has_value());
  writer.boolean("tokenizer.ggml.add_eos_token", spec.eos_id.has_value());
  if (!facts.chat_template.empty()) writer.text("tokenizer.chat_template", facts.chat_template);
}

void copy_gguf_tokenizer(GgufWriter& writer, const GgufFile& from, const std::string& chat_template) {
  for (const std::string& key : from.keys()) {
    if (key.starts_with("tokenizer.") && key != "tokenizer.chat_template") writer.copy(key, from);
  }
  if (!chat_template.empty()) writer.text("tokenizer.chat_template", chat_template);
}

std::string compare_tokenizers(const TokenizerSpec& written, const TokenizerSpec& original) {
  const auto collect = [](const TokenizerSpec& spec) {
    std::map<int32_t, std::pair<std::string, bool>> found;
    for (const auto& [token, id] : spec.vocab) found[id] = {token, false};
    for (const AddedToken& token : spec.added_tokens) found[token.id] = {token.content, token.special};
    return found;
  };
  const auto a = collect(written), b = collect(original);
  for (const auto& [id, token] : b) {
    const auto found = a.find(id);
    if (found == a.end()) return "token " + std::to_string(id) + " (\"" + token.first + "\") is missing";
    if (found->second.first != token.first) return "token " + std::to_string(id) + " is spelled otherwise";
  }
  if (a.size() != b.size()) return "has " + std::to_string(a.size()) + " tokens instead of " + std::to_string(b.size());
  if (written.merges != original.merges) {
    const size_t count = std::min(written.merges.size(), original.merges.size());
    size_t at = 0;
    while (at < count && written.merges[at] == original.merges[at]) ++at;
    return "merge " + std::to_string(at) + " differs (" + std::to_string(written.merges.size()) + " and " +
           std::to_string(original.merges.size()) + " in all)";
  }
  if (written.bos_id != original.bos_id || written.eos_id != original.eos_id) return "adds other tokens round a text";
  return {};
}

}  // namespace caravan
