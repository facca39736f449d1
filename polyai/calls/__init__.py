"""Calls: how the arguments of a traced function find their kernel, and its arrays the user's results."""
