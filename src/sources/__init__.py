"""Where readers of yours live: a file each, named in `prepare.source`, say `sources.mine:rows`."""
