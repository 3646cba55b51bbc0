#include "engine/data/tokenizer_decode.h"

#include <algorithm>

#include "engine/data/tokenizer_bpe.h"
#include "engine/data/tokenizer_normalize.h"

namespace caravan {
namespace {

using Tokens = std::vector<std::string>;

// A token that is not in the byte alphabet (an added one with a blank, say) stands for itself.
std::string byte_level_bytes(std::string_view token) { return from_byte_alphabet(token).value_or(std::string(token)); }

void join(Tokens& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.assign(1, std::move(all));
}

// Runs of byte tokens become the text they spell, or one U+FFFD a byte when they spell none.
void fall_back_to_bytes(Tokens& tokens) {
  Tokens out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (!find_invalid_utf8(bytes)) {
      out.push_back(bytes);
    } else {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = parse_byte_token(token)) {
      bytes += static_cast<char>(*byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

void strip(const DecoderStep& step, std::string& token) {
  std::string_view left = token;
  for (size_t i = 0; i < step.start && left.starts_with(step.pattern); ++i) left.remove_prefix(step.pattern.size());
  for (size_t i = 0; i < step.stop && left.ends_with(step.pattern); ++i) left.remove_suffix(step.pattern.size());
  token = std::string(left);
}

std::string replaced(const DecoderStep& step, std::string_view token) {
  std::string out;
  replace_all(token, step.pattern, step.content, out);
  return out;
}

}  // namespace

std::string decode_tokens(const std::optional<std::vector<DecoderStep>>& steps, Tokens tokens) {
  using Kind = DecoderStep::Kind;
  if (!steps) {
    std::string text;
    for (size_t i = 0; i < tokens.size(); ++i) (i == 0 ? text : text += ' ') += tokens[i];
    return text;
  }
  for (const DecoderStep& step : *steps) {
    switch (step.kind) {
      case Kind::byte_level:
        for (std::string& token : tokens) token = byte_level_bytes(token);
        join(tokens);
        tokens[0] = replace_invalid_utf8(tokens[0]);
        break;
      case Kind::replace:
        for (std::string& token : tokens) token = replaced(step, token);
        break;
      case Kind::byte_fallback: fall_back_to_bytes(tokens); break;
      case Kind::fuse: join(tokens); break;
      case Kind::strip:
        for (std::string& token : tokens) strip(step, token);
        break;
      case Kind::metaspace:
        for (size_t i = 0; i < tokens.size(); ++i) {
          std::string out;
          replace_all(tokens[i], step.pattern, i == 0 && step.prepend_scheme != PrependScheme::never ? "" : " ", out);
          tokens[i] = std::move(out);
        }
        break;
    }
  }
  join(tokens);
  return std::move(tokens[0]);
}

std::string decode_token_bytes(const std::optional<std::vector<DecoderStep>>& steps, std::string_view token) {
  using Kind = DecoderStep::Kind;
  std::string bytes(token);
  if (!steps) return bytes;
  for (const DecoderStep& step : *steps) {
    if (step.kind == Kind::byte_level) {
      bytes = byte_level_bytes(bytes);
    } else if (step.kind == Kind::replace) {
      bytes = replaced(step, bytes);
    } else if (step.kind == Kind::byte_fallback) {
      if (const auto byte = parse_byte_token(bytes)) bytes = std::string(1, static_cast<char>(*byte));
    } else if (step.kind == Kind::metaspace) {
      bytes = replaced({.kind = Kind::replace, .pattern = step.pattern, .content = " "}, bytes);
    }
  }
  return bytes;
}

}  // namespace caravan
