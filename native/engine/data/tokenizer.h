// The tokenizer of mixer, training, chat and score: Hugging Face's ids, from tokenizer.json or a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

struct TokenizerSpec;

struct EncodeOptions {
  /// Whether a special token spelled out in the text becomes that token. Never for text of users and rows: only for
  /// text that this program wrote, such as a rendered chat template. Added tokens that are not special always match.
  bool parse_special = false;
};

/// Immutable; one may be used by many threads at once.
class Tokenizer {
 public:
  /// @param path tokenizer.json, or a GGUF file
  /// @throws EngineError "tokenizer_invalid" when the file cannot be read, is hostile, or asks for what this engine
  ///   does not do; the message names the field
  static std::shared_ptr<const Tokenizer> from_file(const std::string& path);
  /// @param name what messages call the document
  static std::shared_ptr<const Tokenizer> from_json(std::string_view json, std::string_view name);
  /// From any other format's reader.
  static std::shared_ptr<const Tokenizer> from_spec(TokenizerSpec spec);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// The ids of the text alone: no BOS, no EOS.
  /// @throws EngineError "invalid_utf8", naming the first bad byte's offset
  std::vector<int32_t> encode(std::string_view utf8, EncodeOptions options = {}) const;

  /// The text of `ids`; ids that name no token are passed over, bytes that make no character become U+FFFD.
  /// @param skip_special leaves special tokens out
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// The raw bytes which one token adds inside a text (half characters as they are); empty for an id without a token.
  std::string token_bytes(int32_t id) const;

  /// One past the largest id. A model's embedding may have more rows.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token as the file spells it; empty for an id without a token.
  std::string id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;

  /// What the post-processor puts before and after a single text by default.
  bool adds_bos() const { return bos_id().has_value(); }
  bool adds_eos() const { return eos_id().has_value(); }
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

 private:
  friend std::vector<std::vector<int32_t>> encode_batch(const Tokenizer&, std::span<const std::string_view>, int,
                                                        EncodeOptions);
  struct State;
  explicit Tokenizer(TokenizerSpec spec);

  std::unique_ptr<State> state_;
};

/// Encodes every text, in order; the result does not depend on `threads` (at least 1).
/// @throws EngineError "invalid_utf8" for the first text that is no UTF-8, naming its index and offset
std::vector<std::vector<int32_t>> encode_batch(const Tokenizer& tokenizer, std::span<const std::string_view> texts,
                                               int threads, EncodeOptions options = {});

/// Turns ids that arrive one by one into text, holding back characters that are not complete yet: what all pushes and
/// finish() give together is the decoded text.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);

  /// The text that has become certain with this id; often empty.
  std::string push(int32_t id);
  /// What was held back (U+FFFD for what never became a character). The decoder is then as new.
  std::string finish();

 private:
  std::string decode_window() const;
  std::string beyond_given(const std::string& text) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::vector<int32_t> window_;  // decoded anew each time; its first ids are there for their context alone
  size_t context_ = 0;           // ids of the window that are given out
  std::string given_;            // the text of the context ids
};

}  // namespace caravan
