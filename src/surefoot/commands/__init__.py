"""The commands of `surefoot`, a file each."""
