#include "engine/data/tokenizer_added.h"

#include <algorithm>

namespace caravan {
namespace {

uint8_t class_before(std::string_view text, size_t at) {
  size_t i = at - 1;
  while ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return code_point_classes()[decode_utf8(text.data() + i).code_point];
}

uint8_t class_at(std::string_view text, size_t at) {
  return code_point_classes()[decode_utf8(text.data() + at).code_point];
}

bool stands_alone(std::string_view text, size_t first, size_t end) {
  return (first == 0 || !(class_before(text, first) & class_word)) &&
         (end == text.size() || !(class_at(text, end) & class_word));
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return;
  uint32_t node = 0;
  for (const char c : pattern) {
    uint32_t next = child(node, c);
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_[node].next.emplace_back(c, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  if (nodes_[node].token >= 0) return;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  first_bytes_[static_cast<unsigned char>(pattern[0])] = true;
  has_plain_ = has_plain_ || !token.special;
}

uint32_t AddedTokenMatcher::child(uint32_t node, char c) const {
  for (const auto& [key, next] : nodes_[node].next) {
    if (key == c) return next;
  }
  return 0;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::next_match(std::string_view text, size_t from) const {
  for (size_t first = from; first < text.size(); ++first) {
    if (!first_bytes_[static_cast<unsigned char>(text[first])]) continue;
    Match longest{first, 0, -1};
    uint32_t node = 0;
    for (size_t i = first; i < text.size() && (node = child(node, text[i])) != 0; ++i) {
      if (nodes_[node].token >= 0) longest = {first, i + 1, nodes_[node].token};
    }
    if (longest.token >= 0) return longest;
  }
  return std::nullopt;
}

void AddedTokenMatcher::find(std::string_view text, bool parse_special, std::vector<Piece>& pieces) const {
  pieces.clear();
  size_t done = 0;  // the text before it is in pieces
  size_t search = 0;
  while (const auto match = next_match(text, search)) {
    const AddedToken& token = tokens_[match->token];
    size_t first = match->first, end = match->end;
    search = end;
    if (first < done) continue;  // in white space which the token before took in
    if (token.special && !parse_special) continue;
    if (token.single_word && !stands_alone(text, first, end)) continue;
    if (token.lstrip) {
      while (first > done && class_before(text, first) & class_space) {
        --first;
        while ((static_cast<unsigned char>(text[first]) & 0xC0) == 0x80) --first;
      }
    }
    if (token.rstrip) {
      while (end < text.size() && class_at(text, end) & class_space) end += decode_utf8(text.data() + end).size;
    }
    if (done < first) pieces.push_back({done, first, -1});
    pieces.push_back({first, end, token.id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({done, text.size(), -1});
}

}  // namespace caravan
