"""ExampleGen: corpora -> documents, in blocks, in an order that depends on the files alone.

patterns.py and files.py find what there is, build.py lists it (`corpus.json`) and says what it
holds, units.py cuts it into work, formats.py and reader.py turn a unit into blocks of documents,
split.py chooses the held-out share.
"""
