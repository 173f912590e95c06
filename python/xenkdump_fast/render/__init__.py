"""Results to text in crash's own format, or to JSON."""
