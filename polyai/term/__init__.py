"""What every tree of the compiler shares: node classes, rewriting, fresh names, text, digests."""
