"""A foreign producer and an independent judge of the contract's consumers.

Used by ../queues.py. Written from the wire contract alone (queues, keys, payloads,
tables), not from the collector's code: what both agree on is right.
"""
