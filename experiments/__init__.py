"""One config file per family; installed as `loopformer.experiments`."""
