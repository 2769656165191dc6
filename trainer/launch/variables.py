"""Variables of the environment by which the launcher tells its workers more than their place."""

# names a file: once that is there, a worker that gets SIGTERM has lost a peer
PEER_GONE = "TERMWISE_PEER_GONE"
