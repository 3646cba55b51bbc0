// Added tokens: found in the text before the model sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// Finds the leftmost-longest of a set of strings, as Hugging Face's matching of added tokens does.
class AddedTokenMatcher {
 public:
  /// A stretch of the text; `id` is -1 where it is plain text.
  struct Piece {
    size_t first;
    size_t end;
    int32_t id;
  };

  /// @param pattern the string to find for `token`: its content, or that content normalised; an empty one is left out
  void add(const AddedToken& token, std::string_view pattern);

  /// Cuts `text` into tokens and what lies between them. Without `parse_special` special tokens stay text.
  void find(std::string_view text, bool parse_special, std::vector<Piece>& pieces) const;

  /// False when no token can be found, so that find() would give the whole text.
  bool matches_any(bool parse_special) const { return parse_special ? !tokens_.empty() : has_plain_; }

 private:
  struct Node {
    std::vector<std::pair<char, uint32_t>> next;
    int32_t token = -1;  // index into tokens_
  };

  struct Match {
    size_t first;
    size_t end;
    int32_t token;
  };
  std::optional<Match> next_match(std::string_view text, size_t from) const;
  uint32_t child(uint32_t node, char c) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<AddedToken> tokens_;
  bool first_bytes_[256] = {};
  bool has_plain_ = false;
};

}  // namespace caravan
