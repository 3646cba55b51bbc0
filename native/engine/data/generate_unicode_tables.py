#!/usr/bin/env python3
"""Writes unicode_tables.cpp: the Unicode data by which Hugging Face tokenizers classifies and normalises text.

usage: generate_unicode_tables.py OUT.cpp        wants: pip install tokenizers

A tokenizer is right when it gives Hugging Face's ids, and that package mixes several versions of Unicode (its regular
expressions, Rust's standard library and its normalisation crate are of different ages). So every property is asked of
the package itself, one code point at a time; Python's unicodedata gives the order of combining marks and is the check:
what both know must agree, or the script stops.
"""
import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ASSIGNED = {c for c in CODE_POINTS if unicodedata.category(chr(c)) != "Cn"}
GUARD = "\x01"  # in no class that is asked about

# Bits of CodePointClass in unicode.h.
LETTER, NUMBER, NUMERIC, SPACE, PUNCTUATION, WORD = 1, 2, 4, 8, 16, 32


def split_off(pre_tokenizer):
    """The code points which `pre_tokenizer` isolates between two guards."""
    return {c for c in CODE_POINTS if len(pre_tokenizer.pre_tokenize_str(GUARD + chr(c) + GUARD)) == 3}


def matched(pattern):
    return split_off(pre_tokenizers.Split(Regex(pattern), "isolated"))


def check(name, found, expected, within=ASSIGNED):
    wrong = sorted((found ^ expected) & within)
    if wrong:
        sys.exit(f"{name}: the package and unicodedata {unicodedata.unidata_version} differ at {[hex(c) for c in wrong[:8]]}")


def of_category(first_letter):
    return {c for c in CODE_POINTS if unicodedata.category(chr(c))[0] == first_letter}


def classes():
    letter, number, space = matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s")
    numeric = split_off(pre_tokenizers.Digits(individual_digits=True))
    punctuation = split_off(pre_tokenizers.Punctuation("isolated"))
    # Whitespace is \w+|[^\w\s]+: a word character stays with the letter before it.
    whitespace = pre_tokenizers.Whitespace()
    word = {c for c in CODE_POINTS if [p for p, _ in whitespace.pre_tokenize_str("a" + chr(c))] == ["a" + chr(c)]}
    check("letters", letter, of_category("L"))
    check("numbers", number, of_category("N"))
    check("numeric", numeric, of_category("N"))
    flags = [0] * 0x110000
    for bit, members in ((LETTER, letter), (NUMBER, number), (NUMERIC, numeric), (SPACE, space),
                         (PUNCTUATION, punctuation), (WORD, word)):
        for c in members:
            flags[c] |= bit
    return flags


def combining_classes(nfd):
    """A mark that the package does not know (it is newer than its crate) does not move, and counts as a starter."""
    ccc = [0] * 0x110000
    for c in CODE_POINTS:
        known = unicodedata.combining(chr(c))
        if not known:
            continue
        moved = ("a" + chr(c) + "\u0334", "a\u0345" + chr(c))  # classes 1 and 240
        if any(nfd(s) != s and nfd(s) == unicodedata.normalize("NFD", s) for s in moved):
            ccc[c] = known
    return ccc


def is_hangul(c):
    return 0xAC00 <= c <= 0xD7A3


def canonical(nfd, nfc):
    """(code point, first, second or 0, composes back) for every canonical decomposition, one level deep."""
    rows = []
    for c in CODE_POINTS:
        parts = unicodedata.decomposition(chr(c)).split()
        if nfd(chr(c)) == chr(c) or is_hangul(c):
            continue
        assert parts and parts[0][0] != "<" and len(parts) <= 2, hex(c)
        first, second = int(parts[0], 16), int(parts[1], 16) if len(parts) == 2 else 0
        composes = second != 0 and nfc(chr(first) + chr(second)) == chr(c)
        rows.append((c, first, second, composes))
    return rows


def compatibility(nfkd, nfd):
    """(code point, its full compatibility decomposition) where it is not the canonical one."""
    return [(c, [ord(x) for x in nfkd(chr(c))]) for c in CODE_POINTS if nfkd(chr(c)) != nfd(chr(c))]


def lowercase_runs(lower):
    """[first, last, stride, delta] for runs of one-to-one mappings; İ, the only other one, is in unicode.cpp."""
    pairs = [(c, ord(lower(chr(c)))) for c in CODE_POINTS if lower(chr(c)) != chr(c) and len(lower(chr(c))) == 1]
    others = [c for c in CODE_POINTS if len(lower(chr(c))) != 1]
    assert others == [0x130], others
    runs = []
    for c, to in pairs:
        if runs and to - c == runs[-1][3]:
            first, last, stride, _ = runs[-1]
            step = c - last
            if step in (1, 2) and (first == last or step == stride):
                runs[-1][1], runs[-1][2] = c, step
                continue
        runs.append([c, c, 1, to - c])
    return runs


def changes(values):
    """Run-length form: (code point << 8 | value) wherever the value changes."""
    out, last = [], 0
    for c, value in enumerate(values):
        if 0xD800 <= c < 0xE000:
            value = 0
        if value != last:
            out.append(c << 8 | value)
            last = value
    return out


def array(declaration, numbers, comment):
    lines, line = [], "   "
    for n in numbers:
        text = f" {n:#x}," if n >= 0 else f" -{-n:#x},"
        if len(line) + len(text) > 110:
            lines.append(line)
            line = "   "
        line += text
    lines.append(line)
    return f"// {comment}\n{declaration}[] = {{\n" + "\n".join(lines) + "\n};\n" + \
        f"const size_t {declaration.split()[-1]}_size = std::size({declaration.split()[-1]});\n"


def main(out):
    nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    nfkd, lower = normalizers.NFKD().normalize_str, normalizers.Lowercase().normalize_str
    compat_rows = compatibility(nfkd, nfd)
    parts = [
        "// Generated by generate_unicode_tables.py; do not edit.\n"
        f"// Properties as pip's tokenizers {tokenizers.__version__} has them, checked against Python's unicodedata "
        f"{unicodedata.unidata_version}.\n"
        "// clang-format off\n"
        '#include "engine/data/unicode_tables.h"\n\n#include <iterator>\n\nnamespace caravan::unicode_tables {\n',
        array("const uint32_t class_changes", changes(classes()), "code point << 8 | CodePointClass bits, where they change"),
        array("const uint32_t combining_changes", changes(combining_classes(nfd)),
              "code point << 8 | canonical combining class, where it changes"),
        array("const uint32_t canonical_rows",
              [n for c, a, b, composes in canonical(nfd, nfc) for n in (c | (composes << 31), a, b)],
              "code point (bit 31: composes back), first, second or 0"),
        array("const uint32_t compatibility_rows", [n for c, to in compat_rows for n in (c | len(to) << 24, *to)],
              "code point | length << 24, then the full decomposition"),
        array("const int32_t lowercase_runs", [n for run in lowercase_runs(lower) for n in run],
              "first, last, stride, delta"),
        "}  // namespace caravan::unicode_tables\n",
    ]
    pathlib.Path(out).write_text("\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1])
