"""Mathematics: programs of comprehensions over index variables. Graph and operators are this one form."""
