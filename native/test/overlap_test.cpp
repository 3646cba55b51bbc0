#include "engine/data/overlap.h"

#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "engine/platform/error.h"

namespace caravan {
namespace {

std::string numbered(int first, int last) {
  std::string text;
  for (int i = first; i < last; ++i) text += "w" + std::to_string(i) + " ";
  return text;
}

std::vector<Overlap> scan(OverlapSearch& search, const std::vector<std::string>& texts) {
  return search.scan(std::vector<std::string_view>(texts.begin(), texts.end()));
}

TEST_CASE("n-grams in common are found whatever the case and punctuation, with what they cover") {
  OverlapSearch search({.ngram = 13, .floor = 8, .threads = 2});
  const std::vector<std::string> parts{numbered(0, 40), numbered(100, 110), numbered(200, 205), ""};
  CHECK(search.add(std::vector<std::string_view>(parts.begin(), parts.end())) == std::vector<int32_t>{40, 10, 5, 0});
  const auto found = scan(search, {
                                      "no " + numbered(5, 17) + "match",          // 12 words
                                      "a, " + numbered(5, 18) + "b",              // 13 words
                                      numbered(0, 15) + "x " + numbered(20, 36),  // two stretches
                                      "W100, W101!\nw102 w103 w104 w105 w106 w107 w108 w109 and more",
                                      "see " + numbered(100, 109),    // a short part, not whole
                                      "see " + numbered(200, 205),    // below the floor
                                      "(W200) w201 w202 w203 w204.",  // equal to it
                                      numbered(0, 40),
                                      "",
                                  });
  struct Expected {
    int text, part;
    bool equal;
    int covered, longest;
  };
  const std::vector<Expected> expected{
      {1, 0, false, 13, 13}, {2, 0, false, 31, 16}, {3, 1, false, 10, 10}, {6, 2, true, 5, 5}, {7, 0, true, 40, 40}};
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(found[i].text == expected[i].text);
    CHECK(found[i].part == expected[i].part);
    CHECK(found[i].equal == expected[i].equal);
    CHECK(found[i].covered == expected[i].covered);
    CHECK(found[i].longest == expected[i].longest);
  }
}

TEST_CASE("nothing depends on the threads; parts come before texts") {
  std::vector<std::string> parts, texts;
  for (int i = 0; i < 50; ++i) parts.push_back(numbered(i * 20, i * 20 + 5 + i));
  for (int i = 0; i < 400; ++i) texts.push_back(numbered(i, i + 60));
  std::vector<std::vector<Overlap>> results;
  for (const int threads : {1, 8}) {
    OverlapSearch search({.ngram = 13, .floor = 8, .threads = threads});
    search.add(std::vector<std::string_view>(parts.begin(), parts.end()));
    results.push_back(scan(search, texts));
    CHECK_THROWS_WITH_AS(search.add({}), doctest::Contains("once texts were scanned"), EngineError);
  }
  REQUIRE(results[0].size() == results[1].size());
  CHECK(results[0].size() > 100);
  for (size_t i = 0; i < results[0].size(); ++i) {
    CHECK(results[0][i].text == results[1][i].text);
    CHECK(results[0][i].part == results[1][i].part);
    CHECK(results[0][i].covered == results[1][i].covered);
  }
  CHECK_THROWS_AS(OverlapSearch({.ngram = 8, .floor = 9}), EngineError);
}

}  // namespace
}  // namespace caravan
