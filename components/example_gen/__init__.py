"""ExampleGen: a corpus of files -> documents, in an order that depends on the files alone.

patterns.py and files.py find what there is, build.py lists it (`corpus.json`) and says what it
holds, units.py cuts it into work, reader.py turns a unit into blocks of documents, split.py chooses
the held-out share. What a document is, formats.py says of text, json_lines.py and tables.py of
records; unpacking.py reads compressed files. What is no text is refused by content.py and
encodings.py, with the commands of remedies.py.

Each slice of the corpus has one name, here and in Transform. Their bounds depend on the files
alone, never on how many workers there are:

* A *file* is one that the patterns match.
* A *piece* is a file, or about `UNIT_BYTES` (16 MiB) of a large one. Those that cannot be read are
  the `damaged_parts` of statistics.json.
* A *unit* is what a worker reads at a time: pieces that follow each other, together as much.
* A *chunk* is about a MiB of a piece's text, in whole lines.
* A *document* is a line, a paragraph, a record or a file: what a pair of words never crosses.
* A *block* is documents that are tokenised together: about `BLOCK_BYTES` (1 MiB) of a unit.
* A *segment* is the tokenised documents of a unit, or of at most about `SEGMENT_BYTES` (25 MiB) of
  it. What travels through the Beam job is a reference to a segment, `SegmentRef`.
* A *partition* is no slice of the corpus but of its keys (types, pairs, hashes): those that one
  worker sums up or sorts.

*Tokens* are strings, or the ids that stand for them; *types* are distinct tokens. A *share* is a
fraction, as of the documents that are held out.
"""
