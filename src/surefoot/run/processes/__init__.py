"""A training by several processes, of one machine or several, which share the shards of each minibatch.

wanted             how many processes and machines, as the environment says
launch             starts the processes of a machine by torchrun's agent, and again when one dies
endings            how processes end, and what is said of it
meeting            what the machines tell each other, and the agent
first_machine      the meeting as its host sees it: when all begin, and why they are started again
machines           the others: who joins, who is refused, who is gone
joined_machine     the meeting as one that has joined sees it
same_work          what must be the same on all machines
addresses          what listens where, and by which interface processes talk
lead, join         what the stage train does on the first machine, and `surefoot join` on the others
member             one of the processes, and its line to the others
leader             the first: it plans, keeps the chain, and tells the others what to do
follower           the others
shared_evaluation  several processes that share the test rows
"""
