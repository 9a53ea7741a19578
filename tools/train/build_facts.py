"""Condense the raw source packages into the small facts bundle the data generator reads.

Usage: build_facts.py SOURCES_DIR OUT_DIR

Reads what fetch_sources.sh unpacked; writes OUT_DIR/facts.json (countries, elements, states,
animal young) and OUT_DIR/glosses.tsv.gz (word, part of speech, tag count, gloss), both
deterministic. Standard library only.
"""

import gzip
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from own_facts import CAPITAL_NAMES_ZH, ELEMENTS_CN, ELEMENTS_TW

CLDR_LOCALES = {"en": ["en"], "tw": ["zh_Hant"], "cn": ["zh"]}
SKIPPED_COUNTRIES = {"AC", "TA", "CP", "DG", "EA", "IC", "AQ",
                     "HM", "BV", "UM", "GS", "TF", "IO", "EH", "XK", "PS", "MO", "HK"}
UNWANTED = re.compile(
    r"sex|genital|copulat|excret|feces|urin|prostitut|vulgar|obscen|slur|offensive|rape|suicid|naz|drug|penis|"
    r"vagina|breast|anus|semen|slave|negro|ethnic|homosex|murder|kill|terror|jew|muslim|christ|god\b", re.I)


def cldr_names(common: Path, locale: str) -> dict:
    """Territory, currency and city display names of one CLDR locale, as {kind: {code: name}}."""
    root = ElementTree.parse(common / "main" / f"{locale}.xml").getroot()
    names = {"territory": {}, "currency": {}, "city": {}}
    for node in root.iterfind("./localeDisplayNames/territories/territory"):
        if "alt" not in node.attrib:
            names["territory"][node.get("type")] = node.text
    for node in root.iterfind("./numbers/currencies/currency"):
        for name in node.iterfind("displayName"):
            if not name.attrib:
                names["currency"][node.get("type")] = name.text
    for node in root.iterfind("./dates/timeZoneNames/zone"):
        city = node.find("exemplarCity")
        if city is not None and "alt" not in city.attrib:
            names["city"][node.get("type")] = city.text
    return names


def city_index(names: dict) -> dict:
    """English city name -> zone id, from the CLDR city names and the zone ids themselves."""
    index = {}
    for zone in sorted(set(names["tw"]["city"]) | set(names["cn"]["city"])):
        index[zone.rsplit("/", 1)[-1].replace("_", " ")] = zone
    for zone, city in names["en"]["city"].items():
        index[city] = zone
    return index


def countries(sources: Path, names: dict) -> list:
    """One record a country: names and capital in en/tw/cn (zh capitals may be absent), currency."""
    raw = json.loads((sources / "countries-list/countries.min.json").read_text())
    zones = city_index(names)
    out = []
    for code in sorted(raw):
        entry = raw[code]
        if code in SKIPPED_COUNTRIES or not entry.get("capital") or not entry.get("currency"):
            continue
        capital = entry["capital"]
        zh = CAPITAL_NAMES_ZH.get(capital)
        if zh is None and capital in zones:
            zone = zones[capital]
            zh = (names["tw"]["city"].get(zone), names["cn"]["city"].get(zone))
        currency = entry["currency"][0]
        out.append({
            "code": code, "en": entry["name"], "tw": names["tw"]["territory"].get(code),
            "cn": names["cn"]["territory"].get(code), "capital_en": capital,
            "capital_tw": zh[0] if zh else None, "capital_cn": zh[1] if zh else None,
            "currency": currency, "currency_en": names["en"]["currency"].get(currency),
            "currency_tw": names["tw"]["currency"].get(currency),
            "currency_cn": names["cn"]["currency"].get(currency)})
    return [c for c in out if all(c[k] for k in ("tw", "cn", "currency_en", "currency_tw", "currency_cn"))]


def elements(quiz: Path) -> list:
    """The 103 elements of the quiz file with their Chinese names; symbol 103 corrected to Lr."""
    out = []
    for line in (quiz / "elements").read_text().splitlines():
        symbol, number, _, name = line.split(":")
        n = int(number)
        symbol = {"A": "Ar", "Lw": "Lr"}.get(symbol, symbol)
        out.append({"symbol": symbol, "number": n, "en": name.split("|")[0].lower(),
                    "tw": ELEMENTS_TW[n - 1], "cn": ELEMENTS_CN[n - 1]})
    return sorted(out, key=lambda e: e["number"])


def plain(text: str) -> str:
    """First alternative of a quiz pattern, its optional {parts} kept and their braces dropped."""
    text = re.sub(r"\[([^|\]]*)[^\]]*\]", r"\1", text)
    return text.split("|")[0].replace("{", "").replace("}", "")


def states_and_young(quiz: Path) -> tuple:
    """US states with capital and abbreviation, and [animal, young] pairs."""
    states = []
    for line in (quiz / "state").read_text().splitlines():
        fields = line.split(":")
        states.append({"en": plain(fields[0]), "capital_en": plain(fields[1]), "code": fields[2]})
    young = {}
    for line in (quiz / "babies").read_text().splitlines():
        baby, animals = line.split(":")
        for animal in animals.split("|"):
            young.setdefault(animal, plain(baby))
    return states, sorted(young.items())


def glosses(wordnet: Path) -> list:
    """(word, part of speech, tag count, gloss) of the first sense of common single words."""
    counts = {}
    for line in (wordnet / "cntlist.rev").read_text().splitlines():
        key, sense, count = line.split()
        word, kind = key.split("%")
        if sense == "1":
            counts[(word, {"1": "n", "2": "v", "3": "a", "5": "a", "4": "r"}[kind[0]])] = int(count)
    out = []
    for part, stem in (("n", "noun"), ("v", "verb"), ("a", "adj")):
        text = (wordnet / f"data.{stem}").read_bytes()
        for line in (wordnet / f"index.{stem}").read_text().splitlines():
            fields = line.split()
            if line.startswith(" ") or not re.fullmatch(r"[a-z]{3,12}", fields[0]):
                continue
            offset = int(fields[-int(fields[2])])
            gloss = text[offset:text.index(b"\n", offset)].decode().split("| ", 1)[1]
            gloss = re.sub(r"\([^)]*\)", "", gloss.split(";")[0].split('"')[0]).strip()
            gloss = re.sub(r"\s+", " ", gloss)
            if re.search(r" (of|or|and|by|with|to|for|in|upon|from|a|the|on|as)$", gloss):
                continue
            count = counts.get((fields[0], part), 0)
            if (12 <= len(gloss) <= 90 and gloss.isascii() and not re.search(r"[0-9:]", gloss)
                    and not UNWANTED.search(gloss) and not UNWANTED.search(fields[0])):
                out.append((fields[0], part, count, gloss))
    out.sort(key=lambda row: (-row[2], row[0], row[1]))
    return out[:9000]


def main() -> None:
    sources, out = Path(sys.argv[1]), Path(sys.argv[2])
    quiz = sources / "bsdgames/usr/share/games/bsdgames/quiz"
    common = sources / "unicode-cldr-core/usr/share/unicode/cldr/common"
    names = {key: cldr_names(common, locales[0]) for key, locales in CLDR_LOCALES.items()}
    states, young = states_and_young(quiz)
    facts = {"countries": countries(sources, names), "elements": elements(quiz),
             "states": states, "young": young}
    lines = ["{"]
    for i, (key, rows) in enumerate(facts.items()):
        body = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        lines.append(f' "{key}": [\n  {body}\n ]' + ("," if i + 1 < len(facts) else ""))
    (out / "facts.json").write_text("\n".join(lines) + "\n}\n")
    table = "".join("\t".join(map(str, row)) + "\n" for row in glosses(sources / "wordnet-base/usr/share/wordnet"))
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        packed.write(table.encode())
    (out / "glosses.tsv.gz").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
