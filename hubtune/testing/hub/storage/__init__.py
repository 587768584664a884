"""What a loopback Hub stores: repositories, commits, files and discussions."""
