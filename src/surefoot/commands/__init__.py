"""The commands, a file each; `surefoot.cli` lists them."""
