"""The tape catalog: customers, media types, repositories, volumes, and their history."""
