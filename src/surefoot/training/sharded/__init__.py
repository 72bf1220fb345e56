"""Steps whose minibatches are cut into shards (`train.shards`), by one process or by several, with the same bits.

tree             sums over shards, in one order
sharded_step     the gradient of a step, shard by shard
sharded_trainer  the loop, and the rows of each shard
shared_outputs   a network's outputs on many rows
faults           what went wrong in a shard, told to all
transport        how numbers come from process to process
"""
