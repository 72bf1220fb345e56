"""Where networks live: a file each.

Add your own here and name it in `train.model.factory`, say `networks.mine:build`.
"""
