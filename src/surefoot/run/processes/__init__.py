"""A training by several processes (`SUREFOOT_PROCESSES`), which share the shards of each minibatch.

wanted     how many, as the environment says
launch     starts them by torchrun's agent, and again when one dies
member     one of them, and its line to the others
leader     the first: it plans, keeps the chain, and tells the others what to do
follower   the others

shared_evaluation   several processes that share the test rows
"""
