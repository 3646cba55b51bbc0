#include "engine/data/tokenizer_bpe.h"

#include <algorithm>
#include <cstring>

#include "engine/platform/error.h"

namespace caravan {
namespace {

constexpr size_t short_word_symbols = 32;  // below: repeated search for the lowest rank; above: a heap
constexpr size_t joint_bits = 1 << 18;

[[noreturn]] void fail(const TokenizerSpec& spec, const std::string& what) {
  throw EngineError("tokenizer_invalid", spec.name + ": " + what);
}

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return hash ^ hash >> 29;
}

uint64_t load_8(const char* at) {
  uint64_t word;
  std::memcpy(&word, at, 8);
  return word;
}

// A word of 1 to 32 bytes as four numbers which, with its length, say what it is (the loads may overlap).
void load_key(const char* at, size_t length, uint64_t key[4]) {
  key[1] = key[2] = key[3] = 0;
  if (length >= 8) {
    key[0] = load_8(at);
    key[1] = load_8(at + length - 8);
    if (length > 16) {
      key[2] = load_8(at + 8);
      key[3] = load_8(at + length - 16);
    }
  } else if (length >= 4) {
    uint32_t first, last;
    std::memcpy(&first, at, 4);
    std::memcpy(&last, at + length - 4, 4);
    key[0] = static_cast<uint64_t>(last) << 32 | first;
  } else {
    const auto* s = reinterpret_cast<const unsigned char*>(at);
    key[0] = s[0] | s[length / 2] << 8 | s[length - 1] << 16;
  }
}

uint64_t hash_key(const uint64_t key[4], size_t length) {
  uint64_t hash = (key[0] ^ length) * 0x9E3779B97F4A7C15ull;
  hash = (hash ^ hash >> 32 ^ key[1]) * 0xC2B2AE3D27D4EB4Full;
  if (length > 16) {
    hash = (hash ^ hash >> 32 ^ key[2]) * 0x165667B19E3779F9ull;
    hash = (hash ^ hash >> 32 ^ key[3]) * 0x9E3779B97F4A7C15ull;
  }
  return hash ^ hash >> 29;
}

size_t joint_index(char32_t left, char32_t right) {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | right;
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> 46);
}

// GPT-2's table: printable Latin-1 stands for itself, the other bytes for U+0100 upwards.
struct ByteAlphabet {
  std::array<char32_t, 256> code_points;
  std::array<int16_t, 0x144> bytes;  // by code point, -1 none

  ByteAlphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      code_points[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes[code_points[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) append_utf8(out, byte_alphabet().code_points[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view token) {
  std::string out;
  for (const char* at = token.data(); at != token.data() + token.size();) {
    const DecodedCodePoint decoded = decode_utf8(at);
    if (decoded.code_point >= byte_alphabet().bytes.size()) return std::nullopt;
    const int16_t byte = byte_alphabet().bytes[decoded.code_point];
    if (byte < 0) return std::nullopt;
    out += static_cast<char>(byte);
    at += decoded.size;
  }
  return out;
}

std::optional<uint8_t> parse_byte_token(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

// --------------------------------------------------------------------------------------------------------------------
// TokenTable

TokenTable::TokenTable(const TokenizerSpec& spec) {
  const size_t count = spec.vocab.size() + spec.added_tokens.size();
  const int64_t limit = static_cast<int64_t>(count) * 4 + 65536;  // real files have few holes
  std::vector<std::string_view> tokens;
  const auto put = [&](int32_t id, std::string_view token, bool in_model) {
    if (id < 0 || id >= limit)
      fail(spec, "the id " + std::to_string(id) + " of \"" + std::string(token) + "\" lies far beyond the " +
                     std::to_string(count) + " tokens of the file");
    if (static_cast<size_t>(id) >= tokens.size()) {
      tokens.resize(id + 1);
      present_.resize(id + 1);
      in_model_.resize(id + 1);
    }
    if (present_[id] && tokens[id] != token)
      fail(spec, "the id " + std::to_string(id) + " is given to both \"" + std::string(tokens[id]) + "\" and \"" +
                     std::string(token) + "\"");
    tokens[id] = token;
    present_[id] = 1;
    if (in_model) in_model_[id] = 1;
  };
  for (const auto& [token, id] : spec.vocab) put(id, token, true);
  for (const AddedToken& token : spec.added_tokens) put(token.id, token.content, false);

  offsets_.reserve(tokens.size() + 1);
  offsets_.push_back(0);
  for (const std::string_view token : tokens) {
    text_ += token;
    offsets_.push_back(text_.size());
  }
  size_t capacity = 16;
  while (capacity < count * 2) capacity *= 2;
  slots_.assign(capacity, -1);
  for (int32_t id = 0; id < size(); ++id) {
    if (present_[id]) index(id);
  }
}

void TokenTable::index(int32_t id) {
  size_t i = hash_bytes(token(id)) & (slots_.size() - 1);
  while (slots_[i] >= 0) {
    if (token(slots_[i]) == token(id)) return;  // the first of equal tokens is found
    i = (i + 1) & (slots_.size() - 1);
  }
  slots_[i] = id;
}

std::optional<int32_t> TokenTable::find(std::string_view wanted) const {
  for (size_t i = hash_bytes(wanted) & (slots_.size() - 1); slots_[i] >= 0; i = (i + 1) & (slots_.size() - 1)) {
    if (token(slots_[i]) == wanted) return slots_[i];
  }
  return std::nullopt;
}

std::optional<int32_t> TokenTable::find_in_model(std::string_view wanted) const {
  const auto id = find(wanted);
  return id && in_model_[*id] ? id : std::nullopt;
}

// --------------------------------------------------------------------------------------------------------------------
// BpeModel

BpeModel::BpeModel(const TokenizerSpec& spec, const TokenTable& table, bool byte_level)
    : table_(table),
      byte_level_(byte_level),
      ignore_merges_(spec.ignore_merges),
      fuse_unk_(spec.fuse_unk),
      code_point_ids_(byte_level ? 0 : spec.vocab.size() / 2),
      merges_(spec.merges.size()) {
  if (spec.unk_token) {
    const auto id = table.find_in_model(*spec.unk_token);
    if (!id) fail(spec, "model.unk_token \"" + *spec.unk_token + "\" is not in model.vocab");
    unk_id_ = *id;
  }
  byte_ids_.fill(-1);
  ascii_ids_.fill(-1);
  for (int b = 0; b < 256; ++b) {
    static const char* digits = "0123456789ABCDEF";
    const std::string fallback = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
    const auto id = byte_level           ? table.find_in_model(to_byte_alphabet(std::string(1, static_cast<char>(b))))
                    : spec.byte_fallback ? table.find_in_model(fallback)
                                         : std::nullopt;
    if (id) byte_ids_[b] = *id;
  }
  byte_fallback_ = !byte_level && spec.byte_fallback;
  if (byte_level && spec.byte_fallback) fail(spec, "model.byte_fallback cannot be joined with ByteLevel");
  if (!byte_level) {
    for (const auto& [token, id] : spec.vocab) {
      if (token.empty()) continue;
      const DecodedCodePoint decoded = decode_utf8(token.data());
      if (decoded.size != token.size()) continue;
      if (decoded.code_point < 128)
        ascii_ids_[decoded.code_point] = id;
      else
        code_point_ids_.insert(decoded.code_point, id);
    }
  }
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const auto token = [&](const std::string& text) {
      const auto id = table.find_in_model(text);
      if (!id)
        fail(spec,
             "model.merges[" + std::to_string(rank) + "] needs the token \"" + text + "\", which model.vocab lacks");
      return static_cast<uint32_t>(*id);
    };
    const uint64_t key = static_cast<uint64_t>(token(left)) << 32 | token(right);
    merges_.insert(key, {static_cast<uint32_t>(rank), static_cast<int32_t>(token(left + right))});
  }
  find_joints(spec, table);
}

// Cutting is for vocabularies without a pre-tokenizer, whose words are whole texts. It is safe only while every code
// point becomes symbols of its own: an unknown one that is dropped, or fused with its neighbour, is not alone.
void BpeModel::find_joints(const TokenizerSpec& spec, const TokenTable& table) {
  if (byte_level_ || ignore_merges_ || !byte_fallback_) return;
  for (const int32_t id : byte_ids_) {
    if (id < 0) return;
  }
  joints_.assign(joint_bits / 64, 0);
  for (const auto& [left, right] : spec.merges) {
    for (const std::string* part : {&left, &right}) {
      const auto byte = parse_byte_token(*part);
      if (byte && table.find_in_model(*part) == byte_ids_[*byte]) return;  // bytes that merge know no code points
    }
    const std::string made = left + right;
    char32_t before = 0;
    for (const char* at = made.data(); at != made.data() + made.size();) {
      const DecodedCodePoint decoded = decode_utf8(at);
      if (at != made.data()) {
        const size_t joint = joint_index(before, decoded.code_point);
        joints_[joint / 64] |= 1ull << joint % 64;
      }
      before = decoded.code_point;
      at += decoded.size;
    }
  }
  cuts_ = true;
}

// The length of a beginning of `piece` that no merge joins to the rest. Two ASCII characters are never parted: a look
// at every pair of letters would cost more than it gives.
size_t BpeModel::independent_prefix(std::string_view piece) const {
  const char* end = piece.data() + piece.size();
  const char* at = piece.data();
  DecodedCodePoint left = decode_utf8(at);
  at += left.size;
  while (at != end) {
    if (left.size == 1) {
      while (at != end && static_cast<unsigned char>(*at) < 0x80) ++at;
      if (at == end) break;
      left.code_point = static_cast<unsigned char>(at[-1]);
    }
    const DecodedCodePoint right = decode_utf8(at);
    const size_t joint = joint_index(left.code_point, right.code_point);
    if (!(joints_[joint / 64] >> joint % 64 & 1)) break;
    left = right;
    at += right.size;
  }
  return static_cast<size_t>(at - piece.data());
}

void BpeModel::encode(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const {
  if (!cuts_) {
    if (!piece.empty()) encode_word(piece, scratch, out);
    return;
  }
  while (!piece.empty()) {
    const size_t length = independent_prefix(piece);
    encode_word(piece.substr(0, length), scratch, out);
    piece.remove_prefix(length);
  }
}

void BpeModel::encode_word(std::string_view word, BpeScratch& scratch, IdBuffer& out) const {
  if (word.size() > BpeScratch::max_cached_bytes) {
    encode_uncached(word, scratch, out);
    return;
  }
  uint64_t key[4];
  load_key(word.data(), word.size(), key);
  BpeScratch::CacheSlot& slot = scratch.cache_[hash_key(key, word.size()) & (BpeScratch::cache_slots - 1)];
  if (slot.length == word.size() && std::memcmp(slot.key, key, sizeof key) == 0) {
    out.reserve(BpeScratch::max_cached_ids);
    std::memcpy(out.end(), slot.ids, sizeof slot.ids);
    out.grow(slot.count);
    return;
  }
  const size_t before = out.size();
  encode_uncached(word, scratch, out);
  const size_t count = out.size() - before;
  if (count > BpeScratch::max_cached_ids) return;
  std::memcpy(slot.key, key, sizeof key);
  slot.length = static_cast<uint8_t>(word.size());
  slot.count = static_cast<uint8_t>(count);
  std::memcpy(slot.ids, out.data() + before, count * sizeof(int32_t));
}

void BpeModel::encode_uncached(std::string_view word, BpeScratch& scratch, IdBuffer& out) const {
  if (ignore_merges_) {
    const auto id = table_.find_in_model(byte_level_ ? to_byte_alphabet(word) : std::string(word));
    if (id) {
      out.push(*id);
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch.initial_;
  symbols.clear();
  if (byte_level_)
    start_bytes(word, symbols);
  else
    start_code_points(word, symbols);
  if (symbols.size() <= short_word_symbols)
    merge_short(symbols, out);
  else
    merge_long(symbols, scratch, out);
}

void BpeModel::start_bytes(std::string_view word, std::vector<int32_t>& symbols) const {
  bool unknown_before = false;
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0)
      symbols.push_back(id);
    else if (unk_id_ >= 0 && !(fuse_unk_ && unknown_before))
      symbols.push_back(unk_id_);
    unknown_before = id < 0;
  }
}

// Hugging Face holds an unknown symbol back until the next known one (to fuse it with those that follow), and bytes of
// the fallback overtake it. Kept, since ids must be equal.
void BpeModel::start_code_points(std::string_view word, std::vector<int32_t>& symbols) const {
  bool pending_unknown = false;
  for (const char* at = word.data(); at != word.data() + word.size();) {
    const DecodedCodePoint decoded = decode_utf8(at);
    int32_t id = -1;
    if (decoded.code_point < 128) {
      id = ascii_ids_[decoded.code_point];
    } else if (const int32_t* found = code_point_ids_.find(decoded.code_point)) {
      id = *found;
    }
    if (id >= 0) {
      if (pending_unknown) symbols.push_back(unk_id_);
      pending_unknown = false;
      symbols.push_back(id);
    } else if (byte_fallback_ && std::all_of(at, at + decoded.size,
                                             [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; })) {
      for (const char* c = at; c != at + decoded.size; ++c)
        symbols.push_back(byte_ids_[static_cast<unsigned char>(*c)]);
    } else if (unk_id_ >= 0) {
      if (pending_unknown && !fuse_unk_) symbols.push_back(unk_id_);
      pending_unknown = true;
    }
    at += decoded.size;
  }
  if (pending_unknown) symbols.push_back(unk_id_);
}

void BpeModel::merge_short(const std::vector<int32_t>& symbols, IdBuffer& out) const {
  constexpr uint32_t none = 0xFFFFFFFF;
  int32_t ids[short_word_symbols];
  Merge merges[short_word_symbols];  // of ids[i] and ids[i + 1]
  size_t count = symbols.size();
  std::copy(symbols.begin(), symbols.end(), ids);
  const auto look_up = [&](size_t i) {
    const Merge* merge = find_merge(ids[i], ids[i + 1]);
    merges[i] = merge ? *merge : Merge{none, -1};
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == none) break;
    ids[best] = merges[best].id;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      merges[i] = merges[i + 1];
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  out.reserve(count);
  std::copy(ids, ids + count, out.end());
  out.grow(count);
}

// O(n log n): a heap of candidate merges over a linked list of symbols. A candidate whose symbols have changed since is
// known by the id it would make.
void BpeModel::merge_long(const std::vector<int32_t>& initial, BpeScratch& scratch, IdBuffer& out) const {
  using Candidate = BpeScratch::Candidate;
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols_;
  std::vector<Candidate>& heap = scratch.heap_;
  const auto count = static_cast<int32_t>(initial.size());
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto propose = [&](int32_t left) {
    const int32_t right = symbols[left].next;
    if (right < 0) return;
    if (const Merge* merge = find_merge(symbols[left].id, symbols[right].id)) {
      heap.push_back({merge->rank, left, merge->id});
      std::push_heap(heap.begin(), heap.end(), later);
    }
  };
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i) symbols.push_back({initial[i], i - 1, i + 1 < count ? i + 1 : -1, false});
  for (int32_t i = 0; i + 1 < count; ++i) propose(i);
  while (!heap.empty()) {
    const Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[top.position];
    if (left.merged || left.next < 0) continue;
    BpeScratch::Symbol& right = symbols[left.next];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.merged = true;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    if (left.previous >= 0) propose(left.previous);
    propose(top.position);
  }
  for (int32_t i = 0; i >= 0 && count > 0; i = symbols[i].next) out.push(symbols[i].id);
}

}  // namespace caravan
