"""Steps: loops, local values, stores and checks. What an imperative programmer would have written by hand."""
