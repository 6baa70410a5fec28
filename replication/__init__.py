"""The rebuilt Replication Manager: the wire, the links, acknowledgements, elections, membership."""
