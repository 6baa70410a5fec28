"""The one owner of the Berkeley DB environment: opening, commits, the keyspace, users."""
