"""Where things lie: a directory, or a path in a bucket. The output and the serving root are such.

`Directory` and `Bucket` have the same methods. Names are relative to the place, with slashes.
"""
