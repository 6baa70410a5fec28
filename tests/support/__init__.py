"""What several tests stand on: small parts over the real ones below them."""
