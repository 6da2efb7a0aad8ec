"""`smolvlm launch`: several processes of one run, on this machine or as a job of a cluster."""
