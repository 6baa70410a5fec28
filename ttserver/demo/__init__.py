"""The demonstration: a master and a replicant on this machine with 10,000 tapes of sample data.

Started by `script/server`. Everything goes the operator's way: `ttserver init`, `ttserver run`,
clients on the client port.
"""
