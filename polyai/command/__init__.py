"""The command `polyai`: its verbs, the demonstration, pictures of matrices."""
