"""Where records go: one file per destination, all with the contract of `base.Destination`."""
