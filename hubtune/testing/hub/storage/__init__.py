"""Storage of a loopback Hub: repositories, commits, files and discussions."""
