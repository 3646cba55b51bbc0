// tokenizer.json, version 1.0: https://huggingface.co/docs/tokenizers (the format has no other specification than
// that package, whose defaults for absent fields are kept here).
#include "engine/data/tokenizer_json.h"

#include <array>
#include <limits>
#include <map>
#include <unordered_map>

#include <nlohmann/json.hpp>
#include "engine/platform/error.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

constexpr int max_nesting = 8;  // Sequences within Sequences
constexpr int64_t max_token_bytes = 1 << 16;

struct NamedRule {
  const char* pattern;
  SplitRule rule;
};

// Recognised as exact strings: two patterns that look alike may split differently.
constexpr std::array<NamedRule, 3> split_rules{{
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", SplitRule::gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitRule::llama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitRule::qwen2},
}};

// One place of the document: the value and the path by which messages name it.
class Field {
 public:
  Field(const Json& value, std::string path, std::string_view file)
      : value_(value), path_(std::move(path)), file_(file) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw EngineError("tokenizer_invalid", std::string(file_) + ": " + path_ + " " + what);
  }

  const Json& json() const { return value_; }
  const std::string& path() const { return path_; }

  bool has(const char* key) const {
    if (!value_.is_object()) fail("must be an object");
    const auto found = value_.find(key);
    return found != value_.end() && !found->is_null();
  }
  Field at(const char* key) const {
    if (!has(key)) Field(value_, child(key), file_).fail("is missing");
    return {*value_.find(key), child(key), file_};
  }
  Field item(size_t index) const { return {value_[index], path_ + "[" + std::to_string(index) + "]", file_}; }
  size_t size() const {
    if (!value_.is_array()) fail("must be a list");
    return value_.size();
  }

  std::string string() const {
    if (!value_.is_string()) fail("must be a string");
    return value_.get<std::string>();
  }
  bool boolean() const {
    if (!value_.is_boolean()) fail("must be true or false");
    return value_.get<bool>();
  }
  int64_t integer() const {
    if (!value_.is_number_integer()) fail("must be a whole number");
    if (value_.is_number_unsigned() &&
        value_.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail("is too large");
    return value_.get<int64_t>();
  }
  int32_t id() const {
    const int64_t id = integer();
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) fail("is no token id: " + std::to_string(id));
    return static_cast<int32_t>(id);
  }
  bool boolean_or(const char* key, bool otherwise) const { return has(key) ? at(key).boolean() : otherwise; }
  std::string string_or(const char* key, const char* otherwise) const {
    return has(key) ? at(key).string() : otherwise;
  }
  std::string type() const { return at("type").string(); }
  [[noreturn]] void unsupported(const std::string& what) const {
    fail("asks for " + what + ", which this engine does not support");
  }

 private:
  std::string child(const char* key) const { return path_.empty() ? key : path_ + "." + key; }

  const Json& value_;
  std::string path_;
  std::string_view file_;
};

std::string one_code_point(const Field& field) {
  const std::string text = field.string();
  if (text.empty() || decode_utf8(text.data()).size != text.size()) field.fail("must be one character");
  return text;
}

// {"String": literal} or {"Regex": pattern}; the latter is only given back, its caller judges it.
struct Pattern {
  bool is_regex;
  std::string text;
};

Pattern read_pattern(const Field& field) {
  if (field.has("String")) {
    Pattern pattern{false, field.at("String").string()};
    if (pattern.text.empty()) field.fail("must not be empty");
    return pattern;
  }
  return {true, field.at("Regex").string()};
}

// --------------------------------------------------------------------------------------------------------------------
// Normalizers

void read_normalizer(const Field& field, int depth, std::vector<NormalizerStep>& out) {
  using Kind = NormalizerStep::Kind;
  if (depth > max_nesting) field.fail("is nested too deeply");
  const std::string type = field.type();
  static const std::map<std::string, NormalForm> forms{
      {"NFC", NormalForm::nfc}, {"NFD", NormalForm::nfd}, {"NFKC", NormalForm::nfkc}, {"NFKD", NormalForm::nfkd}};
  NormalizerStep step{};
  if (type == "Sequence") {
    const Field list = field.at("normalizers");
    for (size_t i = 0; i < list.size(); ++i) read_normalizer(list.item(i), depth + 1, out);
    return;
  } else if (forms.count(type)) {
    step.kind = Kind::normal_form;
    step.form = forms.at(type);
  } else if (type == "Lowercase") {
    step.kind = Kind::lowercase;
  } else if (type == "Prepend") {
    step.kind = Kind::prepend;
    step.content = field.at("prepend").string();
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    Pattern pattern = read_pattern(field.at("pattern"));
    if (pattern.is_regex) field.at("pattern").unsupported("the regular expression " + pattern.text);
    step.pattern = std::move(pattern.text);
    step.content = field.at("content").string();
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.strip_left = field.at("strip_left").boolean();
    step.strip_right = field.at("strip_right").boolean();
  } else {
    field.unsupported("the normalizer " + type);
  }
  out.push_back(std::move(step));
}

// --------------------------------------------------------------------------------------------------------------------
// Pre-tokenizers

DelimiterBehavior read_behavior(const Field& field) {
  static const std::map<std::string, DelimiterBehavior> behaviors{
      {"Removed", DelimiterBehavior::removed},
      {"Isolated", DelimiterBehavior::isolated},
      {"MergedWithPrevious", DelimiterBehavior::merged_with_previous},
      {"MergedWithNext", DelimiterBehavior::merged_with_next},
      {"Contiguous", DelimiterBehavior::contiguous}};
  const auto found = behaviors.find(field.string());
  if (found == behaviors.end()) field.fail("is no behaviour: " + field.string());
  return found->second;
}

// `prepend_scheme`, or the older `add_prefix_space` (and the files that carry both).
PrependScheme read_prepend_scheme(const Field& field) {
  PrependScheme scheme = PrependScheme::always;
  if (field.has("prepend_scheme")) {
    const std::string name = field.at("prepend_scheme").string();
    if (name == "always")
      scheme = PrependScheme::always;
    else if (name == "first")
      scheme = PrependScheme::first;
    else if (name == "never")
      scheme = PrependScheme::never;
    else
      field.at("prepend_scheme").fail("is no scheme: " + name);
  }
  if (!field.boolean_or("add_prefix_space", true)) {
    if (field.has("prepend_scheme") && scheme != PrependScheme::never)
      field.fail("has add_prefix_space false but a prepend_scheme that is not never");
    scheme = PrependScheme::never;
  }
  return scheme;
}

PreTokenizerStep read_split(const Field& field) {
  using Kind = PreTokenizerStep::Kind;
  PreTokenizerStep step{};
  Pattern pattern = read_pattern(field.at("pattern"));
  step.behavior = read_behavior(field.at("behavior"));
  step.invert = field.boolean_or("invert", false);
  if (!pattern.is_regex) {
    step.kind = Kind::split_literal;
    step.literal = std::move(pattern.text);
    return step;
  }
  step.kind = Kind::split_rule;
  // The known patterns match every text without a gap: so isolated matches, and removing what is between them, agree.
  const bool keeps_matches =
      step.behavior == DelimiterBehavior::isolated || (step.behavior == DelimiterBehavior::removed && step.invert);
  if (!keeps_matches) field.unsupported("this behaviour of a split by a regular expression");
  for (const NamedRule& known : split_rules) {
    if (pattern.text == known.pattern) {
      step.rule = known.rule;
      return step;
    }
  }
  field.at("pattern").unsupported("the regular expression " + pattern.text);
}

void read_pre_tokenizer(const Field& field, int depth, std::vector<PreTokenizerStep>& out) {
  using Kind = PreTokenizerStep::Kind;
  if (depth > max_nesting) field.fail("is nested too deeply");
  if (!out.empty() && out.back().kind == Kind::byte_level) field.unsupported("a pre-tokenizer after ByteLevel");
  const std::string type = field.type();
  PreTokenizerStep step{};
  if (type == "Sequence") {
    const Field list = field.at("pretokenizers");
    for (size_t i = 0; i < list.size(); ++i) read_pre_tokenizer(list.item(i), depth + 1, out);
    return;
  } else if (type == "Split") {
    step = read_split(field);
  } else if (type == "Digits") {
    step.kind = Kind::digits;
    step.behavior =
        field.boolean_or("individual_digits", false) ? DelimiterBehavior::isolated : DelimiterBehavior::contiguous;
  } else if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
    step.add_prefix_space = field.at("add_prefix_space").boolean();
    step.use_regex = field.boolean_or("use_regex", true);
  } else if (type == "Metaspace") {
    step.kind = Kind::metaspace;
    step.literal = one_code_point(field.at("replacement"));
    step.prepend_scheme = read_prepend_scheme(field);
    step.split = field.boolean_or("split", true);
  } else if (type == "Whitespace") {
    step.kind = Kind::whitespace;
  } else if (type == "WhitespaceSplit") {
    step.kind = Kind::whitespace_split;
  } else if (type == "Punctuation") {
    step.kind = Kind::punctuation;
    step.behavior = field.has("behavior") ? read_behavior(field.at("behavior")) : DelimiterBehavior::isolated;
  } else {
    field.unsupported("the pre-tokenizer " + type);
  }
  out.push_back(std::move(step));
}

// --------------------------------------------------------------------------------------------------------------------
// Decoders

void read_decoder(const Field& field, int depth, std::vector<DecoderStep>& out) {
  using Kind = DecoderStep::Kind;
  if (depth > max_nesting) field.fail("is nested too deeply");
  const std::string type = field.type();
  DecoderStep step{};
  if (type == "Sequence") {
    const Field list = field.at("decoders");
    for (size_t i = 0; i < list.size(); ++i) read_decoder(list.item(i), depth + 1, out);
    return;
  } else if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    Pattern pattern = read_pattern(field.at("pattern"));
    if (pattern.is_regex) field.at("pattern").unsupported("the regular expression " + pattern.text);
    step.pattern = std::move(pattern.text);
    step.content = field.at("content").string();
  } else if (type == "ByteFallback") {
    step.kind = Kind::byte_fallback;
  } else if (type == "Fuse") {
    step.kind = Kind::fuse;
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.pattern = one_code_point(field.at("content"));
    const int64_t start = field.at("start").integer(), stop = field.at("stop").integer();
    if (start < 0 || stop < 0) field.fail("has a negative count");
    step.start = static_cast<size_t>(start);
    step.stop = static_cast<size_t>(stop);
  } else if (type == "Metaspace") {
    step.kind = Kind::metaspace;
    step.pattern = one_code_point(field.at("replacement"));
    step.prepend_scheme = read_prepend_scheme(field);
  } else {
    field.unsupported("the decoder " + type);
  }
  out.push_back(std::move(step));
}

// --------------------------------------------------------------------------------------------------------------------
// The model and what lies round it

void check_token(const Field& field, const std::string& token) {
  if (static_cast<int64_t>(token.size()) > max_token_bytes) field.fail("holds a token of over 65536 bytes");
}

void read_vocab(const Field& field, TokenizerSpec& spec) {
  if (!field.json().is_object()) field.fail("must be an object");
  if (field.json().empty()) field.fail("is empty");
  spec.vocab.reserve(field.json().size());
  for (const auto& [token, id] : field.json().items()) {
    if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<int32_t>::max())
      field.fail("gives \"" + token + "\" no token id but " + id.dump());
    check_token(field, token);
    spec.vocab.emplace_back(token, id.get<int32_t>());
  }
}

// Merges are "left right" strings, or (since 2024) [left, right] lists.
void read_merges(const Field& field, TokenizerSpec& spec) {
  const size_t count = field.size();
  spec.merges.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const Json& merge = field.json()[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    }
    field.item(i).fail("must be a pair of tokens");
  }
}

void read_model(const Field& field, TokenizerSpec& spec) {
  // Old files of byte pair models carry no type.
  const std::string type = field.string_or("type", "BPE");
  if (type != "BPE") field.unsupported("the model " + type);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!field.string_or(key, "").empty()) field.at(key).unsupported("a mark on parts of words");
  }
  if (field.has("dropout") && !(field.at("dropout").json().is_number() && field.at("dropout").json() == 0.0))
    field.at("dropout").unsupported("random merges");
  if (field.has("unk_token")) spec.unk_token = field.at("unk_token").string();
  spec.byte_fallback = field.boolean_or("byte_fallback", false);
  spec.fuse_unk = field.boolean_or("fuse_unk", false);
  spec.ignore_merges = field.boolean_or("ignore_merges", false);
  read_vocab(field.at("vocab"), spec);
  read_merges(field.at("merges"), spec);
}

void read_added_tokens(const Field& field, TokenizerSpec& spec) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& [token, id] : spec.vocab) ids.emplace(token, id);
  std::unordered_map<int32_t, std::string> contents;
  for (size_t i = 0; i < field.size(); ++i) {
    const Field item = field.item(i);
    AddedToken token;
    token.id = item.at("id").id();
    token.content = item.at("content").string();
    token.special = item.boolean_or("special", false);
    token.single_word = item.boolean_or("single_word", false);
    token.lstrip = item.boolean_or("lstrip", false);
    token.rstrip = item.boolean_or("rstrip", false);
    token.normalized = item.boolean_or("normalized", !token.special);
    if (token.content.empty()) item.at("content").fail("is empty");
    check_token(item, token.content);
    const auto in_vocab = ids.find(token.content);
    if (in_vocab != ids.end() && in_vocab->second != token.id)
      item.at("id").fail("is " + std::to_string(token.id) + ", but model.vocab gives the same token " +
                         std::to_string(in_vocab->second));
    if (!contents.emplace(token.id, token.content).second)
      item.at("id").fail("was given to an earlier token: " + std::to_string(token.id));
    spec.added_tokens.push_back(std::move(token));
  }
}

// TemplateProcessing of a single text: at most one special token before it and one after it.
void read_template(const Field& field, TokenizerSpec& spec) {
  const Field pieces = field.at("single");
  bool after = false;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Field piece = pieces.item(i);
    if (piece.has("Sequence")) {
      if (after) piece.unsupported("a template that repeats the text");
      after = true;
      continue;
    }
    const std::string name = piece.at("SpecialToken").at("id").string();
    const Field ids = field.at("special_tokens").at(name.c_str()).at("ids");
    std::optional<int32_t>& slot = after ? spec.eos_id : spec.bos_id;
    if (ids.size() != 1 || slot) piece.unsupported("several special tokens on one side of the text");
    slot = ids.item(0).id();
  }
}

void read_post_processor(const Field& field, int depth, TokenizerSpec& spec) {
  if (depth > max_nesting) field.fail("is nested too deeply");
  const std::string type = field.type();
  if (type == "TemplateProcessing") {
    read_template(field, spec);
  } else if (type == "Sequence") {
    const Field list = field.at("processors");
    for (size_t i = 0; i < list.size(); ++i) read_post_processor(list.item(i), depth + 1, spec);
  } else if (type != "ByteLevel") {  // ByteLevel only moves offsets
    field.unsupported("the post-processor " + type);
  }
}

}  // namespace

TokenizerSpec parse_tokenizer_json(std::string_view json, std::string_view name) {
  Json document;
  try {
    document = Json::parse(json);
  } catch (const Json::exception& error) {
    throw EngineError("tokenizer_invalid", std::string(name) + " is not JSON: " + error.what());
  }
  TokenizerSpec spec;
  spec.name = name;
  const Field root(document, "", name);
  if (!document.is_object()) throw EngineError("tokenizer_invalid", std::string(name) + " must hold a JSON object");
  read_model(root.at("model"), spec);
  if (root.has("added_tokens")) read_added_tokens(root.at("added_tokens"), spec);
  if (root.has("normalizer")) read_normalizer(root.at("normalizer"), 0, spec.normalizers);
  if (root.has("pre_tokenizer")) read_pre_tokenizer(root.at("pre_tokenizer"), 0, spec.pre_tokenizers);
  if (root.has("decoder")) read_decoder(root.at("decoder"), 0, spec.decoders.emplace());
  if (root.has("post_processor")) read_post_processor(root.at("post_processor"), 0, spec);
  return spec;
}

}  // namespace caravan
