// The tokenizer against Hugging Face's ids on every recorded line (with CARAVAN_TEST_DATA), and against small files
// worked by hand: every step of the format, hostile files, long words, threads and streams.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/data/tokenizer.h"
#include "engine/data/tokenizer_split.h"
#include "engine/data/unicode.h"
#include "engine/platform/error.h"
#include "test_data.h"
#include "tiny_run.h"

using namespace caravan;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

// A list of lists: in braces alone, a list of pairs of strings would become an object.
Json pairs(const std::vector<std::vector<std::string>>& merges) { return merges; }

// "a" to "e", a blank's marker, "ab" (rank 0), "▁ab" (1), "abc" by "ab"+"c" (3) and "bc" (2), and the fallback bytes.
Json sentencepiece() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}, {"a", 3},    {"b", 4},   {"c", 5},   {"d", 6},
                {"e", 7},     {"▁", 8},   {"ab", 9},   {"▁ab", 10}, {"bc", 11}, {"abc", 12}};
  for (int byte = 0; byte < 256; ++byte) {
    char token[7];
    std::snprintf(token, sizeof token, "<0x%02X>", byte);
    vocab[token] = 13 + byte;
  }
  const auto special = [](int id, const char* content) {
    return Json{{"id", id}, {"content", content}, {"special", true}, {"normalized", false}};
  };
  return {{"version", "1.0"},
          {"added_tokens", {special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", pairs({{"a", "b"}, {"▁", "ab"}, {"b", "c"}, {"ab", "c"}})}}}};
}

// GPT-2's alphabet for a few letters, blank (Ġ) and newline (Ċ); the byte of "z" has no token.
Json byte_level() {
  return {{"added_tokens",
           {{{"id", 20}, {"content", "<|end|>"}, {"special", true}},
            {{"id", 21}, {"content", "<tool>"}, {"special", false}, {"normalized", false}}}},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0},  {"b", 1},  {"Ġ", 2},  {"Ċ", 3},   {"1", 4},   {"Ã", 5},    {"©", 6},
                       {"'", 7},  {"s", 8},  {"ab", 9}, {"Ġa", 10}, {"Ã©", 11}, {"Ġab", 12}, {"<", 13},
                       {"|", 14}, {">", 15}, {"e", 16}, {"n", 17},  {"d", 18},  {"'s", 19}}},
            {"merges", {"a b", "Ġ a", "Ã ©", "Ġ ab", "' s"}}}}};
}

std::shared_ptr<const Tokenizer> load(const Json& json) { return Tokenizer::from_json(json.dump(), "test.json"); }

std::string refusal(const Json& json) {
  try {
    load(json);
  } catch (const EngineError& error) {
    CHECK(error.code == "tokenizer_invalid");
    return error.what();
  }
  FAIL("accepted");
  return {};
}

std::string test_data() {
  const char* folder = std::getenv("CARAVAN_TEST_DATA");
  if (folder == nullptr || *folder == '\0') {
    std::puts("SKIPPED recorded tokenizer lines: set CARAVAN_TEST_DATA to the folder that holds data/ and models/");
    return {};
  }
  return folder;
}

std::string gunzip(const std::string& path) {
  const std::string command = "gzip -dc '" + path + "'";
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (size_t count; (count = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    text.append(buffer.data(), count);
  REQUIRE(pclose(pipe) == 0);
  return text;
}

struct Line {
  std::string kind;
  std::string text;
  Json ids;
};

const std::vector<Line>& recorded_lines(const std::string& folder) {
  static const std::vector<Line> lines = [&] {
    std::vector<Line> read;
    const std::string text = gunzip(folder + "/data/tokenizer-lines.jsonl.gz");
    for (size_t first = 0; first < text.size();) {
      const size_t end = std::min(text.find('\n', first), text.size());
      const Json line = Json::parse(text.substr(first, end - first));
      read.push_back({line.at("kind"), line.at("text"), line.at("ids")});
      first = end + 1;
    }
    return read;
  }();
  return lines;
}

// What the decoders leave of `text`: the bytes whose byte-alphabet token the vocabulary has.
std::string without_missing_bytes(const Tokenizer& tokenizer, const std::string& text) {
  std::string kept;
  for (const char byte : text) {
    const Ids ids = tokenizer.encode(std::string(1, static_cast<unsigned char>(byte) < 0x80 ? byte : 'a'));
    if (static_cast<unsigned char>(byte) >= 0x80 || !ids.empty()) kept += byte;
  }
  return kept;
}

std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    CHECK(!find_invalid_utf8(part));
    text += part;
  }
  return text + decoder.finish();
}

}  // namespace

TEST_CASE("recorded lines have Hugging Face's ids and decode to their text") {
  const std::string folder = test_data();
  if (folder.empty()) return;
  const auto& lines = recorded_lines(folder);
  REQUIRE(lines.size() == 4000);
  for (const std::string name : {"llama-2", "llama-3", "qwen2"}) {
    CAPTURE(name);
    const auto tokenizer =
        Tokenizer::from_json(gunzip(folder + "/models/tokenizers/" + name + ".tokenizer.json.gz"), name);
    size_t wrong_ids = 0, wrong_texts = 0, wrong_streams = 0, normalized = 0;
    for (const Line& line : lines) {
      const Ids ids = tokenizer->encode(line.text);
      if (ids != line.ids.at(name).get<Ids>() && ++wrong_ids <= 3) MESSAGE(line.kind, ": ", line.text);
      std::string expected = name == "qwen2" ? normalize(line.text, NormalForm::nfc) : line.text;
      normalized += expected != line.text;
      if (tokenizer->decode(ids) != expected) ++wrong_texts;
      if (streamed(tokenizer, ids) != expected) ++wrong_streams;
    }
    CHECK(wrong_ids == 0);
    CHECK(wrong_texts == 0);
    CHECK(wrong_streams == 0);
    CHECK(normalized == (name == "qwen2" ? 181 : 0));
  }
}

TEST_CASE("recorded lines have the same ids from GGUF metadata") {
  const std::string folder = test_data();
  if (folder.empty()) return;
  const test::TempFolder unpacked("tokenizer-gguf");
  for (const std::string name : {"llama-2", "llama-3", "qwen2", "smollm2"}) {
    CAPTURE(name);
    std::string path = folder + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (name != "smollm2") {
      path = unpacked.path(name + ".gguf");
      test::write_file(path, gunzip(folder + "/models/tokenizers/" + name + ".gguf.gz"));
    }
    const auto tokenizer = Tokenizer::from_file(path);
    CHECK(tokenizer->adds_bos() == (name == "llama-2" || name == "llama-3"));
    size_t wrong_ids = 0, wrong_texts = 0;
    for (const Line& line : recorded_lines(folder)) {
      const Ids ids = tokenizer->encode(line.text);
      if (ids != line.ids.at(name).get<Ids>() && ++wrong_ids <= 3) MESSAGE(line.kind, ": ", line.text);
      if (name == "smollm2") continue;  // its vocabulary lacks bytes
      wrong_texts += tokenizer->decode(ids) != (name == "qwen2" ? normalize(line.text, NormalForm::nfc) : line.text);
    }
    CHECK(wrong_ids == 0);
    CHECK(wrong_texts == 0);
    // What a text spells like a special token is not one; the document of the same model agrees on all ids.
    if (name == "smollm2") continue;
    const auto document =
        Tokenizer::from_json(gunzip(folder + "/models/tokenizers/" + name + ".tokenizer.json.gz"), name);
    for (const char* text : {"<s>x</s>", "<|begin_of_text|>", "a<|im_start|>user", "[PAD151650]", "<unk>", "<0x0A>"}) {
      CAPTURE(text);
      CHECK(tokenizer->encode(text) == document->encode(text));
      CHECK(tokenizer->encode(text, {.parse_special = true}) == document->encode(text, {.parse_special = true}));
    }
  }
}

TEST_CASE("recorded lines have SmolLM2's ids") {
  const auto model = caravan::test::smollm2_folder("SmolLM2's tokenizer");
  if (!model) return;
  const std::string folder = test_data();
  const auto tokenizer = Tokenizer::from_file(*model + "/tokenizer.json");
  size_t wrong_ids = 0, wrong_texts = 0, changed = 0;
  for (const Line& line : recorded_lines(folder)) {
    const Ids ids = tokenizer->encode(line.text);
    wrong_ids += ids != line.ids.at("smollm2").get<Ids>();
    const std::string text = tokenizer->decode(ids);
    if (text == line.text) continue;
    ++changed;  // only where the vocabulary lacks a byte
    wrong_texts += line.kind != "control" || text != without_missing_bytes(*tokenizer, line.text);
  }
  CHECK(wrong_ids == 0);
  CHECK(wrong_texts == 0);
  CHECK(changed == 176);
}

TEST_CASE("a batch equals one by one for any number of threads") {
  const std::string folder = test_data();
  if (folder.empty()) return;
  const auto tokenizer =
      Tokenizer::from_json(gunzip(folder + "/models/tokenizers/llama-2.tokenizer.json.gz"), "llama-2");
  std::vector<std::string_view> texts;
  for (const Line& line : recorded_lines(folder)) texts.push_back(line.text);
  const auto alone = encode_batch(*tokenizer, texts, 1);
  for (const int threads : {0, 2, 3, 8}) CHECK(encode_batch(*tokenizer, texts, threads) == alone);
  for (size_t i = 0; i < texts.size(); i += 97) CHECK(tokenizer->encode(texts[i]) == alone[i]);
}

TEST_CASE("sentencepiece: marker, merges by rank, fallback to bytes") {
  const auto tokenizer = load(sentencepiece());
  CHECK(tokenizer->encode("") == Ids{});
  CHECK(tokenizer->encode("ab") == Ids{10});
  CHECK(tokenizer->encode("abc") == Ids{10, 5});      // ▁ab before ab+c
  CHECK(tokenizer->encode("dabc") == Ids{8, 6, 12});  // ab, then abc
  CHECK(tokenizer->encode("a b") == Ids{8, 3, 8, 4});
  CHECK(tokenizer->encode("  ab") == Ids{8, 8, 10});
  CHECK(tokenizer->encode("é") == Ids{8, 13 + 0xC3, 13 + 0xA9});
  CHECK(tokenizer->encode("</s>") == Ids{8, 13 + '<', 13 + '/', 13 + 's', 13 + '>'});
  CHECK(tokenizer->encode("ab</s>ab", {.parse_special = true}) == Ids{10, 2, 10});
  CHECK(tokenizer->decode(Ids{10, 2, 10}) == "ab</s> ab");
  CHECK(tokenizer->decode(Ids{10, 2, 10}, true) == "ab ab");
  CHECK(tokenizer->decode(Ids{8, 13 + 0xC3, 13 + 0xA9}) == "é");
  CHECK(tokenizer->decode(Ids{8, 13 + 0xC3, 9}) ==
        "\xEF\xBF\xBD"
        "ab");
  CHECK(tokenizer->decode(Ids{9, 9999, -1, 9}) == "abab");
  CHECK(tokenizer->token_bytes(10) == " ab");
  CHECK(tokenizer->token_bytes(13 + 0xC3) == "\xC3");
  CHECK(tokenizer->token_bytes(-1).empty());
  CHECK(tokenizer->vocab_size() == 269);
  CHECK(tokenizer->token_to_id("▁ab") == 10);
  CHECK(!tokenizer->token_to_id("zz"));
  CHECK(tokenizer->id_to_token(12) == "abc");
  CHECK(tokenizer->is_special(2));
  CHECK(!tokenizer->is_special(3));
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->bos_id() == 1);
  CHECK(!tokenizer->adds_eos());
}

TEST_CASE("sentencepiece by Metaspace: each scheme, split or not") {
  Json json = sentencepiece();
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  const EncodeOptions special{.parse_special = true};
  CHECK(load(json)->encode("ab</s>ab ab", special) == Ids{10, 2, 9, 10});
  json["pre_tokenizer"]["prepend_scheme"] = "always";
  CHECK(load(json)->encode("ab</s>ab ab", special) == Ids{10, 2, 10, 10});
  json["pre_tokenizer"]["prepend_scheme"] = "never";
  CHECK(load(json)->encode("ab</s>ab ab", special) == Ids{9, 2, 9, 10});
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}};
  CHECK(load(json)->encode("ab  ab") == Ids{9, 8, 10});
  json["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}};
  CHECK(load(json)->decode(Ids{10, 10}) == "ab ab");
}

TEST_CASE("unknown characters: fused, apart, or dropped") {
  Json json = sentencepiece();
  json["model"]["byte_fallback"] = false;
  CHECK(load(json)->encode("aééb") == Ids{8, 3, 0, 4});
  json["model"]["fuse_unk"] = false;
  CHECK(load(json)->encode("aééb") == Ids{8, 3, 0, 0, 4});
  json["model"].erase("unk_token");
  CHECK(load(json)->encode("aééb") == Ids{10});  // its neighbours meet
}

TEST_CASE("byte level: pieces, normal form, missing bytes, added tokens") {
  const auto tokenizer = load(byte_level());
  CHECK(tokenizer->encode("ab ab") == Ids{9, 12});
  CHECK(tokenizer->encode("ab  ab") == Ids{9, 2, 12});
  CHECK(tokenizer->encode("a's") == Ids{0, 19});
  CHECK(tokenizer->encode("e\xCC\x81") == Ids{11});  // NFC: é
  CHECK(tokenizer->encode("azb") == Ids{9});         // the byte of z is dropped
  CHECK(tokenizer->encode("<|end|>") == Ids{13, 14, 16, 17, 18, 14, 15});
  CHECK(tokenizer->encode("a<|end|>", {.parse_special = true}) == Ids{0, 20});
  CHECK(tokenizer->encode("a<tool>b") == Ids{0, 21, 1});  // not special: always matched
  CHECK(tokenizer->decode(Ids{9, 12, 11, 20, 3}) == "ab abé<|end|>\n");
  CHECK(tokenizer->decode(Ids{5}) == "\xEF\xBF\xBD");
  CHECK(tokenizer->token_bytes(5) == "\xC3");
  CHECK(!tokenizer->adds_bos());
}

TEST_CASE("ignore_merges makes a whole word of the vocabulary one token") {
  Json json = byte_level();
  json["model"]["vocab"]["aab"] = 22;
  CHECK(load(json)->encode("aab") == Ids{0, 9});
  json["model"]["ignore_merges"] = true;
  CHECK(load(json)->encode("aab") == Ids{22});
}

TEST_CASE("flags of added tokens") {
  Json json = byte_level();
  Json& token = json["added_tokens"][1];
  const auto tool = [&](const char* text) { return load(json)->encode(text); };
  token["lstrip"] = true;
  CHECK(tool("a <tool> b") == Ids{0, 21, 2, 1});
  token["rstrip"] = true;
  CHECK(tool("a <tool> \n b") == Ids{0, 21, 1});
  token["lstrip"] = token["rstrip"] = false;
  token["single_word"] = true;
  CHECK(tool("<tool>") == Ids{21});
  CHECK(tool("a<tool>").size() > 2);
  json["normalizer"] = {{"type", "Lowercase"}};
  token["single_word"] = false;
  CHECK(tool("<TOOL>") != Ids{21});
  token["normalized"] = true;
  CHECK(tool("<TOOL>") == Ids{21});
}

TEST_CASE("the regular expressions, alternative by alternative") {
  const auto split = [](SplitRule rule, std::string_view text) {
    std::vector<std::string> pieces;
    while (!text.empty()) {
      const size_t length = match_split_rule(rule, text);
      REQUIRE(length > 0);
      REQUIRE(length <= text.size());
      pieces.emplace_back(text.substr(0, length));
      text.remove_prefix(length);
    }
    return pieces;
  };
  using Pieces = std::vector<std::string>;
  CHECK(split(SplitRule::gpt2, "I'll  say 12 !? x\n\n y  ") ==
        Pieces{"I", "'ll", " ", " say", " 12", " !?", " x", "\n\n", " y", "  "});
  CHECK(split(SplitRule::gpt2, "I'LL") == Pieces{"I", "'", "LL"});
  CHECK(split(SplitRule::llama3, "I'LL it'ſ 12345 .x\r\n\n  y (z)\n") ==
        Pieces{"I", "'LL", " it", "'ſ", " ", "123", "45", " .", "x", "\r\n\n", " ", " y", " (", "z", ")\n"});
  CHECK(split(SplitRule::qwen2, "a12 \n b") == Pieces{"a", "1", "2", " \n", " b"});
  CHECK(split(SplitRule::llama3, "\tx\u00a0y  \n \t") == Pieces{"\tx", "\u00a0y", "  \n", " \t"});
}

TEST_CASE("digits, literals, punctuation and white space") {
  const auto pieces = [](PreTokenizerStep step, std::string_view text) {
    std::vector<SplitMatch> stretches;
    split_by_step(step, text, stretches);
    std::vector<std::string> out;
    for (const SplitMatch& stretch : stretches)
      out.emplace_back(text.substr(stretch.first, stretch.end - stretch.first));
    return out;
  };
  using Kind = PreTokenizerStep::Kind;
  using Behavior = DelimiterBehavior;
  using Pieces = std::vector<std::string>;
  CHECK(pieces({.kind = Kind::digits, .behavior = Behavior::isolated}, "a12b") == Pieces{"a", "1", "2", "b"});
  CHECK(pieces({.kind = Kind::digits, .behavior = Behavior::contiguous}, "a12b") == Pieces{"a", "12", "b"});
  const auto by_dash = [&](Behavior behavior) {
    return pieces({.kind = Kind::split_literal, .literal = "-", .behavior = behavior}, "-a--b-");
  };
  CHECK(by_dash(Behavior::removed) == Pieces{"a", "b"});
  CHECK(by_dash(Behavior::isolated) == Pieces{"-", "a", "-", "-", "b", "-"});
  CHECK(by_dash(Behavior::merged_with_previous) == Pieces{"-", "a-", "-", "b-"});
  CHECK(by_dash(Behavior::merged_with_next) == Pieces{"-a", "-", "-b", "-"});
  CHECK(by_dash(Behavior::contiguous) == Pieces{"-", "a", "--", "b", "-"});
  CHECK(pieces({.kind = Kind::whitespace}, "ab, c") == Pieces{"ab", ",", "c"});
  CHECK(pieces({.kind = Kind::whitespace_split}, "ab, c") == Pieces{"ab,", "c"});
}

TEST_CASE("normal forms") {
  CHECK(normalize("e\u0323\u0302", NormalForm::nfc) == "\u1ec7");
  CHECK(normalize("e\u0302\u0323x\u0301", NormalForm::nfc) == "\u1ec7x\u0301");
  CHECK(normalize("\u212b", NormalForm::nfc) == "\u00c5");
  CHECK(normalize("\u0958", NormalForm::nfc) == "\u0915\u093c");  // excluded from composition
  CHECK(normalize("\u1100\u1161\u11a8", NormalForm::nfc) == "\uac01");
  CHECK(normalize("\uac01", NormalForm::nfd) == "\u1100\u1161\u11a8");
  CHECK(normalize("\ufb01\u00b2", NormalForm::nfkc) == "fi2");
  CHECK(normalize("\u1ec7", NormalForm::nfkd) == "e\u0323\u0302");
  CHECK(lowercase("ÀΣİ") == "àσi\u0307");
  CHECK(!may_change_under_nfc("Grüße, 你好 \U0001F600"));
}

TEST_CASE("wrong UTF-8 names its byte") {
  const auto tokenizer = load(byte_level());
  const std::array<std::string, 6> bad{"ab\xFF", "ab\xC3", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80",
                                       "ab\x80"};
  for (const std::string& text : bad) {
    try {
      tokenizer->encode(text);
      FAIL("accepted");
    } catch (const EngineError& error) {
      CHECK(error.code == "invalid_utf8");
      CHECK(std::string(error.what()).find("byte 2") != std::string::npos);
    }
  }
  const std::vector<std::string_view> texts(100, "ab");
  std::vector<std::string_view> broken = texts;
  broken[40] = broken[90] = "a\xFF";
  CHECK_THROWS_WITH_AS(encode_batch(*tokenizer, broken, 3), "text 40: the text is no UTF-8 from byte 1 on",
                       EngineError);
  CHECK(encode_batch(*tokenizer, texts, 3) == std::vector<Ids>(100, Ids{9}));
}

TEST_CASE("a stream holds back what is no character yet") {
  const auto tokenizer = load(sentencepiece());
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(10) == "ab");
  CHECK(decoder.push(13 + 0xC3) == "");
  CHECK(decoder.push(13 + 0xA9) == "é");
  CHECK(decoder.push(2) == "");  // special
  CHECK(decoder.push(10) == " ab");
  CHECK(decoder.push(13 + 0xE2) == "");
  CHECK(decoder.finish() == "\xEF\xBF\xBD");
  CHECK(decoder.push(10) == "ab");
  const auto bytes = load(byte_level());
  CHECK(streamed(bytes, {5, 0, 5, 6}) ==
        "\xEF\xBF\xBD"
        "aé");
}

TEST_CASE("long words take no quadratic time") {
  Json json = byte_level();
  const auto tokenizer = load(json);
  const std::string text(2'000'000, 'a');
  const auto start = std::chrono::steady_clock::now();
  CHECK(tokenizer->encode(text).size() == text.size());
  std::string pairs;
  for (int i = 0; i < 500'000; ++i) pairs += "ab";
  CHECK(tokenizer->encode(pairs) == Ids(500'000, 9));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("hostile and unsupported files are refused by the field's name") {
  const auto refused = [](const char* base, const char* pointer, Json value, const char* field) {
    Json json = std::string_view(base) == "bytes" ? byte_level() : sentencepiece();
    json[Json::json_pointer(pointer)] = std::move(value);
    const std::string message = refusal(json);
    CAPTURE(message);
    CHECK(message.find("test.json") == 0);
    CHECK(message.find(field) != std::string::npos);
  };
  refused("bytes", "/model/type", "Unigram", "model");
  refused("bytes", "/model/vocab", Json::array(), "model.vocab");
  refused("bytes", "/model/vocab", Json::object(), "model.vocab");
  refused("bytes", "/model/vocab/a", -1, "model.vocab");
  refused("bytes", "/model/vocab/a", 1.5, "model.vocab");
  refused("bytes", "/model/vocab/a", 1, "the id 1");                       // twice
  refused("bytes", "/model/vocab/a", 2'000'000'000, "the id 2000000000");  // no room is made for it
  refused("bytes", "/model/vocab/a", 5'000'000'000, "model.vocab");
  refused("bytes", "/model/merges/0", "a", "model.merges[0]");
  refused("bytes", "/model/merges/0", "a b c", "model.merges[0]");
  refused("bytes", "/model/merges/0", "a q", "model.merges[0]");
  refused("bytes", "/model/merges/0", "b a", "model.merges[0]");  // "ba" is no token
  refused("bytes", "/model/merges", "a b", "model.merges");
  refused("bytes", "/model/unk_token", "<none>", "model.unk_token");
  refused("bytes", "/model/dropout", 0.1, "model.dropout");
  refused("bytes", "/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix");
  refused("bytes", "/added_tokens/0/id", -4, "added_tokens[0].id");
  refused("bytes", "/added_tokens/0/id", 21, "added_tokens[1].id");
  refused("bytes", "/added_tokens/0/content", "", "added_tokens[0].content");
  refused("bytes", "/added_tokens/0/content", "a", "added_tokens[0].id");  // model.vocab gives it 0
  refused("bytes", "/added_tokens/0/content", 7, "added_tokens[0].content");
  refused("bytes", "/normalizer/type", "Precompiled", "normalizer");
  refused("bytes", "/pre_tokenizer/type", "BertPreTokenizer", "pre_tokenizer");
  refused("bytes", "/pre_tokenizer",
          {{"type", "Split"}, {"pattern", {{"Regex", "\\d+"}}}, {"behavior", "Isolated"}, {"invert", false}},
          "pre_tokenizer.pattern asks for the regular expression \\d+");
  refused("bytes", "/pre_tokenizer", Json::object(), "pre_tokenizer.type");
  refused("bytes", "/decoder/type", "WordPiece", "decoder");
  refused("bytes", "/post_processor", {{"type", "BertProcessing"}}, "post_processor");
  refused("pieces", "/post_processor/special_tokens", Json::object(), "post_processor.special_tokens.<s>");
  refused("pieces", "/post_processor/special_tokens/<s>/ids", {1, 2}, "post_processor.single[0]");
  refused("pieces", "/decoder/decoders/3/start", -1, "decoder.decoders[3]");
  refused("pieces", "/decoder/decoders/3/content", "", "decoder.decoders[3].content");
  refused("pieces", "/normalizer/normalizers/1/pattern", {{"String", ""}}, "normalizer.normalizers[1].pattern");
  Json deep = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
  refused("bytes", "/normalizer", deep, "normalizer");

  CHECK_THROWS_AS(Tokenizer::from_json("{\"model\": ", "cut.json"), EngineError);
  CHECK_THROWS_AS(Tokenizer::from_json("[]", "list.json"), EngineError);
  CHECK_THROWS_AS(Tokenizer::from_json("{\"model\": {\"vocab\": {\"\xFF\": 0}}}", "bytes.json"), EngineError);
  CHECK_THROWS_AS(Tokenizer::from_json(std::string(100'000, '['), "deep.json"), EngineError);
  CHECK_THROWS_AS(Tokenizer::from_file("/nowhere/tokenizer.json"), EngineError);
}
