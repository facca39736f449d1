"""The doors: what a user calls, decorates and prepares. Thin layers over the frontend and `calls`."""
