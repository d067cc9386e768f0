"""ExampleGen: corpora -> documents, in blocks, in an order that depends on the files alone.

patterns.py and files.py find what there is, build.py lists it (`corpus.json`) and says what it
holds, units.py cuts it into work, reader.py turns a unit into blocks of documents, split.py chooses
the held-out share. What a document is, formats.py says of text, json_lines.py and tables.py of
records; unpacking.py reads compressed files. What is no text is refused by content.py and
encodings.py, with the commands of remedies.py.
"""
