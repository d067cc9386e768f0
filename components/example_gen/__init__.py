"""ExampleGen: corpora -> documents, in blocks, in an order that depends on the files alone.

build.py lists what there is (`corpus.json`), units.py cuts it into work, reader.py turns a unit
into blocks of documents, split.py chooses the held-out share. What a document is, formats.py says
of text, json_lines.py and tables.py of records; unpacking.py reads compressed files. What is no
text is refused by content.py and encodings.py, with the commands of remedies.py.
"""
