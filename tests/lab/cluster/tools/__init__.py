"""What tests of the lab share: faults, runs of node pods, tests beside each other."""
