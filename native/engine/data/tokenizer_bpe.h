// Byte pair encoding of one word: the merge of lowest rank first, the leftmost of equals first. Over bytes (GPT-2,
// Llama-3, Qwen2) or over code points with byte fallback (sentencepiece: Llama-2, Mistral, Yi), as the model of Hugging
// Face tokenizers does it; a cache keeps the ids of short words.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// Open addressing over 64-bit keys, filled once. `Value` is trivially copyable; the key ~0 is not allowed.
template <typename Value>
class FlatMap {
 public:
  explicit FlatMap(size_t expected = 0) {
    size_t capacity = 16;
    while (capacity < expected * 2 + 1) capacity *= 2;
    slots_.resize(capacity);
    shift_ = 64;
    for (size_t c = capacity; c > 1; c /= 2) --shift_;
  }

  void insert(uint64_t key, Value value) {  // a later value replaces an earlier one
    size_t i = home(key);
    while (slots_[i].key != empty && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, value};
  }
  const Value* find(uint64_t key) const {
    for (size_t i = home(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == empty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t empty = ~0ull;
  struct Slot {
    uint64_t key = empty;
    Value value{};
  };
  size_t home(uint64_t key) const {
    key ^= key >> 32;
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> shift_);
  }

  std::vector<Slot> slots_;
  int shift_;
};

/// All tokens by id and by string. Ids may have holes.
class TokenTable {
 public:
  /// @throws EngineError "tokenizer_invalid" when an id is used twice or lies far beyond the number of tokens
  explicit TokenTable(const TokenizerSpec& spec);

  int32_t size() const { return static_cast<int32_t>(offsets_.size()) - 1; }  // one past the largest id
  bool has(int32_t id) const { return id >= 0 && id < size() && present_[id]; }
  std::string_view token(int32_t id) const { return {text_.data() + offsets_[id], offsets_[id + 1] - offsets_[id]}; }
  std::optional<int32_t> find(std::string_view token) const;  // the model's and the added tokens
  std::optional<int32_t> find_in_model(std::string_view token) const;

 private:
  void index(int32_t id);

  std::string text_;
  std::vector<size_t> offsets_;    // (size + 1) into text_
  std::vector<uint8_t> present_;   // (size)
  std::vector<uint8_t> in_model_;  // (size)
  std::vector<int32_t> slots_;     // open addressing, -1 empty
};

/// Ids in the making: a vector that grows ahead of its use.
class IdBuffer {
 public:
  void clear() { size_ = 0; }
  size_t size() const { return size_; }
  const int32_t* data() const { return ids_.data(); }
  void push(int32_t id) {
    reserve(1);
    ids_[size_++] = id;
  }
  /// Room for `count` more ids, written at end(); grow() then takes them in.
  void reserve(size_t count) {
    if (size_ + count > ids_.size()) ids_.resize((size_ + count) * 2 + 64);
  }
  int32_t* end() { return ids_.data() + size_; }
  void grow(size_t count) { size_ += count; }

 private:
  std::vector<int32_t> ids_;
  size_t size_ = 0;
};

/// What one thread keeps between words. Not shared between threads at one time.
class BpeScratch {
 public:
  BpeScratch() : cache_(cache_slots) {}

 private:
  friend class BpeModel;

  static constexpr size_t cache_slots = 1 << 15;  // 2 MiB
  static constexpr size_t max_cached_bytes = 32;
  static constexpr size_t max_cached_ids = 7;

  struct alignas(64) CacheSlot {  // one cache line
    uint64_t key[4];              // the word's bytes, see load_key
    uint8_t length;               // 0: empty
    uint8_t count;
    int32_t ids[max_cached_ids];
  };
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    bool merged;  // into the one before it
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t id;
  };

  std::vector<CacheSlot> cache_;
  std::vector<int32_t> initial_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class BpeModel {
 public:
  /// @throws EngineError "tokenizer_invalid" when a merge names a token that the vocabulary lacks
  BpeModel(const TokenizerSpec& spec, const TokenTable& table, bool byte_level);

  /// Appends the ids of one pre-tokenised piece of text (raw bytes of valid UTF-8).
  void encode(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  void encode_word(std::string_view word, BpeScratch& scratch, IdBuffer& out) const;
  void encode_uncached(std::string_view word, BpeScratch& scratch, IdBuffer& out) const;
  void start_bytes(std::string_view word, std::vector<int32_t>& symbols) const;
  void start_code_points(std::string_view word, std::vector<int32_t>& symbols) const;
  void merge_short(const std::vector<int32_t>& symbols, IdBuffer& out) const;
  void merge_long(const std::vector<int32_t>& symbols, BpeScratch& scratch, IdBuffer& out) const;
  size_t independent_prefix(std::string_view piece) const;
  void find_joints(const TokenizerSpec& spec, const TokenTable& table);
  const Merge* find_merge(int32_t left, int32_t right) const {
    return merges_.find(static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right));
  }

  const TokenTable& table_;
  bool byte_level_;
  bool ignore_merges_;
  bool fuse_unk_;
  int32_t unk_id_ = -1;                 // -1: unknown symbols are dropped, as Hugging Face drops them
  std::array<int32_t, 256> byte_ids_;   // the symbol of a byte: of the byte alphabet, or the fallback <0xNN>
  std::array<int32_t, 128> ascii_ids_;  // code points: -1 unknown
  FlatMap<int32_t> code_point_ids_;
  FlatMap<Merge> merges_;  // left << 32 | right
  bool byte_fallback_ = false;

  // Where a piece may be cut without changing its ids: between two code points that stand side by side in no token
  // which a merge makes. A set bit: the pair (hashed) may stand so.
  bool cuts_ = false;
  std::vector<uint64_t> joints_;
};

/// The text in which byte-level vocabularies write `bytes`: one printable code point per byte (GPT-2's table).
std::string to_byte_alphabet(std::string_view bytes);

/// The bytes which `token` writes in that alphabet, or nothing when it holds another code point.
std::optional<std::string> from_byte_alphabet(std::string_view token);

/// The byte of a fallback token such as <0x0A>, or nothing.
std::optional<uint8_t> parse_byte_token(std::string_view token);

}  // namespace caravan
