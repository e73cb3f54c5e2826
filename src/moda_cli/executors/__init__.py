"""Tasks worked off by processes of this machine, or by a Ray cluster."""
