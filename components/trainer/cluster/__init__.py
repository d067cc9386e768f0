"""A training on several machines: the rounds of one, with files in place of memory.

All that is to be done, and all that was done, lies in a work directory that every machine sees. A
*hand* is a thread somewhere that looks there for what is missing, makes it and writes it: what a
shard found, a merged part of a table, a part of a snapshot. Each file is a function of the files
before it, and appears whole. So it does not matter how many hands there are, which one makes what,
or whether two make the same; and a hand that dies leaves nothing but work for others.

    work.py      what lies where, and how it is laid out in bytes
    station.py   what the hands of one process share: the tables, brought from state to state
    hand.py      one hand: looks, claims, makes, writes
    job.py       the Beam job, which brings hands
    launcher.py  writes what the hands start from, and follows what they do
"""
