// The text of an answer: stop strings wherever the tokens' borders lie, and no part of a character ever.
#include <string>
#include <vector>

#include "byte_tokenizer.h"
#include "doctest/doctest.h"
#include "engine/data/unicode.h"
#include "engine/infer/answer_text.h"
#include "engine/platform/error.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Streamed {
  std::string text;
  bool stopped = false;
  size_t tokens = 0;
};

/// Streams the tokens and checks what must hold of every piece.
Streamed stream(const std::vector<std::string>& tokens, const std::vector<std::string>& stops) {
  AnswerText text(byte_tokenizer(), stops);
  Streamed streamed;
  for (const std::string& token : tokens) {
    const std::string piece = text.push(byte_token(token));
    CHECK(!find_invalid_utf8(piece));
    streamed.text += piece;
    ++streamed.tokens;
    if (text.stopped()) break;
  }
  streamed.stopped = text.stopped();
  const std::string rest = text.finish();
  CHECK(!find_invalid_utf8(rest));
  if (streamed.stopped) CHECK(rest.empty());
  streamed.text += rest;
  return streamed;
}

}  // namespace

TEST_CASE("a stop string ends the text before it, across any borders of tokens") {
  const std::string whole = "ab\n###cd";
  // Every way to cut the eight characters: bit i of `cuts` ends a token after character i.
  for (unsigned cuts = 0; cuts < 128; ++cuts) {
    std::vector<std::string> tokens(1);
    for (size_t i = 0; i < whole.size(); ++i) {
      tokens.back() += whole[i];
      if (i + 1 < whole.size() && (cuts >> i & 1)) tokens.emplace_back();
    }
    const Streamed streamed = stream(tokens, {"\n###", "zz"});
    CHECK(streamed.stopped);
    CHECK(streamed.text == "ab");
  }
}

TEST_CASE("what only began like a stop string is given out in the end") {
  CHECK(stream({"ab", "\n#", "#"}, {"\n###"}).text == "ab\n##");
  CHECK_FALSE(stream({"ab", "\n#", "#"}, {"\n###"}).stopped);
  CHECK(stream({"a", "a", "a", "b"}, {"aab"}).text == "a");
  CHECK(stream({"b\n#", "\n##", "#"}, {"\n###"}).text == "b\n#");
}

TEST_CASE("while it may still become a stop string, text is held back; the rest is not") {
  AnswerText text(byte_tokenizer(), {"\n###"});
  CHECK(text.push(byte_token("ab")) == "ab");
  CHECK(text.push(byte_token("\n#")) == "");
  CHECK(text.push(byte_token("cd")) == "\n#cd");
  CHECK(text.push(byte_token("\n###")) == "");
  CHECK(text.stopped());
  CHECK(text.push(byte_token("ab")) == "");
  CHECK(text.finish() == "");
}

TEST_CASE("of several stop strings the one that is complete first ends the text, however the tokens lie") {
  CHECK(stream({"a", "b", "c", "d"}, {"abcd", "c"}).text == "ab");
  CHECK(stream({"abcd"}, {"abcd", "c"}).text == "ab");
  CHECK(stream({"abcd"}, {"bc", "abc"}).text == "");
  CHECK(stream({"a", "b", "c"}, {"bc", "abc"}).text == "");
}

TEST_CASE("a character arrives whole, also one that stands in a stop string") {
  AnswerText text(byte_tokenizer(), {"é!"});
  CHECK(text.push(byte_token("a")) == "a");
  CHECK(text.push(byte_token("\xC3")) == "");
  CHECK(text.push(byte_token("\xA9")) == "");  // é: may begin the stop string
  CHECK(text.push(byte_token("b")) == "éb");
  CHECK(text.push(byte_token("\xC3")) == "");
  CHECK(text.push(byte_token("\xA9")) == "");
  CHECK(text.push(byte_token("!")) == "");
  CHECK(text.stopped());

  AnswerText broken(byte_tokenizer(), {});
  CHECK(broken.push(byte_token("\xE2")) == "");
  CHECK(broken.finish() == "\xEF\xBF\xBD");
}

TEST_CASE("empty stop strings, and stop strings without a tokenizer, are refused") {
  CHECK_THROWS_AS(AnswerText(byte_tokenizer(), {""}), EngineError);
  CHECK_THROWS_AS(AnswerText(nullptr, {"x"}), EngineError);
  AnswerText none(nullptr, {});
  CHECK(none.push(3) == "");
  CHECK(none.finish() == "");
}
