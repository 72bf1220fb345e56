"""Networks, a file each. A package of Surefoot has them as `surefoot.networks`.

In a clone yours lie here, too: name one in `train.model.factory`, say `networks.mine:build`.
"""
