"""The operator surface, one file per kind of operation: what each says in comprehensions."""
