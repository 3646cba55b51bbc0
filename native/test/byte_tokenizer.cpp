#include "byte_tokenizer.h"

#include <map>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>

namespace caravan::test {

namespace {

using Json = nlohmann::json;

/// GPT-2's spelling of the bytes in use.
std::string spelled(std::string_view bytes) {
  static const std::map<char, std::string> others = {{'\n', "Ċ"},   {' ', "Ġ"},    {'\xC3', "Ã"}, {'\xA9', "©"},
                                                     {'\xE2', "â"}, {'\x82', "Ĥ"}, {'\xAC', "¬"}};
  std::string text;
  for (const char byte : bytes) {
    const auto found = others.find(byte);
    text += found == others.end() ? std::string(1, byte) : found->second;
  }
  return text;
}

std::map<std::string, int> make_vocabulary() {
  std::map<std::string, int> vocabulary = {{"<s>", 0}, {"</s>", 1}};
  int next = 2;
  for (const char* byte : {"a",    "b",    "c",    "d",    "e", "f", "g", "h", " ", "\n", "#", "!", ".", "\xC3",
                           "\xA9", "\xE2", "\x82", "\xAC", "i", "j", "k", "l", "m", "n",  "o", "p", "r", "s"}) {
    vocabulary.emplace(spelled(byte), next++);
  }
  for (const std::string whole : {"ab\n###cd", "abcd"}) {
    for (size_t first = 0; first < whole.size(); ++first) {
      for (size_t length = 2; first + length <= whole.size(); ++length) {
        if (vocabulary.emplace(spelled(whole.substr(first, length)), next).second) ++next;
      }
    }
  }
  return vocabulary;
}

const std::map<std::string, int>& vocabulary() {
  static const std::map<std::string, int> made = make_vocabulary();
  return made;
}

}  // namespace

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    const Json json = {
        {"added_tokens",
         {{{"id", 0}, {"content", "<s>"}, {"special", true}}, {{"id", 1}, {"content", "</s>"}, {"special", true}}}},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocabulary()}, {"merges", Json::array()}}}};
    return Tokenizer::from_json(json.dump(), "byte tokenizer");
  }();
  return tokenizer;
}

int32_t byte_token(std::string_view bytes) {
  const auto found = vocabulary().find(spelled(bytes));
  if (found == vocabulary().end()) throw std::logic_error("no token for " + std::string(bytes));
  return found->second;
}

}  // namespace caravan::test
