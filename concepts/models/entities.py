"""Writes entities.txt: the named character references of HTML 5, from Python's html.entities (3.11).

    python3 entities.py > entities.txt

One reference per line: the name (most with their semicolon), a tab, the characters as hexadecimal code points.
"""
from html.entities import html5

for name, characters in sorted(html5.items()):
    print(name + "\t" + " ".join(f"{ord(c):x}" for c in characters))
