"""Training: photographs in, a checkpoint out. `dvmsr.train.command` is `dvmsr train`."""
