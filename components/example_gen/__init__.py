"""ExampleGen: corpora -> documents, in blocks, in an order that depends on the files alone.

build.py lists what there is (`corpus.json`), units.py cuts it into work, formats.py and reader.py
turn a unit into blocks of documents, source.py is the Beam source, split.py the held-out share.
"""
