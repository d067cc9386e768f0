"""ExampleGen: corpora -> documents, in blocks, in an order that depends on the files alone.

build.py lists what there is (`corpus.json`), units.py cuts it into work, formats.py and reader.py
turn a unit into blocks of documents, split.py chooses the held-out share.
"""
