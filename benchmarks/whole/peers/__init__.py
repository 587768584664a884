"""Training scripts of the peer libraries, as their documentation has them, with every option that makes them faster."""
